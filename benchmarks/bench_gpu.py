"""Every figure of one GPU in at most eight minutes: what it could do, what training and extraction reach, where the rest goes.

    make bench-gpu                  or: python benchmarks/bench_gpu.py [--minutes 8] [--cells 131072] [--device cuda] [--quick]

Training is the product's own loop, extraction its own pass with the files it writes, on made-up cells. Rows are measured from the
most to the least important; one that the time does not allow is named and left out, never filled in. Each row goes to disk when
it is there, so a cut run keeps what it had. At the end stands which goals of the project are met. Writes
benchmarks/results/throughput_gpu.json.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from bench_throughput import TRAIN_FLOP_PER_PAIR, matmul_rate
from common import environment, made_up_cells, write_result

from pci_core import device as devices
from pci_core import recipe as recipes
from pci_core.cells import CellDataset
from pci_core.encoders import LAYERS
from pci_core.errors import DeviceError
from pci_core.features import extract
from pci_core.networks import build
from pci_core.recipe import Recipe
from pci_core.step import TrainingStep
from pci_core.train import train

# name, batch, compile, data, seconds that it takes about (compiling is most of it)
TRAININGS = (
    ("batch 1,024, compiled", 1024, "on", "resident", 90),
    ("batch 1,024, not compiled", 1024, "off", "resident", 25),
    ("batch 64, CUDA graphs", 64, "graphs", "resident", 90),
    ("batch 64, not compiled", 64, "off", "resident", 45),
    ("batch 1,024, not compiled, chunks", 1024, "off", "chunked", 25),
    ("batch 1,024, not compiled, streamed", 1024, "off", "streamed", 40),
    ("batch 4,096, compiled", 4096, "on", "resident", 90),
)
EXTRACTIONS = (
    ("all five layers, compiled", LAYERS, "on", 45),
    ("conv4, compiled", ("conv4",), "on", 45),
    ("all five layers, not compiled", LAYERS, "off", 15),
)
GOALS = (
    ("share of the matrix product's rate in training", "share_of_matmul", 0.45),
    ("training, pairs/s", "training", 20_000),
    ("extraction, all five layers, cells/s", "all_layers", 100_000),
    ("extraction, conv4, cells/s", "conv4_256", 100_000),
)


class Clock:
    """What is left of the minutes that were asked for, and what was left out or failed."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes
        self.left_out: list[str] = []
        self.failed: dict[str, str] = {}

    @contextlib.contextmanager
    def row(self, name: str) -> Iterator[None]:
        """Note a row that fails and go on: the minutes on a GPU are few, and the others still count."""
        try:
            yield
        except Exception as error:
            self.failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
            print(f"  FAILED: {name}: {self.failed[name]}", flush=True)
            traceback.print_exc()

    def allows(self, name: str, seconds: float) -> bool:
        """Tell whether there is time for a row; note it if not."""
        if time.monotonic() + seconds < self.end:
            return True
        self.left_out.append(name)
        print(f"  left out for lack of time: {name}", flush=True)
        return False


def one_training(dataset: CellDataset, recipe: Recipe, out: Path, device: str, compile: str, data: str) -> dict[str, float]:
    """Train one epoch; return pairs a second without compiling, and the share of waiting."""
    done = train(dataset, recipe, out, device=device, compile=compile, data=data, quiet=True)
    return {"pairs_per_second": done.pairs_per_second, "data_wait_share": done.losses[-1]["data_wait_share"]}


def profile(recipe: Recipe, device: torch.device, dtype: torch.dtype, batch: int, compile: str) -> list[dict[str, Any]]:
    """Return the kernels that take most of a step's time: name, share, milliseconds a step."""
    model = build("pci", 1, 1, 1.0, seed=0).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    step = TrainingStep(model, torch.optim.Adam(model.parameters(), lr=1e-4, fused=True), recipe.preprocess, device, dtype)
    raw = torch.randint(0, 256, (2 * batch, 2, 64, 64), dtype=torch.uint8, device=device)
    flips = torch.zeros(batch, 4, dtype=torch.bool, device=device)
    mode = devices.compile_mode(device, compile)
    if mode:
        step.compile(mode, raw)
    for _ in range(3):
        step(raw, flips)
    steps = 5
    with torch.profiler.profile() as seen:
        for _ in range(steps):
            step(raw, flips)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    events = [(e.key, e.self_device_time_total if device.type == "cuda" else e.self_cpu_time_total) for e in seen.key_averages()]
    whole = sum(t for _, t in events) or 1.0
    return [
        {"kernel": name[:120], "share": t / whole, "ms_a_step": t / 1000 / steps}
        for name, t in sorted(events, key=lambda e: -e[1])[:20]
        if t > 0
    ]


def convolutions(device: torch.device, dtype: torch.dtype, batch: int, peak: float) -> list[dict[str, Any]]:
    """Time every convolution of the network by itself, forward and backward: share of the matrix product's rate."""
    layers = [("conv1", 2, 96, 64), ("conv2", 96, 256, 32), ("conv3", 256, 384, 16), ("conv4", 384, 384, 16), ("conv5", 384, 256, 16),
              ("decoder1", 288, 256, 16), ("decoder2", 256, 384, 16), ("decoder3", 384, 384, 16)]  # fmt: skip
    found = []
    for name, inputs, outputs, side in (*layers, ("decoder4 (folded)", 384, 256, 16), ("decoder5 (folded)", 256, 96, 32)):
        folded = "folded" in name
        x = (
            torch.randn(batch, inputs, side, side, device=device, dtype=dtype)
            .contiguous(memory_format=torch.channels_last)
            .requires_grad_()
        )
        shape = (inputs, outputs, 4, 4) if folded else (outputs, inputs, 3, 3)
        w = torch.randn(shape, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()

        def both(x: torch.Tensor = x, w: torch.Tensor = w, folded: bool = folded) -> None:
            y = torch.nn.functional.conv_transpose2d(x, w, None, 2, 1) if folded else torch.nn.functional.conv2d(x, w, None, padding=1)
            torch.autograd.grad(y, (x, w), torch.ones_like(y))

        for _ in range(3):
            both()
        seconds, repeats = float("inf"), 3
        for _ in range(repeats):
            _wait(device)
            began = time.perf_counter()
            both()
            _wait(device)
            seconds = min(seconds, time.perf_counter() - began)
        flop = 3 * 2 * batch * inputs * outputs * (side * side * 16 if folded else side * side * 9)
        found.append({"layer": name, "ms": 1e3 * seconds, "tflops": flop / seconds / 1e12, "share_of_matmul": flop / seconds / peak})
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--cells", type=int, default=131_072)
    parser.add_argument("--device", default="cuda", help="'cpu' only to see that the script runs")
    parser.add_argument("--quick", action="store_true", help="few cells, narrow network, nothing written: to see that it runs")
    options, _ = parser.parse_known_args()
    try:
        device = devices.choose_device(options.device)
    except DeviceError as error:
        raise SystemExit(f"{error} This benchmark is about a GPU; bench_throughput.py measures the processor.") from None
    clock, dtype = Clock(options.minutes), devices.choose_precision(device)
    devices.tune(device)
    width, cells, cut = (0.05, 256, 64) if options.quick else (1.0, options.cells, 1)
    peak = matmul_rate(device, dtype, 0.5 if options.quick else 3.0)
    found: dict[str, Any] = {"environment": environment(device, dtype), "cells": cells, "matmul_tflops": peak / 1e12}
    if device.type == "cuda":
        found["gpu_memory_gib"] = torch.cuda.get_device_properties(device).total_memory / 2**30
    print(f"{devices.describe(device, dtype)}; matrix product {peak / 1e12:.0f} TFLOP/s", flush=True)

    def keep() -> None:
        found.update(left_out=clock.left_out, failed=clock.failed, summary=summary(found))
        if not options.quick:
            write_result("throughput_gpu", found)

    with tempfile.TemporaryDirectory() as scratch:
        dataset = made_up_cells(Path(scratch) / "cells", cells)
        base = recipes.load("authors-toy-yeast")

        def measure_trainings(rows: tuple[tuple[str, int, str, str, int], ...]) -> None:
            for name, batch, compile, data, seconds in rows:
                on_cpu = device.type == "cpu" and (compile == "graphs" or data == "chunked")
                if on_cpu or not clock.allows(f"training, {name}", seconds):
                    continue
                recipe = base.replace(training={"epochs": 1, "width": width, "batch_size": batch // cut, "holdout": 0.0})
                row = one_training(dataset, recipe, Path(scratch) / name, options.device, "off" if options.quick else compile, data)
                row["share_of_matmul"] = row["pairs_per_second"] * TRAIN_FLOP_PER_PAIR / peak if width == 1 else float("nan")
                found.setdefault("training", {})[name] = {"batch": batch // cut, "compile": compile, "data": data, **row}
                print(
                    f"training, {name}: {row['pairs_per_second']:,.0f} pairs/s, {row['share_of_matmul']:.1%} of the product's rate",
                    flush=True,
                )
                keep()

        def measure_extractions() -> None:
            encoder = build("pci", 1, 1, width, seed=0).source
            for name, layers, compile, seconds in EXTRACTIONS:
                if not clock.allows(f"extraction, {name}", seconds):
                    continue
                outputs = {layer: Path(scratch) / f"{name}_{layer}.h5ad" for layer in layers}
                with clock.row(f"extraction, {name}"):
                    done = extract(dataset, encoder, outputs, base.preprocess, {}, device=options.device,
                                   compile="off" if options.quick else compile, quiet=True)  # fmt: skip
                    row = {"cells_per_second": done.pass_cells_per_second, "whole": done.cells_per_second}
                    found.setdefault("extraction", {})[name] = row
                    print(f"extraction, {name}: {row['cells_per_second']:,.0f} cells/s, {row['whole']:,.0f} with all files", flush=True)
                keep()

        measure_trainings(TRAININGS[:2])
        measure_extractions()
        if clock.allows("convolutions one by one", 15):
            with clock.row("convolutions one by one"):
                found["convolutions"] = convolutions(device, dtype, 8 if options.quick else 512, peak)
            for row in found.get("convolutions", []):
                print(f"  {row['layer']:18} {row['ms']:8.2f} ms {row['tflops']:8.2f} TFLOP/s {row['share_of_matmul']:6.1%}", flush=True)
        if clock.allows("profile of a step", 20):
            with clock.row("profile of a step"):
                found["profile_not_compiled"] = profile(base, device, dtype, 8 if options.quick else 1024, "off")
            keep()
        measure_trainings(TRAININGS[2:])
    keep()
    for text, key, goal in GOALS:
        value = found["summary"].get(key)
        told = "not measured" if value is None else f"{value:,.4g} ({'reached' if value >= goal else 'NOT reached'})"
        print(f"{text:50} goal {goal:>10,g}   {told}")


def summary(found: dict[str, Any]) -> dict[str, float]:
    """Return the best of each kind under the names that the tables use; what was not measured has no entry."""
    out: dict[str, float] = {"matmul_tflops": found["matmul_tflops"]}
    if rows := list(found.get("training", {}).values()):
        best = max(rows, key=lambda r: r["pairs_per_second"])
        out |= {
            "training": best["pairs_per_second"],
            "share_of_matmul": best["share_of_matmul"],
            "data_wait_share": best["data_wait_share"],
        }
    rates = {name: row["cells_per_second"] for name, row in found.get("extraction", {}).items()}
    for key, start in (("all_layers", "all five"), ("conv4_256", "conv4")):
        if seen := [rate for name, rate in rates.items() if name.startswith(start)]:
            out[key] = max(seen)
    if "training" in out:
        out["hours_of_the_papers_run"] = 1_165_713 * 30 / out["training"] / 3600
    return out


if __name__ == "__main__":
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    main()
