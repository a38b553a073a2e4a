"""Leave-one-out k-nearest-neighbour classification of single cells (Table 1): one call for a few feature sets.

Features are centred and scaled, neighbours are Euclidean, the accuracy is balanced over classes. The
paper leaves out the cell itself; leaving out all cells of its field or image as well (`leave_out`)
is the figure without leaks, because cells of one image share background, focus and staining. For more
classifiers, all on the same cells, see `pci_core.analysis.benchmark`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import anndata
import numpy as np
import pandas as pd

from pci_core.analysis.knn import neighbours, neighbours_each, standardise, vote
from pci_core.analysis.paper import PAPER_K, PAPER_TABLE_1, by_layer
from pci_core.analysis.result import save_table
from pci_core.analysis.scores import Score, balanced_accuracy
from pci_core.analysis.selection import has_one_term, independent_groups, label_text, require, scorable
from pci_core.errors import CellTableError

__all__ = [
    "PAPER_K", "PAPER_TABLE_1", "Score", "balanced_accuracy", "by_layer", "has_one_term", "independent_groups", "knn_benchmark",
    "knn_table", "neighbours", "recall_by_class", "save_table", "scorable", "standardise", "vote",
]  # fmt: skip


def knn_benchmark(
    adata: anndata.AnnData, label: str, *, k: int = PAPER_K, groups: str | None = None, leave_out: str | None = None, seed: int = 0
) -> tuple[Score, np.ndarray]:
    """Classify every cell by its neighbours and score it.

    Parameters
    ----------
    adata : AnnData
        A feature set.
    label : str
        Column of obs to predict; cells where it is empty or names several terms (with ``;``) are left out.
    k : int
        Number of neighbours.
    groups : str, optional
        Column whose values the bootstrap draws; by default see `independent_groups`.
    leave_out : str, optional
        Column; neighbours of the cell's own value are not counted.
    seed : int
        Of the bootstrap.

    Returns
    -------
    score : Score
    predicted : ndarray of str
        (cells with a label,).

    Raises
    ------
    CellTableError
        Fewer than two classes, or a class with no more than k cells.
    """
    return _each_way(adata, label, k, groups, [leave_out], seed)[0]


def _each_way(
    adata: anndata.AnnData, label: str, k: int, groups: str | None, leave_out: Sequence[str | None], seed: int
) -> list[tuple[Score, np.ndarray]]:
    """Do what `knn_benchmark` does for several ways of leaving out, with the distances computed once."""
    obs = adata.obs
    require(obs, *(c for c in (label, groups, *leave_out) if c is not None))
    used = has_one_term(obs[label])
    names, code = np.unique(label_text(obs[label]).to_numpy()[used], return_inverse=True)
    counts = np.bincount(code)
    if len(names) < 2:
        raise CellTableError(f"column '{label}' has {len(names)} class(es); classification needs at least two.")
    if counts.min() <= k:
        few = {str(n): int(c) for n, c in zip(names, counts, strict=True) if c <= k}
        raise CellTableError(f"classes of '{label}' with no more than k = {k} cells: {few}. Leave them out or choose a smaller k.")
    values = np.asarray(adata.X)[used]
    if not np.isfinite(values).all():
        raise CellTableError("the feature set holds NaN or infinite values; leave out those columns or cells first.")
    skip = [None if way is None else pd.factorize(obs[way].to_numpy()[used])[0] for way in leave_out]
    drawn = pd.factorize(obs[groups or independent_groups(obs[used], label)].to_numpy()[used])[0]
    said = [vote(near, code, k) for near in neighbours_each(standardise(values), k, skip)]
    return [(balanced_accuracy(code, p, drawn, seed=seed), np.where(p < 0, "", names[p])) for p in said]


def knn_table(feature_sets: dict[str, anndata.AnnData], label: str, *, k: int = PAPER_K, seed: int = 0) -> pd.DataFrame:
    """Score feature sets of the same cells: the paper's leave-one-cell-out, and the figure without leaks.

    Parameters
    ----------
    feature_sets : dict of str to AnnData
        By name.
    label : str
        Column of obs to predict; what cannot be scored is left out, see `scorable`.
    k : int
        Number of neighbours.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        One row a feature set and way of leaving out (``left_out``: ``cell``, or ``image`` / ``field``):
        ``features, left_out, accuracy, low, high, n_cells, n_classes, n_groups, n_features, k``.
    """
    rows = []
    for name, adata in feature_sets.items():
        part = adata[scorable(adata.obs, label, k)]
        group = independent_groups(part.obs, label)
        ways = (None, group)
        for left_out, (score, _) in zip(ways, _each_way(part, label, k, group, ways, seed), strict=True):
            rows.append({"features": name, "left_out": left_out or "cell", **asdict(score), "n_features": adata.n_vars, "k": k})
    return pd.DataFrame(rows)


def recall_by_class(feature_sets: dict[str, anndata.AnnData], label: str, *, k: int = PAPER_K) -> pd.DataFrame:
    """Return the share of each class that is found again, with the own image or field left out.

    Returns
    -------
    DataFrame
        One row a feature set and class: ``features, label, recall, n_cells``.
    """
    rows = []
    for name, adata in feature_sets.items():
        part = adata[scorable(adata.obs, label, k)]
        _, predicted = knn_benchmark(part, label, k=k, leave_out=independent_groups(part.obs, label))
        truth = part.obs[label].astype(str).to_numpy()
        right = pd.Series(truth == predicted).groupby(truth)
        rows += [
            {"features": name, "label": c, "recall": r, "n_cells": int(n)}
            for c, r, n in zip(right.mean().index, right.mean(), right.size(), strict=True)
        ]
    return pd.DataFrame(rows)
