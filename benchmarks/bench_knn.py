"""Leave-one-out neighbours of 30,889 cells of 384 features, votes for five k: ours beside scikit-learn's brute force.

    python benchmarks/bench_knn.py [--repeats 3]

The size of the paper's labelled yeast set. Values are made up (17 classes, images with a share of
their own, features that depend on one another as a network's do). Other work on the machine is told by
its load before the start; processor seconds, summed over threads, depend on it less than wall seconds.
Writes benchmarks/results/knn.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import environment, table, write_result
from sklearn.neighbors import NearestNeighbors

from pci_core.analysis.knn import neighbours_each, standardise, votes

CELLS, FEATURES, CLASSES, IMAGES = 30_889, 384, 17, 400
KS = (1, 5, 11, 25, 50)


def made_up() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, class and image of each cell."""
    rng = np.random.default_rng(0)
    image = np.sort(rng.integers(0, IMAGES, CELLS))
    code = image % CLASSES
    hidden = rng.normal(size=(CELLS, 60)) + rng.normal(size=(CLASSES, 60))[code] + 0.5 * rng.normal(size=(IMAGES, 60))[image]
    return np.maximum(hidden @ rng.normal(size=(60, FEATURES)), 0).astype(np.float32), code, image


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what `work` gives, its wall seconds and its processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    options, _ = parser.parse_known_args()
    load = os.getloadavg()
    x, code, image = made_up()

    def ours(ways: list[np.ndarray | None]) -> list[dict[int, np.ndarray]]:
        return [votes(near, code, KS) for near in neighbours_each(standardise(x), max(KS), ways)]

    def theirs() -> dict[int, np.ndarray]:
        near = NearestNeighbors(n_neighbors=max(KS), algorithm="brute", n_jobs=-1).fit(standardise(x)).kneighbors(return_distance=False)
        return votes(near, code, KS)

    runs, agree = [], 1.0
    for _ in range(options.repeats):
        run: dict[str, float] = {}
        for name, work in (
            ("own_cell", lambda: ours([None])),
            ("own_image", lambda: ours([image])),
            ("both", lambda: ours([None, image])),
            ("scikit_learn", theirs),
        ):
            found, run[name], run[f"{name}_processor"] = timed(work)
            if name == "own_cell":
                mine = found[0]
            elif name == "scikit_learn":
                agree = min(agree, *(float(np.mean(mine[k] == found[k])) for k in KS))
        runs.append(run)
        print({k: round(v, 2) for k, v in run.items()}, flush=True)
    summary = {
        k: {"median": statistics.median(r[k] for r in runs), "min": min(r[k] for r in runs), "max": max(r[k] for r in runs)}
        for k in runs[0]
    }
    print(table(summary), f"\nsame predictions: {agree:.6f}")
    write_result(
        "knn",
        {
            "environment": environment(torch.device("cpu"), torch.float32),
            "cores": os.cpu_count(),
            "load_before": load[0],
            "cells": CELLS,
            "features": FEATURES,
            "ks": KS,
            "same_predictions": agree,
            "runs": runs,
            "summary": summary,
        },
    )


if __name__ == "__main__":
    main()
