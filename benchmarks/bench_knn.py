"""Leave-one-out neighbours of 30,889 cells of 384 features, votes for five k: ours beside scikit-learn's brute force.

    python benchmarks/bench_knn.py [--repeats 3] [--quick]

The size of the paper's labelled yeast set. The baseline is what a user writes: one call of scikit-learn for each k; one call for the
largest k, whose list serves all, stands beside. Values are made up (17 classes, images with a share of
their own, features that depend on one another as a network's do). Other work on the machine is told by
its load before the start; processor seconds, summed over threads, depend on it less than wall seconds.
Writes benchmarks/results/knn.json; with --quick only prints.
"""

from __future__ import annotations

import argparse
import os
import statistics
from typing import Any

import numpy as np
import torch
from common import environment, table, timed, write_result
from sklearn.neighbors import NearestNeighbors

from pci_core.analysis.knn import neighbours_each, standardise, votes

CELLS, FEATURES, CLASSES, IMAGES = 30_889, 384, 17, 400
KS = (1, 5, 11, 25, 50)


def made_up(cells: int = CELLS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, class and image of each cell."""
    rng = np.random.default_rng(0)
    image = np.sort(rng.integers(0, IMAGES, cells))
    code = image % CLASSES
    hidden = rng.normal(size=(cells, 60)) + rng.normal(size=(CLASSES, 60))[code] + 0.5 * rng.normal(size=(IMAGES, 60))[image]
    return np.maximum(hidden @ rng.normal(size=(60, FEATURES)), 0).astype(np.float32), code, image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few cells: to see that it runs, not for figures")
    options, _ = parser.parse_known_args()
    load, cells = os.getloadavg(), 4000 if options.quick else CELLS
    x, code, image = made_up(cells)

    def ours(ways: list[np.ndarray | None]) -> list[dict[int, np.ndarray]]:
        return [votes(near, code, KS) for near in neighbours_each(standardise(x), max(KS), ways)]

    def theirs() -> dict[int, np.ndarray]:
        near = NearestNeighbors(n_neighbors=max(KS), algorithm="brute", n_jobs=-1).fit(standardise(x)).kneighbors(return_distance=False)
        return votes(near, code, KS)

    def one_call_a_k() -> dict[int, np.ndarray]:
        scaled, found = standardise(x), {}
        for k in KS:
            near = NearestNeighbors(n_neighbors=k, algorithm="brute", n_jobs=-1).fit(scaled).kneighbors(return_distance=False)
            found |= votes(near, code, [k])
        return found

    runs, agree = [], 1.0
    for _ in range(options.repeats):
        run: dict[str, float] = {}
        for name, work in (
            ("own_cell", lambda: ours([None])),
            ("own_image", lambda: ours([image])),
            ("both", lambda: ours([None, image])),
            ("scikit_learn", theirs),
            ("scikit_learn_each_k", one_call_a_k),
        ):
            found, run[name], run[f"{name}_processor"] = timed(work)
            if name == "own_cell":
                mine = found[0]
            elif name.startswith("scikit_learn"):
                agree = min(agree, *(float(np.mean(mine[k] == found[k])) for k in KS))
        runs.append(run)
        print({k: round(v, 2) for k, v in run.items()}, flush=True)
    summary: dict[str, Any] = {
        k: {"median": statistics.median(r[k] for r in runs), "min": min(r[k] for r in runs), "max": max(r[k] for r in runs)}
        for k in runs[0]
    }
    print(table(summary), f"\nsame predictions: {agree:.6f}")
    for key, baseline in (("ratio_one_call_a_k", "scikit_learn_each_k"), ("ratio_one_call", "scikit_learn")):
        summary[key] = statistics.median(r[baseline] / r["own_cell"] for r in runs)
        summary[f"{key}_processor"] = statistics.median(r[f"{baseline}_processor"] / r["own_cell_processor"] for r in runs)
        print(f"{key}: {summary[key]:.2f}, of processor seconds {summary[f'{key}_processor']:.2f}")
    result = {
        "environment": environment(torch.device("cpu"), torch.float32),
        "cores": os.cpu_count(),
        "load_before": load[0],
        "cells": cells,
        "features": FEATURES,
        "ks": KS,
        "same_predictions": agree,
        "runs": runs,
        "summary": summary,
    }
    if not options.quick:
        write_result("knn", result)


if __name__ == "__main__":
    main()
