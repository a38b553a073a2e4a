"""Long runs: is memory flat, and is the time that the progress bar promises true?

    python benchmarks/bench_long.py train [--hours 2] [--threads 1]
    python benchmarks/bench_long.py extract [--cells 1000000] [--threads 1]

Starts the work in a process of its own on made-up cells of 2 x 64 x 64 px, float32 on the CPU, and watches it from
outside as a user would: resident memory and the line of the progress bar, every few seconds. `train` has more epochs than fit into
the hours; then it gets a Ctrl-C (SIGINT), and is started again: does it go on where it was? Told at the end: the slope of memory
over the second half of the run, and the promise of the bar at half time (so many cells more in the seconds that came) beside what
came. Writes benchmarks/results/long_train.json or long_extract.json; with --quick only prints.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
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

WORK = """
import signal
import sys
from pathlib import Path
from pci_core import recipe
from pci_core.cells import CellDataset
from pci_core.features import extract
from pci_core.networks import build
from pci_core.train import train
signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background of a shell ignores Ctrl-C
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


def watch(command: list[str], threads: int, every: float, stop_after: float = float("inf")) -> dict[str, Any]:
    """Run a command, stopped by SIGINT after some seconds; return what was seen of its memory and its progress bar."""
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **limits}, bufsize=1)
    print(f"watching process {process.pid}", flush=True)
    last: list[str] = [""]

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:  # universal newlines: a carriage return ends a line, too
            if BAR.search(line):
                last[0] = line.rstrip()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    began, seen, stopped = time.perf_counter(), [], False
    while process.poll() is None:
        time.sleep(every)
        try:
            memory = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
            anonymous = int(memory["RssAnon"].split()[0]) / 1024
        except (OSError, KeyError):
            break  # it ended just now
        point = {"wall": round(time.perf_counter() - began, 1), "rss_mb": round(anonymous, 1)}
        if bar := BAR.search(last[0]):
            point |= {"done": int(bar[2]), "total": int(bar[3]), "elapsed": seconds(bar[4]), "left": seconds(bar[5])}
        seen.append(point)
        if not stopped and point["wall"] > stop_after:
            process.send_signal(signal.SIGINT)
            stopped = True
    code = process.wait()
    reader.join()
    if code and not stopped:
        raise SystemExit(f"the work ended with {code}: {last[0]}")
    return {"seconds": time.perf_counter() - began, "exit": code, "points": seen}


def told(run: dict[str, Any]) -> dict[str, float]:
    """Return the memory's slope over the second half and how true the promise at half time was."""
    points = [p for p in run["points"] if p.get("elapsed") and p["left"] == p["left"]]
    first, end = points[0], points[-1]
    middle = (first["wall"] + end["wall"]) / 2
    half = min(points, key=lambda p: abs(p["wall"] - middle))
    second = [p for p in points if p["wall"] >= half["wall"]]
    slope = np.polyfit([p["wall"] / 3600 for p in second], [p["rss_mb"] for p in second], 1)[0]
    rate = (half["total"] - half["done"]) / half["left"]  # what the bar promised
    came = (end["done"] - half["done"]) / rate  # seconds that it promised for what came
    took = end["wall"] - half["wall"]
    return {
        "watched_seconds": end["wall"] - first["wall"],
        "cells_per_second": (end["done"] - first["done"]) / (end["wall"] - first["wall"]),
        "promised_seconds_of_second_half": came,
        "seconds_of_second_half": took,
        "promise_error": (half["wall"] + came - first["wall"]) / (end["wall"] - first["wall"]) - 1,
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
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two looks")
    parser.add_argument("--scratch", type=Path, help="folder for the made-up cells [default: the system's]")
    parser.add_argument("--quick", action="store_true", help="less than a minute of each: to see that it runs, not for figures")
    options, _ = parser.parse_known_args()
    cells = options.cells or (4096 if options.what == "train" else 1_000_000)
    if options.quick:
        cells, options.hours, options.every = (256 if options.what == "train" else 4096), 0.01, 0.5
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = made_up_cells(Path(scratch) / "cells", cells).folder

        def command(out: str, epochs: int) -> list[str]:
            return [sys.executable, "-c", WORK, options.what, str(folder), str(Path(scratch) / out), str(epochs), str(options.width)]

        train = options.what == "train"
        epochs = 100_000 if train else 1
        run = watch(command("long", epochs), options.threads, options.every, options.hours * 3600 if train else float("inf"))
        if train:
            again = watch(command("long", epochs), options.threads, 1.0, 60 if not options.quick else 20)
            run["begun_again_at"] = next(p["done"] for p in again["points"] if "done" in p)
    result = {
        "environment": environment(torch.device("cpu"), torch.float32),
        "what": options.what,
        "cells": cells,
        "width": options.width,
        "threads": options.threads,
        "summary": told(run),
        **run,
    }
    print({k: round(v, 3) for k, v in result["summary"].items()}, f"begun again at {run.get('begun_again_at')}" if train else "")
    if not options.quick:
        result["points"] = result["points"][:: max(1, len(result["points"]) // 400)]
        write_result(f"long_{options.what}", result)


if __name__ == "__main__":
    main()
