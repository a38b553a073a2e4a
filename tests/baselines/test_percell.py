from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest
import threadpoolctl

from pci_core.baselines.percell import per_cell
from pci_core.cells import CellDataset
from pci_core.errors import DatasetError


def mean_and_process(crops: np.ndarray) -> dict[str, np.ndarray]:
    threads = max((p["num_threads"] for p in threadpoolctl.threadpool_info()), default=1)
    n = len(crops)
    return {"mean": crops.mean((1, 2, 3)), "pixels": crops[:, 0, :2], "process": np.full(n, os.getpid()), "threads": np.full(n, threads)}


def one_row_short(crops: np.ndarray) -> dict[str, np.ndarray]:
    return {"mean": crops[1:].mean((1, 2, 3))}


def other_columns(crops: np.ndarray) -> dict[str, np.ndarray]:
    return {f"of {len(crops)}": crops.mean((1, 2, 3))}


@pytest.mark.parametrize("jobs", [1, 2])
def test_order_and_processes(make_cells: Callable[..., CellDataset], jobs: int, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_cells()
    got = per_cell(mean_and_process, dataset, "test", jobs=jobs, chunk=5)
    crops = dataset.read(np.arange(len(dataset)))
    np.testing.assert_array_equal(got["mean"], crops.mean((1, 2, 3)))
    np.testing.assert_array_equal(got["pixels"], crops[:, 0, :2])
    assert (got["process"] == os.getpid()).all() == (jobs == 1)
    assert (got["threads"] == 1).all()
    printed = capsys.readouterr()
    assert f"Measuring test features of 24 cells, {jobs} process" in printed.out and "cells" in printed.err


def test_quiet(make_cells: Callable[..., CellDataset], capsys: pytest.CaptureFixture[str]) -> None:
    per_cell(mean_and_process, make_cells(), "test", jobs=1, quiet=True)
    printed = capsys.readouterr()
    assert not printed.out and not printed.err


@pytest.mark.parametrize("function", [one_row_short, other_columns])
def test_wrong_chunks(make_cells: Callable[..., CellDataset], function: Callable[[np.ndarray], dict[str, np.ndarray]]) -> None:
    with pytest.raises(DatasetError, match="other columns"):
        per_cell(function, make_cells(), "test", jobs=1, quiet=True, chunk=5)
