"""Distances of pairs of images (the paper's figure 2B and table 2): ours beside a loop over the pairs with scipy's cdist.

    python benchmarks/bench_distances.py [--repeats 1] [--quick]

Made-up images in the paper's numbers: 11,995 proteins, 41,285 images of 15 cells on average, about half of the proteins with one of
18 locations, the rarest shared by 30. The pairs are all that the analysis draws: for each location 1,000 of the same and 1,000 of
each other one, and twice 10,000 + 10,000 of the same cell line and of different ones. Both get the cells in the order of
their images. Ours includes the list of pairs, each computed once, where the loop takes every pair as it comes. Each is a process of its
own, so that its peak resident memory is its own (that of holding the features stands beside). Writes
benchmarks/results/distances.json; with --quick only prints.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import environment, peak_mb, timed, write_result
from scipy.spatial.distance import cdist

from pci_core.analysis.distances import draw_line_pairs, draw_term_pairs
from pci_core.analysis.image_distances import mean_distances

PROTEINS, IMAGES, FEATURES, TERMS, RAREST, LINES = 11_995, 41_285, 384, 18, 30, 20
STEPS = ("hold", "ours", "loop")


def made_up(share: float) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the table of images, as `pci_core.analysis.distances.image_table` gives it, and the cells of each."""
    rng = np.random.default_rng(0)
    proteins, n = int(PROTEINS * share), int(IMAGES * share)
    with_term = np.maximum(RAREST, rng.dirichlet(np.ones(TERMS)) * proteins * 0.45).astype(int)
    term = np.concatenate([np.repeat([f"term {t}" for t in range(TERMS)], with_term), np.full(proteins, "")])[:proteins]
    protein = np.concatenate([np.arange(proteins), rng.integers(0, proteins, n - proteins)])
    columns = {
        "protein": np.array([f"P{i:05d}" for i in range(proteins)])[protein],
        "cell_line": np.array([f"line {i}" for i in range(LINES)])[rng.integers(0, LINES, n)],
        "term": term[protein],
    }
    return pd.DataFrame(columns), 5 + rng.poisson(rng.exponential(10.5, n))  # the paper left out images of fewer than 5 cells


def drawn(images: pd.DataFrame, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of images that the analysis draws."""
    pairs = [draw_term_pairs(images, n), *(draw_line_pairs(images, same, 10 * n) for same in (True, False))]
    every = pd.concat(pairs, ignore_index=True)
    return every["a"].to_numpy(), every["b"].to_numpy()


def step(what: str, folder: Path) -> dict[str, Any]:
    """Do one of the ways and tell what it took."""
    x, told = np.load(folder / "x.npy"), np.load(folder / "pairs.npz")
    a, b, size = told["a"], told["b"], told["size"]
    image, first = np.repeat(np.arange(len(size)), size), np.cumsum(size) - size

    def loop() -> np.ndarray:
        cells = [x[i : i + n] for i, n in zip(first, size, strict=True)]
        return np.array([cdist(cells[i], cells[j]).mean() for i, j in zip(a, b, strict=True)])

    way = {"hold": lambda: np.zeros(0), "ours": lambda: mean_distances(x, image, a, b), "loop": loop}[what]
    found, wall, processor = timed(way)
    np.save(folder / f"{what}.npy", found)
    return {"seconds": wall, "processor_seconds": processor, "peak_mb": peak_mb()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a tenth of the images and pairs: to see that it runs, not for figures")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()
    if options.step:
        print(json.dumps(step(options.step[0], Path(options.step[1]))))
        return
    load, runs, unequal = os.getloadavg(), [], 0.0
    images, size = made_up(0.1 if options.quick else 1)
    a, b = drawn(images, 100 if options.quick else 1000)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "x.npy", np.random.default_rng(1).standard_normal((size.sum(), FEATURES), dtype=np.float32))
        np.savez(folder / "pairs.npz", a=a, b=b, size=size)
        for repeat in range(options.repeats):
            for what in STEPS:
                command = [sys.executable, __file__, "--step", what, scratch]
                told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
                runs.append({"step": what, "repeat": repeat, **told})
                print(f"{what:6} {told['seconds']:8.1f} s  {told['peak_mb']:7.0f} MiB", told, flush=True)
            ours, loop = np.load(folder / "ours.npy"), np.load(folder / "loop.npy")
            unequal = max(unequal, float(np.abs(ours / loop - 1).max()))
    # ours multiplies in float32 and sums in float64, scipy's is float64 throughout: a distance differs by some 1e-7, its mean by less
    if not unequal < 1e-5:
        sys.exit(f"the distances differ by up to {unequal:.1e}")

    def ratio(key: str) -> float:
        took = {what: [r[key] for r in runs if r["step"] == what] for what in STEPS}
        return statistics.median(loop / ours for ours, loop in zip(took["ours"], took["loop"], strict=True))

    result = {
        "environment": environment(torch.device("cpu"), torch.float32),
        "cores": os.cpu_count(),
        "load_before": load[0],
        "proteins": int(images["protein"].nunique()),
        "images": len(images),
        "cells": int(size.sum()),
        "features": FEATURES,
        "pairs": len(a),
        "runs": runs,
        "summary": {
            "ratio": ratio("seconds"),
            "ratio_processor": ratio("processor_seconds"),
            "greatest_relative_difference": unequal,
            "peak_mb": {what: max(r["peak_mb"] for r in runs if r["step"] == what) for what in STEPS},
        },
    }
    print(json.dumps(result["summary"], indent=1))
    if not options.quick:
        write_result("distances", result)


if __name__ == "__main__":
    main()
