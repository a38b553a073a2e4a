"""What the benchmarks share: made-up cells, the description of the machine, results as raw JSON and table."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pci_core import device as devices
from pci_core.cells import CellDataset, CellWriter, Channel
from pci_core.storage import write_json

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "numpy", "scipy", "scikit-image", "scikit-learn", "anndata", "h5py")


def made_up_cells(folder: Path, n: int, side: int = 64, per_image: int = 64) -> CellDataset:
    """Write `n` cells of random uint8 pixels: contents do not matter for speed."""
    rng = np.random.default_rng(0)
    channels = (Channel("gfp", "protein"), Channel("rfp", "structural"))
    with CellWriter(folder, channels, None, recipe="made-up") as writer:
        for start in range(0, n, per_image):
            count = min(per_image, n - start)
            ids = [f"{start + i}" for i in range(count)]
            writer.add(rng.integers(0, 256, (count, 2, side, side), np.uint8), pd.DataFrame({"cell_id": ids, "image": f"i{start}"}))
    return CellDataset(folder)


def environment(device: torch.device, precision: torch.dtype) -> dict[str, Any]:
    """Return hardware and versions, to stand beside every figure."""
    return {
        "device": devices.describe(device, precision),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
    }


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what `work` gives, its wall seconds and its processor seconds, those of all threads of this process."""
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - processor


def peak_mb() -> float:
    """Return this process's own peak resident memory, MiB.

    Not getrusage: its peak takes over that of the process which started this one.
    """
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) / 1024


def write_result(name: str, content: dict[str, Any]) -> None:
    """Write benchmarks/results/<name>.json."""
    write_json(RESULTS / f"{name}.json", content)
    print(f"written: {RESULTS / name}.json")


def table(summary: dict[str, dict[str, float]]) -> str:
    """Return a text table of median, minimum and maximum."""
    rows = [f"{name:24} {v['median']:12.4g} {v['min']:12.4g} {v['max']:12.4g}" for name, v in summary.items()]
    return "\n".join([f"{'':24} {'median':>12} {'min':>12} {'max':>12}", *rows])
