"""Training and extraction on this machine, beside the same network in Keras and the processor's own limit.

    python benchmarks/bench_throughput.py [--keras-python PATH] [--repeats 3] [--quick]

Ours is the product's own loop (`pci_core.train.train`) and extraction (`pci_core.features.extract`)
on made-up cells on disk, at full width, batch 64. Each repeat runs the matrix multiplication, ours
and Keras one after another, so that all see the same machine. Extraction is timed while the network runs (crops read, features
written); compiling and the cell table's writing are left out, as they do not grow with the cells or are no part of Keras' either.
Writes benchmarks/results/throughput.json, or with --name another file there, one for each kind of processor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from common import environment, made_up_cells, table, write_result

from pci_core import device as devices
from pci_core import recipe as recipes
from pci_core.features import extract
from pci_core.train import load_model, train

# Multiply-accumulates of a pair at 64 x 64 px, forward, with the two upsampled convolutions folded
# (4 taps of 4x4/4 each output pixel instead of 9): the arithmetic that is done, 2.58 GMAC.
TRAIN_FLOP_PER_PAIR = 3 * 2 * 2.58e9


def matmul_rate(device: torch.device, precision: torch.dtype, seconds: float = 3.0) -> float:
    """Return FLOP/s of a large square matrix product at the working precision: what the machine can do."""
    n = 8192 if device.type == "cuda" else 3072
    a, b = torch.randn(2, n, n, device=device).to(precision)
    best, began = 0.0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        (a @ b)[0, 0].item()
        best = max(best, 2 * n**3 / (time.perf_counter() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keras-python", help="a Python with tensorflow and tf_keras; without it Keras is left out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--name", default="throughput", help="of the result, e.g. throughput_float32")
    parser.add_argument("--quick", action="store_true", help="few cells: to see that it runs, not for figures")
    options, _ = parser.parse_known_args()
    device = devices.choose_device(options.device)
    precision = devices.choose_precision(device)
    n = 256 if options.quick else 1280 if device.type == "cpu" else 65536
    runs: list[dict[str, float]] = []
    for repeat in range(options.repeats):
        found = {"matmul_tflops": matmul_rate(device, precision) / 1e12}
        with tempfile.TemporaryDirectory() as scratch:
            dataset = made_up_cells(Path(scratch) / "cells", n)
            recipe = recipes.load("authors-toy-yeast").replace(training={"epochs": 1, "width": 1.0})
            trained = train(dataset, recipe, Path(scratch) / "model", device=options.device, quiet=True)
            found |= {"training": trained.pairs_per_second, "data_wait_share": trained.waited / trained.seconds}
            model, _ = load_model(Path(scratch) / "model" / "weights.safetensors")
            every = [f"conv{i}" for i in range(1, 6)]
            for name, layers, size, compile in (
                ("conv4_256", ["conv4"], 256, "off"),
                ("conv4_256_compiled", ["conv4"], 256, "on"),
                ("conv4_1", ["conv4"], 1, "off"),
                ("all_layers_256", every, 256, "off"),
                ("all_layers_256_compiled", every, 256, "on"),
            ):
                if compile == "on" and options.quick:
                    continue
                part = dataset if size > 1 else made_up_cells(Path(scratch) / f"few{repeat}", 128)
                outputs = {layer: Path(scratch) / f"{name}_{layer}.h5ad" for layer in layers}
                done = extract(part, model.source, outputs, recipe.preprocess, {}, batch_size=size, device=options.device,
                               compile=compile, quiet=True)  # fmt: skip
                found[name] = done.pass_cells_per_second
        found["share_of_matmul"] = found["training"] * TRAIN_FLOP_PER_PAIR / (found["matmul_tflops"] * 1e12)
        if options.keras_python:
            command = [options.keras_python, str(Path(__file__).with_name("keras_network.py")), "--steps", "2" if options.quick else "8"]
            keras = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
            found |= {f"keras_{k}": v for k, v in keras.items() if isinstance(v, float)}
            found["training_ratio"] = found["training"] / keras["training"]
            best = max(found["conv4_256"], found.get("conv4_256_compiled", 0.0))
            found["extraction_ratio_64"] = best / keras["conv4_64"]
            found["extraction_ratio_1"] = best / keras["conv4_1"]
            found["extraction_ratio_1_predict"] = best / keras["conv4_1_predict"]
        runs.append(found)
        print(json.dumps({k: round(v, 4) for k, v in found.items()}), flush=True)
    summary = {
        k: {"median": statistics.median(r[k] for r in runs), "min": min(r[k] for r in runs), "max": max(r[k] for r in runs)}
        for k in runs[0]
    }
    print(table(summary))
    if not options.quick:
        write_result(options.name, {"environment": environment(device, precision), "cells": n, "runs": runs, "summary": summary})


if __name__ == "__main__":
    main()
