"""Features of 100,000 cells streamed from disk: cells a second and peak memory, beside crops held in memory.

    python benchmarks/extraction_stream.py [--cells 100000] [--small 10000] [--widths 1 0.5] [--layers conv4 all]
        [--sets human yeast] [--modes streamed resident] [--repeats 1] [--scratch FOLDER] [--quick]

Crops are those of a small simulated set, repeated: 3 channels of uint8 (human) and 2 of uint16 (yeast), 64 px. Each
measurement is a process of its own that does what `pci features` does (`pci_core.features.extract`: read, describe, write .h5ad
and .parquet), with `data="streamed"` and, one after the other, `data="resident"` (all crops on the device first; its rate
holds from then on). Memory is the process's own high-water mark. The files were just written, so the system may still hold them:
the rate is that of a warm file cache. Writes benchmarks/results/extraction_stream.json; with --quick only prints.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import environment, write_result

from pci_core import device as devices
from pci_core import recipe as recipes
from pci_core.cells import CellDataset, CellWriter
from pci_core.encoders import LAYERS
from pci_core.run import Run

SETS = {"human": ("simulated-human", {"proteins": 24}), "yeast": ("simulated-yeast", {"proteins": 17})}
WORK = """
import json, sys, time
from pathlib import Path
began = time.perf_counter()
from pci_core import recipe
from pci_core.cells import CellDataset
from pci_core.features import extract
from pci_core.networks import build

def memory(key):  # not getrusage: its peak takes over that of the process which started this one
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(lines[key].split()[0]) / 1024

told = json.loads(sys.argv[1])
dataset = CellDataset(told["cells"])
encoder = build("pci", 1, len(dataset.channels) - 1, told["width"], seed=0).source
outputs = {layer: Path(told["out"]) / f"{layer}.h5ad" for layer in told["layers"]}
before = memory("VmRSS")
done = extract(dataset, encoder, outputs, recipe.load(told["recipe"]).preprocess, {}, device=told["device"], data=told["mode"], quiet=True)
print(json.dumps({"cells_per_second": done.cells_per_second, "seconds": done.seconds, "whole_seconds": time.perf_counter() - began,
                  "before_mb": before, "peak_mb": memory("VmHWM"), "device": done.device}))
"""


def repeated(source: CellDataset, folder: Path, n: int) -> CellDataset:
    """Write `n` cells: those of `source` again and again, each time under new names."""
    with CellWriter(folder, source.channels, source.um_per_px, recipe="repeated") as writer:
        for turn in range(-(-n // len(source))):
            for start in range(0, len(source), 1024):
                rows = np.arange(start, min(start + 1024, len(source)))[: n - writer.n]
                if len(rows):
                    table = source.table.iloc[rows]
                    names = {c: f"{turn}_" + table[c] for c in ("cell_id", "image", "field")}
                    writer.add(source.read(rows), table.assign(**names))
    return CellDataset(folder)


def measure(dataset: CellDataset, recipe: str, layers: list[str], width: float, mode: str, device: str) -> dict[str, Any]:
    """Extract in a process of its own and return what it cost."""
    with tempfile.TemporaryDirectory(dir=dataset.folder.parent) as out:
        told = {
            "cells": str(dataset.folder),
            "recipe": recipe,
            "layers": layers,
            "width": width,
            "mode": mode,
            "device": device,
            "out": out,
        }
        command = [sys.executable, "-c", WORK, json.dumps(told)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--small", type=int, default=10_000, help="a smaller set, to see whether memory grows")
    parser.add_argument("--widths", type=float, nargs="+", default=[1.0, 0.5])
    parser.add_argument("--layers", nargs="+", choices=("conv4", "all"), default=["conv4", "all"])
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=list(SETS))
    parser.add_argument("--modes", nargs="+", choices=("streamed", "resident"), default=["streamed", "resident"])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scratch", help="folder with room for 4 GB; default: the system's temporary one")
    parser.add_argument("--quick", action="store_true", help="few cells: to see that it runs, not for figures")
    options, _ = parser.parse_known_args()
    if not Path("/proc/self/status").exists():
        sys.exit("memory is read from /proc: this benchmark needs Linux")
    sizes = [256, 1024] if options.quick else sorted({options.small, options.cells})
    device = devices.choose_device(options.device)
    load_before, runs, crops = os.getloadavg()[0], [], {}
    for name in options.sets:
        recipe, fewer = SETS[name]
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            spec = recipes.load(recipe).replace(source={**fewer, "proteins": 4} if options.quick else fewer)
            source = Run(spec, Path(scratch) / "run", quiet=True).cells()
            for n in sizes:
                dataset = repeated(source, Path(scratch) / str(n), n)
                crops[name] = {"channels": len(dataset.channels), "dtype": str(dataset.crops.dtype), "side": dataset.crops.shape[-1]}
                plan = [(w, part, r) for w in options.widths for part in options.layers for r in range(options.repeats)]
                for width, part, repeat in plan:
                    layers = list(LAYERS) if part == "all" else [part]
                    for mode in options.modes:
                        found = measure(dataset, recipe, layers, width, mode, options.device)
                        told = {"set": name, "cells": n, "crops_mb": dataset.crops.nbytes / 2**20, "width": width, "layers": part}
                        runs.append({**told, "mode": mode, "repeat": repeat, **found})
                        print(
                            f"{name:6} {n:7,} cells, width {width:g}, {part:5}, {mode:8}: {found['cells_per_second']:6.0f} cells/s, "
                            f"{found['seconds']:6.0f} s, peak {found['peak_mb']:6.0f} MiB ({found['before_mb']:.0f} before), "
                            f"crops {told['crops_mb']:5.0f} MiB",
                            flush=True,
                        )
    result = {
        "environment": environment(device, devices.choose_precision(device)),
        "measured": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "load_before": load_before,
        "sets": crops,
        "runs": runs,
        "summary": summary(runs),
    }
    if not options.quick:
        write_result("extraction_stream", result)


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each set, size, width, layers and mode: the median rate and the largest peak of its repeats."""
    keys = ("set", "cells", "width", "layers", "mode")
    rows: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in runs:
        rows.setdefault(tuple(run[k] for k in keys), []).append(run)
    return [
        {
            **dict(zip(keys, key, strict=True)),
            "cells_per_second": statistics.median(r["cells_per_second"] for r in found),
            "peak_mb": max(r["peak_mb"] for r in found),
            "crops_mb": found[0]["crops_mb"],
            "repeats": len(found),
        }
        for key, found in rows.items()
    ]


if __name__ == "__main__":
    main()
