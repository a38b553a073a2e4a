"""Small HDF5 files in the form of DeepLoc's, made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pci_core import recipe
from pci_core.cells import CellDataset
from pci_core.data import sources
from pci_core.data.deeploc import deeploc_cells

CLASSES = ["ER", "NUCLEI", "SPINDLE", "SPINDLE_POLE"]


def write_file(path: Path, n: int = 12, seed: int = 0, classes: list[str] | None = None, dtype: str = "f8", **more: Any) -> dict[str, Any]:
    """Write a file as the true ones are: whole numbers as float64, names of classes as an attribute of bytes."""
    rng = np.random.default_rng(seed)
    classes = classes or CLASSES
    content: dict[str, Any] = {
        "data1": rng.integers(300, 4000, (n, 8192)).astype(dtype),
        "Index1": np.eye(len(classes), dtype=np.uint8)[np.arange(n) % len(classes)],
    }
    content |= {k: v for k, v in more.items() if k != "attrs"}
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            if value is not None:
                file[key] = value
        attrs = {"Index1_columns": np.array(classes, "S")} | more.get("attrs", {})
        for key, value in attrs.items():
            file.attrs[key] = value
    return content


def read(path: Path, out: Path) -> CellDataset:
    return deeploc_cells(sources.with_path(recipe.load("chong"), path), out, progress=False)


def info(n: int, told: dict[str, list[str]] | None = None, seed: int = 0) -> dict[str, Any]:
    """Return Info1 as texts of bytes: two measurements, a coordinate, a counter, and what is told."""
    rng = np.random.default_rng(seed)
    numbers = {"Cells_AreaShape_Area": rng.normal(800, 50, n), "Cells_Texture_GFP": rng.normal(0, 1, n),
               "Cells_Location_Center_X": rng.uniform(0, 1000, n), "Cells_Location_Center_Y": rng.uniform(0, 1000, n),
               "ObjectNumber": np.arange(n)}  # fmt: skip
    columns: dict[str, list[str]] = {k: [f"{x:.6f}" for x in v] for k, v in numbers.items()} | (told or {})
    return {"Info1": np.array(list(columns.values())).T.astype("S"), "Info1_columns": np.array(list(columns), "S")}
