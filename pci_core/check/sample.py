"""Cells to check with: a few simulated ones, or those of a run; and datasets made of other ones, cell by cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from pci_core import recipe as recipes
from pci_core.cells import CellDataset, CellWriter
from pci_core.recipe import Recipe
from pci_core.run import Run

DEFAULT = "simulated-human"
PROTEINS, CELLS = 4, 48  # of the simulated sample; of any sample, at most


def small(recipe: str = DEFAULT) -> Recipe:
    """Return a recipe that simulates a few fields."""
    return recipes.load(recipe).replace(
        source={"proteins": PROTEINS, "images_per_protein": 1, "fields_per_image": 1}, crop={"min_cells": 2}
    )


def some(run: Run, out: Path, n: int = CELLS) -> CellDataset:
    """Write the first few cells of several images of a run as a dataset of their own."""
    everything = run.cells()
    starts = everything.starts
    images = np.unique(np.linspace(0, len(starts) - 2, min(6, len(starts) - 1)).astype(int))
    each = max(2, n // len(images))
    return copy(everything, out, np.concatenate([np.arange(starts[i], min(starts[i] + each, starts[i + 1])) for i in images])[:n])


def copy(
    dataset: CellDataset,
    out: Path,
    rows: np.ndarray,
    *,
    crops: Callable[[np.ndarray], np.ndarray] | None = None,
    table: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
) -> CellDataset:
    """Write some cells of a dataset, in the order given, their crops or their table changed by a function."""
    pixels, known = dataset.read(rows), dataset.table.iloc[rows].reset_index(drop=True)
    with CellWriter(out, dataset.channels, dataset.um_per_px, recipe=dataset.info.get("recipe", "")) as writer:
        writer.add(np.ascontiguousarray(crops(pixels)) if crops else pixels, table(known) if table else known)
    return CellDataset(out)
