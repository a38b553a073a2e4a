"""Peak memory of training and extraction at two data set sizes ten times apart.

    python benchmarks/bench_memory.py [--cells 4000]

Each measurement is a process of its own (peak resident memory as Linux reports it). Beyond the
batch, only the index may grow: the cell table and the sampler's few dozen bytes a cell. Both
trainings make the same number of steps (the smaller set ten epochs), since the allocator, told to
keep what is freed, takes some more in the first hundreds of steps. In chunks: as for crops larger than memory, in two
buffers of the same number of cells at both sizes. Writes benchmarks/results/memory.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from common import environment, made_up_cells, write_result

WORK = """
import json, resource, sys
from pathlib import Path
from pci_core import recipe
from pci_core.cells import CellDataset
from pci_core.features import extract
from pci_core.networks import build
from pci_core.train import train
what, folder, out, epochs, chunk = sys.argv[1:]
dataset = CellDataset(folder)
spec = recipe.load("authors-toy-yeast").replace(training={"epochs": int(epochs), "width": 0.05, "batch_size": 256})
if what == "train":
    train(dataset, spec, Path(out), device="cpu", precision="float32", data="streamed", quiet=True)
elif what == "train_chunked":
    train(dataset, spec, Path(out), device="cpu", precision="float32", data="chunked", chunk=int(chunk), quiet=True)
else:
    encoder = build("pci", 1, 1, 0.05, seed=0).source
    outputs = {f"conv{i}": Path(out) / f"conv{i}.h5ad" for i in range(1, 6)}
    extract(dataset, encoder, outputs, spec.preprocess, {}, device="cpu", precision="float32", quiet=True)
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=4000, help="the smaller size")
    parser.add_argument("--quick", action="store_true", help="few cells: to see that it runs, not for figures")
    options, _ = parser.parse_known_args()
    cells = 256 if options.quick else options.cells
    chunk = cells // 4
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        for n in (cells, 10 * cells):
            dataset = made_up_cells(Path(scratch) / str(n), n)
            for what in ("train", "train_chunked", "extract"):
                out = Path(scratch) / f"{what}{n}"
                out.mkdir()
                command = [sys.executable, "-c", WORK, what, str(dataset.folder), str(out), str(10 * cells // n), str(chunk)]
                peak = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
                runs.append({"what": what, "cells": n, "crops_mb": dataset.crops.nbytes / 2**20, "peak_mb": peak, "chunk": chunk})
                print(f"{what:14} {n:8} cells, crops {runs[-1]['crops_mb']:7.0f} MiB: peak {peak:7.0f} MiB", flush=True)
    if not options.quick:
        write_result("memory", {"environment": environment(torch.device("cpu"), torch.float32), "runs": runs})


if __name__ == "__main__":
    main()
