"""Are larger batches as good? Time, held-out loss and kNN accuracy of the same training at several batch sizes.

    python benchmarks/bench_batch.py [--recipe simulated-human] [--batches 64 256 1024] [--rule sqrt] [--epochs 10] [--width 0.25]
        [--seeds 0 1] [--device auto] [--runs FOLDER]

Speed counts at equal quality only. Each batch size trains on the same cells for the same number of epochs from the same initial
weights; the learning rate is the recipe's times the square root of how many times larger the batch is (--rule sqrt, the usual one for
Adam), or as it is (--rule none). kNN (k = 11, balanced, own image left out; 95 % bootstrap over images) is that of conv3 and conv4.
Writes benchmarks/results/batch.json; with --quick only prints.
"""

from __future__ import annotations

import argparse
from typing import Any

from common import environment, write_result

from pci_core import device as devices
from pci_core.checkpoint import WEIGHTS
from pci_core.comparison import compare
from pci_core.run import Run
from pci_core.weights import load_safetensors

LAYERS, K = ("conv3", "conv4"), 11


def measure(options: argparse.Namespace, batch: int, seed: int, base: dict[str, Any]) -> dict[str, Any]:
    """Train with one batch size and seed; return its cost, losses and scores."""
    rate = base["learning_rate"] * ((batch / base["batch_size"]) ** 0.5 if options.rule == "sqrt" else 1.0)
    keys = {"batch_size": batch, "learning_rate": rate, "epochs": options.epochs, "width": options.width, "seed": seed, "pretrained": ""}
    run = Run(options.recipe, options.runs, training=keys, device=options.device)
    card = load_safetensors(run.train() / WEIGHTS)[1]
    scores = compare(run, LAYERS, classifiers=["knn"], ks=[K], stem=f"batch{batch}_{seed}").benchmark.scores
    rows = scores[(scores["left_out"] != "cell") & (scores["k"] == K)].set_index("features")
    out = {"batch": batch, "seed": seed, "learning_rate": rate, "pairs": card["pairs"], "seconds": card["seconds"], **card["losses"]}
    return out | {name: {key: float(rows.loc[name, key]) for key in ("accuracy", "low", "high")} for name in LAYERS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="simulated-human")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--rule", choices=("sqrt", "none"), default="sqrt")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", help="folder of runs: cells that are there are used again")
    parser.add_argument("--quick", action="store_true", help="one epoch, very narrow: to see that it runs")
    options, _ = parser.parse_known_args()
    if options.quick:
        options.epochs, options.width, options.seeds, options.batches = 1, 0.05, [0], options.batches[:2]
    run = Run(options.recipe, options.runs, device=options.device)
    base = {"batch_size": run.recipe.training.batch_size, "learning_rate": run.recipe.training.learning_rate}
    dataset, rows = run.cells(), []
    for seed in options.seeds:
        for batch in options.batches:
            rows.append(measure(options, batch, seed, base))
            scores = ", ".join(f"{n} {rows[-1][n]['accuracy']:.3f} [{rows[-1][n]['low']:.3f}, {rows[-1][n]['high']:.3f}]" for n in LAYERS)
            print(f"batch {batch}, seed {seed}: held-out loss {rows[-1]['held_out_loss']:.5f}; {scores}", flush=True)
    if not options.quick:
        where = devices.choose_device(options.device)
        settings = {k: v for k, v in vars(options).items() if k not in ("runs", "quick")}
        content = {"environment": environment(where, devices.choose_precision(where)), **settings, "cells": len(dataset)}
        write_result("batch", {**content, "simulated": run.recipe.simulated, "rows": rows})


if __name__ == "__main__":
    main()
