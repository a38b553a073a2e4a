"""Clustering at the paper's size: 11,995 proteins of 384 features; seconds and peak memory of each step of notebook 04.

    python benchmarks/clustering.py [--proteins 11995] [--repeats 1] [--note "what else ran"] [--quick]

Values are made up: classes of unequal size, proteins that differ in strength, features that depend on one another as a
network's do; gene sets as many and as large as GO's cellular components. Each step is a process of its own, so that its peak
resident memory is its own (that of a process which only imports the package stands beside). The baseline is what a user
would write: scipy's pdist and linkage. "whole" is everything from features to the file of the ordered heat map: distances,
linkage and order of proteins and of features, clusters, the figure as PNG. Other work on the machine is told by its load before
the start; processor seconds depend on it less than wall seconds. Writes benchmarks/results/clustering.json; with --quick only prints.
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
import torch
from common import environment, peak_mb, timed, write_result
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist

from pci_core.analysis import clusters, enrichment, trees
from pci_core.analysis.knn import standardise
from pci_core.plots import clusters as figures

FEATURES, CLASSES, TERMS, MIN_SIZE = 384, 40, 446, 5
METRICS = ("correlation", "euclidean")
STEPS = ("import", *(f"{who}_{m}" for m in METRICS for who in ("grow", "scipy", "whole")), "cut", "heat_map", "enrichment")


def made_up(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features and class of each protein."""
    rng = np.random.default_rng(0)
    code = rng.choice(CLASSES, n, p=rng.dirichlet(np.full(CLASSES, 1.5)))
    hidden = rng.normal(size=(n, 60)) + rng.normal(size=(CLASSES, 60))[code]
    hidden += rng.exponential(1, size=(n, 1)) * 0.5 * rng.normal(size=(CLASSES, 60))[code]  # strong and weak ones of a class
    return standardise(np.maximum(hidden @ rng.normal(size=(60, FEATURES)), 0).astype(np.float32)), code


def names(n: int) -> list[str]:
    return [f"G{i:05d}" for i in range(n)]


def tree(folder: Path, metric: str) -> trees.Tree:
    """Return the dendrogram that a step before this one grew."""
    merges = np.load(folder / f"{metric}.npy")
    return trees.Tree(tuple(names(len(merges) + 1)), merges, hierarchy.leaves_list(merges).astype(np.int64), "average", metric)


def step(what: str, folder: Path) -> dict[str, Any]:
    """Do one step and tell what it gave."""
    x = np.load(folder / "x.npy")
    kind, _, metric = what.partition("_")
    if kind == "grow":
        np.save(folder / f"{metric}.npy", trees.grow(x, names(len(x)), metric=metric).merges)
    elif kind == "scipy":
        merges = hierarchy.linkage(pdist(x.astype(np.float64), metric), "average")
        mine = np.load(folder / f"{metric}.npy")
        return {
            "same_merges": bool((merges[:, [0, 1, 3]] == mine[:, [0, 1, 3]]).all()),
            "greatest_difference_of_heights": float(np.abs(merges[:, 2] - mine[:, 2]).max()),
        }
    elif kind == "whole":
        rows = trees.grow(x, names(len(x)), metric=metric)
        columns = trees.grow(x.T, names(x.shape[1]), metric=metric)
        labels = clusters.cut(rows, min_size=MIN_SIZE)
        figures.heat_map(x, rows, columns, labels, {}, f"{len(x):,} made-up proteins").savefig(folder / f"{metric}.png", dpi=150)
    elif what == "cut":
        labels = clusters.cut(tree(folder, METRICS[0]), min_size=MIN_SIZE)
        np.save(folder / "labels.npy", labels)
        return {"clusters": int(labels.max()), "in_no_cluster": int((labels == 0).sum())}
    elif what == "heat_map":
        rows, labels = tree(folder, METRICS[0]), np.load(folder / "labels.npy")
        columns = trees.grow(x.T, names(x.shape[1]), metric=METRICS[0])
        figure = figures.heat_map(x, rows, columns, labels, {}, f"{len(x):,} made-up proteins")
        for ending in ("png", "svg"):
            figure.savefig(folder / f"map.{ending}", dpi=150)
        return {f"{e}_bytes": (folder / f"map.{e}").stat().st_size for e in ("png", "svg")}
    elif what == "enrichment":
        labels, genes = np.load(folder / "labels.npy"), np.array(names(len(x)))
        code = np.load(folder / "code.npy")
        rng = np.random.default_rng(1)
        sets = {}
        for t in range(TERMS):  # sizes as of GO's components; half of the genes of one class
            size = int(np.clip(rng.lognormal(3.4, 1.2), 5, 2000))
            own = genes[code == t % CLASSES]
            half = rng.choice(own, min(size // 2, len(own)), replace=False)
            sets[f"term {t}"] = frozenset(half) | frozenset(rng.choice(genes, size - len(half), replace=False))
        members = {str(c): genes[labels == c].tolist() for c in range(1, labels.max() + 1)}
        table = enrichment.enrich(members, genes.tolist(), sets, quiet=True)
        return {"tests": len(table), "terms": TERMS, "passed": int((table["fdr"] <= 0.05).sum())}
    return {}


def summary(runs: list[dict[str, Any]], metric: str) -> dict[str, float]:
    """Return how many times as long scipy's pdist and linkage take as ours to the heat map, and as ours to the dendrogram."""

    def median(step: str, key: str) -> float:
        return statistics.median(r[key] for r in runs if r["step"] == f"{step}_{metric}")

    out = {"peak_mb": max(r["peak_mb"] for r in runs if r["step"] == f"whole_{metric}")}
    for name, step in (("ratio", "whole"), ("ratio_to_dendrogram", "grow")):
        out[name] = median("scipy", "seconds") / median(step, "seconds")
        out[f"{name}_processor"] = median("scipy", "processor_seconds") / median(step, "processor_seconds")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proteins", type=int, default=11_995)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--note", default="", help="what else ran on the machine")
    parser.add_argument("--quick", action="store_true", help="few proteins: to see that it runs, not for figures")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()
    if options.step:
        found, wall, processor = timed(lambda: step(options.step[0], Path(options.step[1])))
        print(json.dumps(found | {"seconds": wall, "processor_seconds": processor, "peak_mb": peak_mb()}))
        return
    load, runs, proteins = os.getloadavg(), [], 2500 if options.quick else options.proteins
    with tempfile.TemporaryDirectory() as scratch:
        x, code = made_up(proteins)
        np.save(Path(scratch) / "x.npy", x)
        np.save(Path(scratch) / "code.npy", code)
        for repeat in range(options.repeats):
            for what in STEPS:
                command = [sys.executable, __file__, "--step", what, scratch]
                told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
                runs.append({"step": what, "repeat": repeat, **told})
                print(f"{what:18} {told['seconds']:8.1f} s  {told['peak_mb']:7.0f} MiB", told, flush=True)
    content = {"environment": environment(torch.device("cpu"), torch.float32), "cores": os.cpu_count(), "load_before": load[0]}
    content |= {"note": options.note, "proteins": proteins, "features": FEATURES, "min_size": MIN_SIZE, "runs": runs}
    content["summary"] = {metric: summary(runs, metric) for metric in METRICS}
    print(json.dumps(content["summary"], indent=1))
    if not options.quick:
        write_result("clustering", content)


if __name__ == "__main__":
    main()
