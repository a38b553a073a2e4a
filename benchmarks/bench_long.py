"""Long runs: is memory flat, and is the time that the progress bar promises true?

    python benchmarks/bench_long.py train [--hours 2] [--threads 1]
    python benchmarks/bench_long.py extract [--cells 1000000] [--threads 1]

Starts the work in a process of its own on made-up cells of 2 x 64 x 64 px, width 0.25, float32 on the CPU, and watches it from
outside as a user would: resident memory and the line of the progress bar, every few seconds. `train` first measures one epoch to
know how many fill the hours. Told at the end: the slope of memory over the second half of the run, and how far the promise at half
time was from what came. Writes benchmarks/results/long_train.json or long_extract.json; with --quick only prints.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import environment, made_up_cells, write_result

WIDTH = 0.25
WORK = """
import sys
from pathlib import Path
from pci_core import recipe
from pci_core.cells import CellDataset
from pci_core.features import extract
from pci_core.model import build
from pci_core.train import train
what, folder, out, epochs, width = sys.argv[1:6]
spec = recipe.load("authors-toy-yeast").replace(training={"epochs": int(epochs), "width": float(width)})
dataset = CellDataset(folder)
told = {"device": "cpu", "precision": "float32"}
if what == "train":
    train(dataset, spec, out, **told)
else:
    Path(out).mkdir()
    extract(dataset, build("pci", 1, 1, float(width), seed=0).source, {"conv4": Path(out) / "conv4.h5ad"}, spec.preprocess, {}, **told)
"""
BAR = re.compile(r"(\d+)%\|.*?\| *(\d+)/(\d+) \[([\d:]+)<([\d:?]+)")


def seconds(clock: str) -> float:
    """Return the seconds of a clock such as 1:02:03; NaN for '?'."""
    if "?" in clock:
        return float("nan")
    parts = [int(p) for p in clock.split(":")]
    return float(sum(p * 60**i for i, p in enumerate(reversed(parts))))


def watch(command: list[str], threads: int, every: float) -> dict[str, Any]:
    """Run a command; return what was seen of its memory and its progress bar."""
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **limits}, bufsize=1)
    last: list[str] = [""]

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:  # universal newlines: a carriage return ends a line, too
            if line.strip():
                last[0] = line.rstrip()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    began, seen = time.perf_counter(), []
    while process.poll() is None:
        time.sleep(every)
        status = Path(f"/proc/{process.pid}/status")
        try:
            memory = dict(line.split(":", 1) for line in status.read_text().splitlines())
            anonymous = int(memory["RssAnon"].split()[0]) / 1024
        except (OSError, KeyError):
            break  # it ended just now
        bar = BAR.search(last[0])
        point = {"wall": round(time.perf_counter() - began, 1), "rss_mb": round(anonymous, 1)}
        if bar:
            point |= {"done": int(bar[2]), "total": int(bar[3]), "elapsed": seconds(bar[4]), "left": seconds(bar[5])}
        seen.append(point)
    code = process.wait()
    reader.join()
    if code:
        raise SystemExit(f"the work ended with {code}: {last[0]}")
    return {"seconds": time.perf_counter() - began, "points": seen}


def told(run: dict[str, Any]) -> dict[str, float]:
    """Return the memory's slope over the second half and the error of the promise at half time."""
    points = [p for p in run["points"] if "done" in p]
    begin = points[0]["wall"] - points[0]["elapsed"]  # when the bar began to run
    length = points[-1]["wall"] + (0 if points[-1]["done"] == points[-1]["total"] else points[-1]["left"]) - begin
    half = min(points, key=lambda p: abs(p["wall"] - begin - length / 2))
    second = [p for p in points if p["wall"] - begin >= length / 2]
    slope = np.polyfit([p["wall"] / 3600 for p in second], [p["rss_mb"] for p in second], 1)[0]
    promised = half["wall"] - begin + half["left"]
    return {
        "bar_seconds": length,
        "promised_at_half": promised,
        "promise_error": promised / length - 1,
        "slope_mb_per_hour": float(slope),
        "rss_mb_at_half": second[0]["rss_mb"],
        "rss_mb_at_end": second[-1]["rss_mb"],
        "peak_rss_mb": max(p["rss_mb"] for p in run["points"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "extract"), nargs="?", default="extract")
    parser.add_argument("--hours", type=float, default=2.0, help="length of the training")
    parser.add_argument("--cells", type=int, help="[default: 4,096 to train on, 1,000,000 to extract]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two looks")
    parser.add_argument("--scratch", type=Path, help="folder for the made-up cells [default: the system's]")
    parser.add_argument("--quick", action="store_true", help="a minute of each: to see that it runs, not for figures")
    options, _ = parser.parse_known_args()
    cells = options.cells or (4096 if options.what == "train" else 1_000_000)
    if options.quick:
        cells, options.hours, options.every = (256 if options.what == "train" else 4096), 0.01, 0.5
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = made_up_cells(Path(scratch) / "cells", cells).folder

        def command(out: str, epochs: int) -> list[str]:
            return [sys.executable, "-c", WORK, options.what, str(folder), str(Path(scratch) / out), str(epochs), str(WIDTH)]

        epochs = 1
        if options.what == "train":
            first = watch(command("first", 2), options.threads, min(options.every, 1.0))
            epochs = max(2, round(options.hours * 3600 / (told(first)["bar_seconds"] / 2)))
            print(f"{epochs} epochs fill {options.hours:g} h", flush=True)
        run = watch(command("long", epochs), options.threads, options.every)
    result = {
        "environment": environment(torch.device("cpu"), torch.float32),
        "what": options.what,
        "cells": cells,
        "epochs": epochs,
        "width": WIDTH,
        "threads": options.threads,
        "summary": told(run),
        **run,
    }
    print({k: round(v, 3) for k, v in result["summary"].items()})
    if not options.quick:
        result["points"] = result["points"][:: max(1, len(result["points"]) // 400)]
        write_result(f"long_{options.what}", result)


if __name__ == "__main__":
    main()
