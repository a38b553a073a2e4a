"""Bytes a cell of what grows with the cells: the cell table, files of features, an epoch of pairs. Made-up cells.

python benchmarks/bench_scale.py     # a minute or two, 3 GB of memory; then python benchmarks/scale.py
"""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from common import write_result

from pci_core.baselines import Measured
from pci_core.cells import TABLE, CellDataset, CellWriter, Channel
from pci_core.encoders import SourceCellEncoder
from pci_core.features import write_features
from pci_core.pairs import PairSampler

TABLE_CELLS, FEATURE_CELLS, PAIR_CELLS = 1_000_000, 100_000, 5_000_000
PER_FIELD, BLOCK = 50, 20_000
LAYER = "conv4"


def peak() -> int:
    """Return the highest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident() -> int:
    """Return the resident memory of this process, in bytes (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def made(folder: Path, n: int) -> dict[str, float]:
    """Write `n` cells of one pixel with the table of a large screen: what is held while a dataset is written."""
    before = resident()
    with CellWriter(folder, (Channel("a", "protein"), Channel("b", "structural")), None) as writer:
        for start in range(0, n, BLOCK):
            i = np.arange(start, start + BLOCK)
            field, image = i // PER_FIELD, i // PER_FIELD // 2
            columns = {
                "cell_id": [f"plate{k // 400:04d}_{k:07d}_{j % PER_FIELD:03d}" for k, j in zip(field, i, strict=True)],
                "image": [f"plate{k // 200:04d}_{k:07d}" for k in image],
                "protein": [f"GENE{k % 12000}" for k in image],
                "ensembl": [f"ENSG{k % 12000:011d}" for k in image],
                "cell_line": "U-2 OS",
                "location": [f"location {k % 20}" for k in image],
                "plate": [f"plate{k // 200:04d}" for k in image],
                "well": [f"{'ABCDEFGH'[k % 8]}{k % 12 + 1}" for k in image],
                "field": [f"plate{k // 400:04d}_{k:07d}" for k in field],
                "y": i * 0.37 % 1000,
                "x": i * 0.73 % 1000,
                "area": i * 0.11 % 900,
            }
            writer.add(np.zeros((BLOCK, 2, 1, 1), np.uint8), pd.DataFrame(columns))
    return {"disk": (folder / TABLE).stat().st_size, "writing": peak() - before}


def opened(folder: Path, n: int) -> dict[str, float]:
    """Open a dataset, as every step does."""
    before = resident()
    dataset = CellDataset(folder)
    assert len(dataset) == n
    return {"resident": resident() - before, "opening": peak() - before}


def described(folder: Path, n: int) -> dict[str, float]:
    """Write made-up features of the layer; return the bytes of both files."""
    columns = SourceCellEncoder(3, 1.0).dims[LAYER]
    values = np.random.default_rng(0).standard_normal((n, columns), np.float32)
    path = folder / f"{LAYER}.h5ad"
    write_features(CellDataset(folder), Measured(values, [f"{LAYER}_{i}" for i in range(columns)], {}), path, {})
    return {"h5ad": path.stat().st_size, "parquet": path.with_suffix(".parquet").stat().st_size}


def paired(folder: Path, n: int) -> dict[str, float]:
    """Draw an epoch of pairs on the processor: an index is kept, the draw comes on top of it."""
    before = resident()
    sampler = PairSampler(np.arange(0, n + 1, 2 * PER_FIELD))
    kept = resident() - before
    assert len(sampler.epoch(0, 0)) == n
    return {"kept": kept, "drawing": peak() - before}


def ask(what: str, folder: Path, n: int) -> dict[str, float]:
    """Run one measure in a process of its own; return bytes a cell."""
    command = [sys.executable, __file__, what, str(folder), str(n)]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    return {k: v / n for k, v in found.items()}


def main() -> None:
    """Measure all and write the result."""
    with tempfile.TemporaryDirectory() as place:
        large, small = Path(place) / "large", Path(place) / "small"
        table = ask("made", large, TABLE_CELLS) | ask("opened", large, TABLE_CELLS)
        ask("made", small, FEATURE_CELLS)
        features, pairs = ask("described", small, FEATURE_CELLS), ask("paired", small, PAIR_CELLS)
    content = {
        "bytes_a_cell": {"table": table, "features": features, "pairs": pairs},
        "cells": {"table": TABLE_CELLS, "features": FEATURE_CELLS, "pairs": PAIR_CELLS},
        "layer": LAYER,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in ("torch", "pandas", "pyarrow", "anndata", "h5py")}},
    }
    write_result("scale", content)


if __name__ == "__main__":
    measures = {"made": made, "opened": opened, "described": described, "paired": paired}
    if len(sys.argv) == 4 and sys.argv[1] in measures:
        print(json.dumps(measures[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
