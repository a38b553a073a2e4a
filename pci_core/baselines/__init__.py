"""Feature sets to compare paired cell inpainting with, one module each.

Every module has one function that takes a `CellDataset` and gives a `Measured` (or one for each name,
where several come from one pass). `pci_core.run.Run` writes them all as the same AnnData.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Measured:
    """What a feature set measured, ready to be written by `pci_core.features.write_features`.

    Attributes
    ----------
    values : ndarray
        (N, features) float32, one row a cell, in the order of the dataset; finite.
    names : list of str
        One a feature, unique, e.g. ``designed_distance_to_edge_um``.
    facts : dict
        For ``uns["pci"]``: what made it (library and version, weights, settings, what was left out and how many).
    obs : dict of str to ndarray
        Further columns for the cell table, (N,), e.g. the class that a supervised network gave.
    obsm : dict of str to ndarray
        Further arrays of one row a cell, (N, ...) float32.
    """

    values: np.ndarray
    names: list[str]
    facts: dict[str, Any]
    obs: dict[str, np.ndarray] = field(default_factory=dict)
    obsm: dict[str, np.ndarray] = field(default_factory=dict)


def numbered(name: str, n: int) -> list[str]:
    """Name features that have no name of their own: ``<name>_0001`` …"""
    return [f"{name}_{i:04d}" for i in range(1, n + 1)]
