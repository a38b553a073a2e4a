"""Share of the time in which training and extraction stand still for crops, by the way that crops come.

    python benchmarks/bench_data_wait.py [--cells N] [--widths 1 0.25] [--epochs 2] [--device auto] [--scratch FOLDER] [--quick]

Each row is the product's own loop (`pci_core.train.train`, `pci_core.features.extract` of all layers) on made-up cells of
2 x 64 x 64 px, one after another in one process after a short run that warms the device up. Crops held on the device, streamed
row by row, and in chunks of an eighth of the cells. Warm: the file was just written, the system may hold it; cold: it was dropped
from the cache before the run (Linux only; the first epoch alone then reads from the disk). Waiting on a GPU is the device's own
idle time (`pci_core.waiting`). Writes benchmarks/results/data_wait.json; with --quick only prints.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from common import environment, made_up_cells, write_result

from pci_core import device as devices
from pci_core import feed as feeds
from pci_core import recipe as recipes
from pci_core.cells import CROPS, CellDataset
from pci_core.encoders import LAYERS
from pci_core.features import extract
from pci_core.networks import build
from pci_core.train import train

MODES = ("resident", "streamed", "chunked")


def drop_from_cache(path: Path) -> bool:
    """Ask the system to forget the pages of a file; False where it cannot be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())  # pages that are not written yet stay
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def measure(dataset: CellDataset, what: str, width: float, mode: str, device: str, epochs: int) -> dict[str, float]:
    """Train or extract once; return the rate, the share of waiting and what the disk gave."""
    made: list[feeds.Feed] = []
    original = feeds.Feed.__init__

    def remember(self: feeds.Feed, *args: Any, **kwargs: Any) -> None:  # the loops keep their feed to themselves
        original(self, *args, **kwargs)
        made.append(self)

    spec = recipes.load("authors-toy-yeast").replace(training={"epochs": epochs, "width": width, "holdout": 0.0})
    chunk = max(1, len(dataset) // 8)
    feeds.Feed.__init__ = remember  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as out:
            if what == "training":
                done = train(dataset, spec, Path(out), device=device, data=mode, chunk=chunk, quiet=True)
                rate, share = done.pairs_per_second, done.losses[-1]["data_wait_share"]
            else:
                encoder = build("pci", 1, 1, width, seed=0).source
                outputs = {layer: Path(out) / f"{layer}.h5ad" for layer in LAYERS}
                found = extract(dataset, encoder, outputs, spec.preprocess, {}, device=device, data=mode, quiet=True)
                rate, share = found.cells_per_second, found.waited / found.seconds
    finally:
        feeds.Feed.__init__ = original  # type: ignore[method-assign]
    return {"per_second": rate, "wait_share": share, "mb_per_second": made[0].rate.mb_per_second}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, help="default: 2,048 on a CPU, 262,144 (2 GB) on a GPU")
    parser.add_argument("--widths", type=float, nargs="+", default=[1.0, 0.25])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scratch", help="folder on the disk to measure; default: the system's temporary one")
    parser.add_argument("--quick", action="store_true", help="few cells: to see that it runs, not for figures")
    options, _ = parser.parse_known_args()
    device = devices.choose_device(options.device)
    n = 128 if options.quick else options.cells or (2048 if device.type == "cpu" else 262_144)
    load_before, runs = os.getloadavg()[0] if hasattr(os, "getloadavg") else None, []
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        dataset = made_up_cells(Path(scratch) / "cells", n)
        few = made_up_cells(Path(scratch) / "few", 128)
        for width in options.widths:
            for what in ("training", "extraction"):
                measure(few, what, width, "streamed", options.device, 1)
                for mode in MODES:
                    for cold in (False, True):
                        if cold and not drop_from_cache(dataset.folder / CROPS):
                            continue
                        found = measure(dataset, what, width, mode, options.device, options.epochs)
                        runs.append({"what": what, "width": width, "mode": mode, "cold": cold, **found})
                        print(
                            f"{what:10} width {width:g}, {mode:8} {'cold' if cold else 'warm'}: {found['per_second']:8.0f} a second, "
                            f"waited {found['wait_share']:6.2%}, read at {found['mb_per_second']:6.0f} MB/s",
                            flush=True,
                        )
    result = {"cells": n, "chunk": max(1, n // 8), "epochs": options.epochs, "load_before": load_before, "runs": runs}
    if not options.quick:
        write_result("data_wait", {"environment": environment(device, devices.choose_precision(device)), **result})


if __name__ == "__main__":
    main()
