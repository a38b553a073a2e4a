"""Run a measurement of single cells over a dataset: in chunks, on several processes, one thread each."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from pci_core.cells import CROPS, CellDataset
from pci_core.errors import DatasetError
from pci_core.parallel import describe_workers, in_order

Columns = dict[str, np.ndarray]
CHUNK = 64  # cells: large enough to share the cost of a call, small enough for an even load


def per_cell(
    function: Callable[[np.ndarray], Columns], dataset: CellDataset, what: str, *, jobs: int = -1, quiet: bool = False, chunk: int = CHUNK
) -> Columns:
    """Apply a function to all crops, chunk by chunk, in parallel and in order.

    Memory grows with the results only: crops are read as they are needed.

    Parameters
    ----------
    function : callable
        From crops (n, C, H, W), raw, to arrays of n rows by name; the same names and trailing shapes for every chunk.
        A cell's values must not depend on the cells beside it. Must be picklable (module level, or `functools.partial`).
    dataset : CellDataset
        (N, C, H, W) crops.
    what : str
        For the printed line and the progress bar, e.g. ``"classic"``.
    jobs : int
        Processes, -1 = one for each core; within `pci_core.parallel.on_cluster` the cluster's workers.
    quiet : bool
        No progress bar and no printed line.
    chunk : int
        Cells at a time.

    Returns
    -------
    dict of str to ndarray
        Each (N, ...), in the order of the dataset.

    Raises
    ------
    DatasetError
        An empty dataset, or a chunk that gave other columns than the first or not one row a cell.
    """
    n = len(dataset)
    if not n:
        raise DatasetError(f"{dataset.folder}: no cells to measure.")
    starts = range(0, n, chunk)
    if not quiet:
        print(f"Measuring {what} features of {n} cells, {describe_workers(jobs, len(starts))} of one thread")
    crops = os.path.abspath(dataset.folder / CROPS)
    tasks = ((function, crops, i, min(i + chunk, n)) for i in starts)
    parts: list[Columns] = []
    results = in_order(_single_thread, tasks, len(starts), jobs=jobs)
    with closing(results), tqdm(total=n, desc=what, unit=" cells", disable=quiet) as bar:
        for i, part in zip(starts, results, strict=True):
            rows = min(chunk, n - i)
            wrong = [k for k, v in part.items() if len(v) != rows]
            if wrong or (parts and part.keys() != parts[0].keys()):
                raise DatasetError(f"{what}: cells {i} to {i + rows - 1} gave other columns than the first ones, or not one row a cell.")
            parts.append(part)
            bar.update(rows)
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _single_thread(function: Callable[[np.ndarray], Columns], file: str, start: int, stop: int) -> Columns:
    # read where it is measured: crops need not pass through this process, or a cluster's scheduler
    crops = np.array(np.load(file, mmap_mode="r", allow_pickle=False)[start:stop])
    with threadpool_limits(limits=1):  # processes stand side by side on all cores
        return function(crops)
