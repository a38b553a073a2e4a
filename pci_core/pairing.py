"""Which cells a training pairs, which it holds out, and which it leaves out: all that is settled before the first batch.

The paper pairs the cells of an image and holds some images out. A recipe may pair by another column (``pair_by``: those of a
protein, across cell lines and antibodies), leave images out (``leave_out``, ``leave_out_varying``), and draw otherwise
(``weigh``, ``targets``). Whatever cannot be trained on is told here, before anything is written.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pci_core.cells import CellDataset
from pci_core.drawing import Drawing
from pci_core.errors import SamplingError, unknown_name
from pci_core.pairs import Pairs, PairSampler, split_images, with_partners
from pci_core.recipe import Training
from pci_core.sets import Sets
from pci_core.shape import shapes
from pci_core.shards import ShardedSampler

HELD_OUT_PAIRS = 2048  # enough for a standard error near 2 % of the loss; costs seconds an epoch
_FALSE = ("", "0", "0.0", "false")


class Pairing:
    """The cells of a training: sets that are paired, some trained on, some held out.

    Parameters
    ----------
    dataset : CellDataset
    spec : Training
        ``pair_by, targets, weigh, leave_out, leave_out_varying, pretext, holdout, seed, batch_size`` are used.
    leave_out : array of int, optional
        Numbers of further images that are not used: those that ``leave_out_varying`` means, see `pci_core.varying`.
    kind : str
        ``"pci"`` or ``"autoencoder"``, which has no pretext task to check.

    Attributes
    ----------
    sets : Sets
        By ``pair_by``.
    train, held : ndarray of int
        Numbers of the sets trained on and held out, without overlap; no image has cells in both.
    held_pairs : Pairs or None
        The same pairs of the held-out sets every time, drawn as the paper does, so that the losses of recipes that draw
        otherwise compare; None where no held-out set has two cells.
    drawing : Drawing
        See `pci_core.drawing`.
    identity : dict
        What tells two trainings apart and is not in the recipe, plain values; empty without `leave_out`.
    facts : dict
        What was left out, for the card: plain values, empty for the paper's way.

    Raises
    ------
    UnknownNameError
        The table has no such column.
    SamplingError
        No set has two cells; the pretext task tells sets apart and there is one; all images are left out; the cells do not
        differ in shape; ``leave_out_varying`` without `leave_out`.
    """

    def __init__(self, dataset: CellDataset, spec: Training, leave_out: np.ndarray | None = None, kind: str = "pci") -> None:
        if spec.leave_out_varying and leave_out is None:
            raise SamplingError(
                f"leave_out_varying = {spec.leave_out_varying:g} leaves out images by the score of an earlier network, and none is given. "
                "Train with 'pci train' or Run, which make it, or give the numbers of the images (leave_out)."
            )
        self._spec = spec
        self._said: list[str] = []
        self.identity: dict[str, Any] = {}
        self.facts: dict[str, Any] = {}
        out = self._leave_out(dataset, leave_out)
        self.sets, part = self._divide(dataset, out)
        train, held = split_images(int(part.max()) + 1, spec.holdout, spec.seed)
        self.train, self.held = (np.flatnonzero(np.isin(part, some)) for some in (train, held))
        self._check("inpainting" if kind == "autoencoder" else spec.pretext)
        self.held_pairs = self._draw_held_out()
        self.drawing = Drawing(spec.weigh, shapes(dataset, self.sets.rows_of(self.train)) if spec.targets == "far" else None)

    def sampler(self, shards: int, own: range, device: str | torch.device) -> ShardedSampler:
        """Return what draws the batches of the sets trained on, see `pci_core.shards`."""
        spec = self._spec
        return ShardedSampler(self.sets, self.train, spec.batch_size, spec.seed, shards, own, device, self.drawing)

    def told(self, sampler: ShardedSampler) -> list[str]:
        """Return what to print when training begins: what was left out, and how many sets are trained on and held out."""
        noun, each = self.sets.noun, "" if self._spec.weigh == "cells" else ", each as often"
        used, alone = len(self.train) - sampler.left_out, sampler.left_out
        one = [f"all pairs are of one of the {noun}: what the features learn cannot tell proteins apart"] if used == 1 else []
        return [
            *self._said,
            f"{sampler.cells} source cells of {used} {noun}{each}, {len(self.held)} {noun} held out, {alone} with one cell left out",
            *one,
        ]

    def _leave_out(self, dataset: CellDataset, given: np.ndarray | None) -> np.ndarray:
        """Return the numbers of the images that are not used, sorted."""
        spec, n = self._spec, len(dataset.starts) - 1
        labelled = images_with(dataset, spec.leave_out) if spec.leave_out else np.zeros(0, np.int64)
        varying = np.unique(np.asarray([] if given is None else given, np.int64))
        if len(varying) and not 0 <= varying[0] <= varying[-1] < n:
            raise SamplingError(
                f"leave_out names image number {varying[[0, -1]].tolist()}, and the {n} images have the numbers 0 to {n - 1}."
            )
        if spec.leave_out:
            self._said.append(f"{len(labelled)} of {n} images left out, which have a value in '{spec.leave_out}'")
            self.facts["images_left_out"] = len(labelled)
        if given is not None:
            self._said.append(f"{len(varying)} of {n} images left out, whose cells vary most to an earlier network")
            self.identity["left_out_varying"] = dataset.table["image"].to_numpy()[dataset.starts[varying]].tolist()
            self.facts["images_left_out_as_varying"] = len(varying)
        out = np.union1d(labelled, varying)
        if len(out) == n:
            raise SamplingError(
                f"all {n} images are left out: {len(labelled)} with a value in the column '{spec.leave_out}', {len(varying)} as varying. "
                "Name another column in leave_out, or none."
            )
        return out

    def _divide(self, dataset: CellDataset, out: np.ndarray) -> tuple[Sets, np.ndarray]:
        """Return the sets, and for each the number of the part that is trained on or held out as a whole, -1 where it is not used.

        Sets with cells of one image are one part: else what is held out would have been seen.
        """
        column, starts = self._spec.pair_by, dataset.starts
        used = ~np.isin(np.arange(len(starts) - 1), out)
        if column == "image":
            return Sets.of(starts), np.where(used, np.cumsum(used) - 1, -1)
        values = column_of(dataset, column, "pair_by")
        image = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        named = ~_empty(values)
        among = used[image] & named
        if not among.any():
            raise SamplingError(f"pair_by = '{column}': the column is empty for all {int(used[image].sum())} cells. Name another one.")
        sets = Sets.by_column(values, among, column)[0]
        assert sets.rows is not None
        empty = int((used[image] & ~named).sum())
        self._said.append(f"cells of the same '{column}' are paired; {empty} cells without a value left out")
        self.facts["cells_without_set"] = empty
        of_cell, nodes = np.repeat(np.arange(len(sets)), sets.counts), len(sets) + len(starts) - 1
        links = coo_array((np.ones(len(of_cell), bool), (of_cell, len(sets) + image[sets.rows])), shape=(nodes, nodes))
        part = connected_components(links, directed=False)[1][: len(sets)]
        return sets, pd.factorize(part)[0]

    def _check(self, pretext: str) -> None:
        usable, noun = with_partners(self.sets, self.train), self.sets.noun
        if len(usable) == 1 and pretext != "inpainting":
            raise SamplingError(
                f"one of the {len(self.sets)} {noun} has two cells and is trained on, but pretext = '{pretext}' learns what tells "
                f"{noun} apart. Add others, set holdout = 0, or take pretext = 'inpainting', which can train on one, though its "
                "features cannot tell proteins apart then either."
            )

    def _draw_held_out(self) -> Pairs | None:
        if not (self.sets.counts[self.held] >= 2).any():
            return None
        some = PairSampler(self.sets, self.held).epoch(self._spec.seed, 0).part(slice(HELD_OUT_PAIRS))
        return replace(some, flips=torch.zeros_like(some.flips))


def column_of(dataset: CellDataset, column: str, key: str) -> pd.Series:
    """Return a column of the cell table.

    Parameters
    ----------
    dataset : CellDataset
    column : str
    key : str
        Of the recipe, to name in the error.

    Raises
    ------
    UnknownNameError
        The table has no such column.
    """
    if column not in dataset.table:
        raise unknown_name(f"column of the cell table in [training] {key} =", column, map(str, dataset.table))
    return dataset.table[column]


def images_with(dataset: CellDataset, column: str) -> np.ndarray:
    """Return the numbers of the images of which any cell has a value other than an empty one, 0 or false: (n,) int64, sorted.

    Raises
    ------
    UnknownNameError
        The table has no such column.
    """
    values = column_of(dataset, column, "leave_out")
    true = (~values.isna() & ~values.astype(str).str.strip().str.lower().isin(_FALSE)).to_numpy(bool)
    return np.flatnonzero(np.logical_or.reduceat(true, dataset.starts[:-1]))


def _empty(values: pd.Series) -> np.ndarray:
    return np.asarray(values.isna() | (values.astype(str).str.strip() == ""), bool)
