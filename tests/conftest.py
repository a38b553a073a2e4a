"""Shared fixtures: small made-up cells, and the real data where the environment names it."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks here are so small that threads only wait for one another

from collections.abc import Callable  # noqa: E402
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pci_core.cells import CellDataset, CellWriter, Channel

CHANNELS = (Channel("protein", "protein"), Channel("marker", "structural"))


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
                table = {"cell_id": ids, "image": f"i{i}", "protein": f"P{i}", "location": "ab"[i % 2], "field": [f"i{i}_f{j % 2}" for j in range(cells)]}
                writer.add(crops, pd.DataFrame(table))
        return CellDataset(folder)

    return make
