"""Spoilt cells: a constant, saturated or empty crop that is put among others is flagged, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pci_core import flags
from pci_core.cells import CellDataset, CellWriter
from pci_core.check.result import Finding


def spoil(crops: np.ndarray, n_protein: int) -> tuple[np.ndarray, dict[int, str]]:
    """Spoil the first four crops; return them all and what each spoilt one must be flagged as."""
    out = crops.copy()
    full = 1.0 if out.dtype.kind == "f" else float(np.iinfo(out.dtype).max)
    out[0, :n_protein] = out[0, 0, 0, 0]
    out[1, n_protein:] = 0
    side = out.shape[-1]
    out[2, 0, : side // 4, : side // 4] = full
    out[3] = 0
    what = {0: flags.CONSTANT_PROTEIN, 1: flags.EMPTY, 2: flags.SATURATED, 3: f"{flags.CONSTANT_PROTEIN};{flags.EMPTY}"}
    return out, what


def findings(dataset: CellDataset, folder: Path) -> list[Finding]:
    """Spoil four of a dataset's cells and write them with both rules."""
    rows = np.arange(min(len(dataset), 40))
    crops, what = spoil(dataset.read(rows), dataset.n_protein)
    table = dataset.table.iloc[rows].drop(columns=flags.COLUMN, errors="ignore")
    before = flags.flag_crops(dataset.read(rows), dataset.n_protein)
    kept = _write(dataset, folder / "kept", crops, table, flags.Rule())
    left = _write(dataset, folder / "left", crops, table, flags.Rule(leave_out=True))
    expected = np.array([what.get(i, before[i]) for i in range(len(rows))], object)
    wrong = int((kept.table[flags.COLUMN].to_numpy() != expected).sum())
    n = int((expected != "").sum())
    few = len(rows) - n
    return [
        Finding("flags", f"flagged wrongly or not, of {len(rows)} cells with {len(what)} spoilt ones", wrong, 0, 0),
        Finding("flags", '[crop] flagged = "keep": cells written', len(kept), len(rows), len(rows)),
        Finding("flags", f'[crop] flagged = "leave out": cells written, {n} of {len(rows)} flagged', len(left), few, few),
    ]  # fmt: skip


def _write(dataset: CellDataset, out: Path, crops: np.ndarray, table: pd.DataFrame, rule: flags.Rule) -> CellDataset:
    with CellWriter(out, dataset.channels, dataset.um_per_px, rule=rule) as writer:
        writer.add(crops, table)
    return CellDataset(out)
