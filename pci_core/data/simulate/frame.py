"""What the simulators of the organisms share: the plan of a field, the rendered field, its seed."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

META = ("image", "protein", "ensembl", "antibody", "cell_line", "location", "plate", "well")


def field_seed(seed: int, field_id: str) -> int:
    """Return the seed of one field, from the recipe's seed and the field's id alone.

    So a field comes out the same whatever the number and order of workers, and whatever other fields
    the plan holds.
    """
    digest = int.from_bytes(hashlib.sha256(field_id.encode()).digest()[:8], "big")
    return int(np.random.SeedSequence([seed, digest]).generate_state(1, np.uint64)[0])


@dataclass
class FieldPlan:
    """All that is decided about a field of view before it is drawn.

    Attributes
    ----------
    field : str
        Unique id.
    filename : str
        Name of the image file, below ``images/``.
    meta : dict
        The columns of `META` (texts; ``location``: terms joined by ';').
    seed : int
        From `field_seed`.
    extra : dict
        What the renderer needs to know; entries named ``sim_…`` become columns of the field table.
    """

    field: str
    filename: str
    meta: dict[str, str]
    seed: int
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def rng(self) -> np.random.Generator:
        """Return a fresh generator for this field."""
        return np.random.default_rng(self.seed)


@dataclass
class RenderedField:
    """A field of view as it goes to the file, and the truth about it.

    Attributes
    ----------
    pixels : ndarray
        (H, W, C) or (C, H, W), in the type of the file.
    truth : DataFrame
        One row a true cell: ``field``, ``y``, ``x`` (px) and ``sim_…`` columns.
    labels : ndarray
        (H, W) uint16, 0 = background, row i of `truth` has the label ``sim_cell`` of that row.
    """

    pixels: np.ndarray
    truth: pd.DataFrame
    labels: np.ndarray
