"""How time and peak memory grow with the cells: extraction and training, streamed, at two sizes ten times apart.

    python benchmarks/bench_growth.py [--cells 4000] [--train-cells 600] [--repeats 1] [--quick]

Made-up cells of 2 x 64 x 64 px, width 0.25, a process for each measurement. Seconds are those of the pass itself, as the product
tells them: start, imports and the reading of the cell table are not among them. Training is told by the epoch: the smaller
set trains ten of them, so that both make the same number of steps, since the allocator, told to keep what is freed, takes some
more in the first hundreds of steps. A ratio of 10 is time in proportion to the cells. Writes
benchmarks/results/growth.json; with --quick only prints.
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

import torch
from common import environment, made_up_cells, peak_mb, write_result

from pci_core import recipe
from pci_core.cells import CellDataset
from pci_core.features import extract
from pci_core.networks import build
from pci_core.train import train

WIDTH, TIMES, LAYER = 0.25, 10, "conv4"
WORK = ("extract", "train")


def step(what: str, folder: str, epochs: int) -> dict[str, Any]:
    """Do one measurement in this process."""
    dataset = CellDataset(folder)
    spec = recipe.load("authors-toy-yeast").replace(training={"epochs": epochs, "width": WIDTH})
    told: dict[str, Any] = {"device": "cpu", "precision": "float32", "data": "streamed", "quiet": True}
    with tempfile.TemporaryDirectory(dir=Path(folder).parent) as out:
        if what == "train":
            seconds = train(dataset, spec, out, **told).seconds / epochs
        else:
            encoder = build("pci", 1, 1, WIDTH, seed=0).source
            seconds = extract(dataset, encoder, {LAYER: Path(out) / f"{LAYER}.h5ad"}, spec.preprocess, {}, **told).seconds
    return {"seconds": seconds, "peak_mb": peak_mb()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=4000, help="the smaller size of extraction")
    parser.add_argument("--train-cells", type=int, default=600, help="the smaller size of training")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few cells: to see that it runs, not for figures")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()
    if options.step:
        print(json.dumps(step(options.step[0], options.step[1], int(options.step[2]))))
        return
    small = {"extract": 512, "train": 64} if options.quick else {"extract": options.cells, "train": options.train_cells}
    load, runs = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory() as scratch:
        folders = {n: made_up_cells(Path(scratch) / str(n), n).folder for few in small.values() for n in (few, TIMES * few)}
        for repeat in range(options.repeats):
            for what in WORK:
                for n in (small[what], TIMES * small[what]):
                    epochs = TIMES * small[what] // n if what == "train" else 1
                    command = [sys.executable, __file__, "--step", what, str(folders[n]), str(epochs)]
                    told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
                    runs.append({"what": what, "cells": n, "repeat": repeat, "epochs": epochs, **told})
                    print(f"{what:8} {n:8,} cells: {told['seconds']:8.2f} s, peak {told['peak_mb']:7.0f} MiB", flush=True)

    def ratio(what: str, key: str) -> float:
        few, many = ([r[key] for r in runs if r["what"] == what and r["cells"] == n] for n in (small[what], TIMES * small[what]))
        return statistics.median(b / a for a, b in zip(few, many, strict=True))

    result = {
        "environment": environment(torch.device("cpu"), torch.float32),
        "cores": os.cpu_count(),
        "load_before": load,
        "width": WIDTH,
        "cells": {what: [n, TIMES * n] for what, n in small.items()},
        "runs": runs,
        "summary": {what: {"time_ratio": ratio(what, "seconds"), "peak_ratio": ratio(what, "peak_mb")} for what in WORK},
    }
    print(json.dumps(result["summary"], indent=1))
    if not options.quick:
        write_result("growth", result)


if __name__ == "__main__":
    main()
