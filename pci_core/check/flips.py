"""Flipped cells: pooled features of a cell and of its mirror image are alike, the more so than those of two trainings.

The paper turns cells about while it trains and pools over space, so what a cell is called should not depend on how it lies. How cells
differ from one another (the distances between all of them) is compared: between the cells and their mirror images by one network, and
between two networks that differ in the seed of their training alone. The first must not be the larger.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
from scipy.spatial.distance import pdist

from pci_core.analysis.knn import standardise
from pci_core.cells import CellDataset
from pci_core.check import invariance, sample
from pci_core.check.result import Finding
from pci_core.checkpoint import WEIGHTS
from pci_core.encoders import Encoder
from pci_core.recipe import Recipe
from pci_core.train import load_model, train

LAYER = "conv4"
TURNS = {"left to right": lambda x: x[..., ::-1], "upside down": lambda x: x[..., ::-1, :], "transposed": lambda x: x.swapaxes(-1, -2)}
SHORT = {"epochs": 3, "width": 0.15, "batch_size": 16, "holdout": 0.0, "pretrained": "", "start": ""}


def layer(dataset: CellDataset, encoder: Encoder, recipe: Recipe, folder: Path) -> np.ndarray:
    """Return the features that are compared: (cells, filters)."""
    return invariance.extracted(dataset, encoder, recipe.preprocess, folder)[LAYER]


def change(one: np.ndarray, other: np.ndarray) -> float:
    """Return how far a cell moves, as a share of the distance between two cells: mean over cells, features standardised by `one`."""
    a, b = standardise(one), standardise(other, one)
    return float(np.linalg.norm(b - a, axis=1).mean() / pdist(a).mean())


def unlike(one: np.ndarray, other: np.ndarray) -> float:
    """Return 1 - r, r the correlation of the distances between all cells in two feature spaces."""
    return float(1 - np.corrcoef(pdist(standardise(one)), pdist(standardise(other)))[0, 1])


def short_training(dataset: CellDataset, recipe: Recipe, seed: int, folder: Path) -> Encoder:
    """Train a small network for a moment."""
    spec = recipe.replace(training={**SHORT, "seed": seed})
    with contextlib.redirect_stderr(io.StringIO()):
        train(dataset, spec, folder, device="cpu", precision="float32", compile="off", quiet=True)
    return load_model(folder / WEIGHTS)[0].source


def findings(dataset: CellDataset, encoder: Encoder, told: str, recipe: Recipe, folder: Path) -> list[Finding]:
    """Turn the cells about and compare."""
    rows = np.arange(len(dataset))
    turned = {name: sample.copy(dataset, folder / f"turned{i}", rows, crops=turn) for i, (name, turn) in enumerate(TURNS.items())}
    straight = layer(dataset, encoder, recipe, folder / "f")
    out = []
    for name, cells in turned.items():
        moved = change(straight, layer(cells, encoder, recipe, folder / "f"))
        what = f"{LAYER}, {told}, {len(rows)} cells {name}: a cell moves by this share of the distance between cells"
        out.append(Finding("flips", what, moved, required=False))
    one, two = (short_training(dataset, recipe, seed, folder / f"seed{seed}") for seed in (0, 1))
    plain = layer(dataset, one, recipe, folder / "f")
    noise = unlike(plain, layer(dataset, two, recipe, folder / "f"))
    most = max(unlike(plain, layer(cells, one, recipe, folder / "f")) for cells in turned.values())
    what = f"distances between {len(rows)} cells, 1 - r with their mirror images; limit: with a training of another seed"
    return [*out, Finding("flips", what, most, 0, noise)]
