"""Shared fixtures: small made-up cells, and the real data where the environment names it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks here are so small that threads only wait for one another
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")  # jobs = -1: pytest has a process for each core, and another takes seconds to start

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import CHANNELS, write_own_recipe

from pci_core import hdf5
from pci_core.cells import CellDataset, CellWriter

# The rule of pandas 3, and of whoever imports pycytominer, which sets it for the whole process: arrays of a table are read-only.
# Set for all tests, so that what they find does not hang on their order; commands in processes of their own have the default of pandas.
pd.options.mode.copy_on_write = True


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough",
        action="store_true",
        help="the whole fault suite (make faults): 20 kills a step, thousands of damaged files, 1,000 draws; an hour and more. "
        "Without it the same tests run with a few of each.",
    )


_frozen = 0  # modules that were loaded then


def pytest_runtest_setup() -> None:
    """Keep what imports made out of garbage collection: each step of a run asks for one, which would look through all of it for 0.4 s."""
    global _frozen
    if len(sys.modules) > _frozen + 50:
        gc.collect()
        gc.freeze()
        _frozen = len(sys.modules)


@pytest.fixture(scope="session")
def thorough(request: pytest.FixtureRequest) -> bool:
    """Whether the fault suite runs in full."""
    return bool(request.config.getoption("--thorough"))


@pytest.fixture
def test_data() -> Path:
    """The folder of real data, or a skip that says why."""
    return _folder("PCI_TEST_DATA")


@pytest.fixture
def reference() -> Path:
    """The folder of independent reference outputs, or a skip that says why."""
    return _folder("PCI_TEST_REFERENCE")


def _folder(variable: str) -> Path:
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set: it names a folder of real data that is no part of the repository")
    return Path(os.environ[variable])


@pytest.fixture
def looked_at_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at HDF5 files in this process before they are opened, not in one of their own, which takes half a second a file.

    For files that the library reads, or refuses at once; limits on time and memory are left out. `monkeypatch.undo` takes it back.
    """

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "resource", None)  # type: ignore[arg-type]  # as on a system that has no limits
            patch.setattr(sys, "argv", ["-c", *command[3:]])
            exec(command[2], {})
        return SimpleNamespace(returncode=0, stderr="")

    own = SimpleNamespace(run=run, DEVNULL=subprocess.DEVNULL, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(hdf5, "subprocess", own)


@pytest.fixture
def make_cells(tmp_path: Path) -> Callable[..., CellDataset]:
    """Write a small dataset: `images` images of `cells` cells each, the protein's pattern is the image's."""

    def make(images: int = 4, cells: int = 6, side: int = 16, dtype: str = "uint8", name: str = "cells", seed: int = 0) -> CellDataset:
        rng = np.random.default_rng(seed)
        yy, xx = np.mgrid[:side, :side]
        folder = tmp_path / name
        with CellWriter(folder, CHANNELS, 0.5, recipe="made-up") as writer:
            for i in range(images):
                angle = np.pi * i / images
                stripes = 0.5 + 0.5 * np.sin(yy * np.cos(angle) + xx * np.sin(angle))
                marker = rng.random((cells, side, side))
                crops = np.stack([stripes * marker, marker], 1)
                crops = (crops * 200).astype(dtype) if dtype != "float32" else crops.astype("float32")
                ids = [f"i{i}_{j}" for j in range(cells)]
                table = {
                    "cell_id": ids,
                    "image": f"i{i}",
                    "protein": f"P{i}",
                    "location": "ab"[i % 2],
                    "field": [f"i{i}_f{j % 2}" for j in range(cells)],
                }
                writer.add(crops, pd.DataFrame(table))
        return CellDataset(folder)

    return make


@pytest.fixture
def own_recipe(tmp_path: Path) -> Path:
    """A user's own recipe, see `write_own_recipe`."""
    return write_own_recipe(tmp_path / "own")
