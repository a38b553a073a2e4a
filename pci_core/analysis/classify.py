"""Leave-one-out k-nearest-neighbour classification of single cells (Table 1, Figure 2A).

Features are centred and scaled, neighbours are Euclidean, the accuracy is balanced over classes. The
paper leaves out the cell itself; leaving out all cells of its field or image as well (`leave_out`)
is the figure without leaks, because cells of one image share background, focus and staining.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch

from pci_core.errors import CellTableError, unknown_name
from pci_core.storage import atomic_path, write_text

PAPER_K = 11
PAPER_TABLE_1 = {"conv1": 0.4309, "conv2": 0.7052, "conv3": 0.8430, "conv4": 0.8798, "conv5": 0.8189}
_BLOCK = 1024


@dataclass(frozen=True)
class Score:
    """A balanced accuracy with its interval.

    Attributes
    ----------
    accuracy, low, high : float
        Mean recall over classes in [0, 1], and its bootstrap interval; NaN where there is no interval.
    n_cells, n_classes, n_groups : int
        What it was computed on; groups are what the bootstrap drew.
    """

    accuracy: float
    low: float
    high: float
    n_cells: int
    n_classes: int
    n_groups: int


def standardise(x: np.ndarray) -> np.ndarray:
    """Centre and scale each feature to unit variance; constant features become 0.

    Parameters
    ----------
    x : ndarray
        (cells, features).

    Returns
    -------
    ndarray
        (cells, features) float32.
    """
    x = np.asarray(x, np.float64)
    std = x.std(0)
    return ((x - x.mean(0)) / np.where(std > 0, std, 1.0)).astype(np.float32)


def neighbours(x: np.ndarray, k: int, leave_out: np.ndarray | None = None) -> np.ndarray:
    """Find the nearest other cells of every cell, nearest first.

    Parameters
    ----------
    x : ndarray
        (cells, features) float32, standardised.
    k : int
        How many.
    leave_out : ndarray, optional
        (cells,) group codes; a cell's own group is not searched. By default only the cell itself is left out.

    Returns
    -------
    ndarray
        (cells, k) int64 row numbers; -1 where fewer than k cells can be searched.
    """
    data = torch.from_numpy(np.ascontiguousarray(x, np.float32))
    square = data.square().sum(1)
    groups = None if leave_out is None else torch.from_numpy(np.asarray(leave_out, np.int64))
    take = min(k, len(data) - 1)
    out = np.full((len(data), k), -1, np.int64)
    for start in range(0, len(data), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(data)))
        distance = square[None] - 2 * data[rows] @ data.T  # squared, up to a constant of the row
        distance[torch.arange(len(distance)), torch.arange(rows.start, rows.stop)] = torch.inf
        if groups is not None:
            distance[groups[rows, None] == groups[None]] = torch.inf
        value, index = distance.topk(take, largest=False)
        out[rows, :take] = torch.where(torch.isinf(value), -1, index).numpy()
    return out


def vote(near: np.ndarray, code: np.ndarray, k: int) -> np.ndarray:
    """Predict the most frequent class among the first k neighbours; the lowest code wins a tie, as in scikit-learn.

    Returns
    -------
    ndarray
        (cells,) class codes, -1 where a cell has no neighbour.
    """
    votes = np.zeros((len(near), code.max() + 1), np.int64)
    rows, columns = np.nonzero(near[:, :k] >= 0)
    np.add.at(votes, (rows, code[near[rows, columns]]), 1)
    return np.where(votes.any(1), votes.argmax(1), -1)


def balanced_accuracy(code: np.ndarray, predicted: np.ndarray, groups: np.ndarray, draws: int = 1000, seed: int = 0) -> Score:
    """Mean recall over classes, with a 95 % bootstrap interval over groups within each class.

    Parameters
    ----------
    code, predicted : ndarray of int
        (cells,) true and predicted class.
    groups : ndarray of int
        (cells,) field or image: what is drawn, since cells of one image are not independent.
    draws, seed : int
        Of the bootstrap.

    Returns
    -------
    Score
        Without an interval (NaN) if a class has a single group.
    """
    classes = np.unique(code)
    rng = np.random.default_rng(seed)
    right = code == predicted
    recalls, drawn, n_groups, single = [], np.zeros(draws), 0, False
    for c in classes:
        members = code == c
        _, group = np.unique(groups[members], return_inverse=True)
        total = np.bincount(group)
        hits = np.bincount(group, weights=right[members])
        recalls.append(hits.sum() / total.sum())
        pick = rng.integers(0, len(total), (draws, len(total)))
        drawn += hits[pick].sum(1) / total[pick].sum(1) / len(classes)
        n_groups += len(total)
        single |= len(total) == 1
    low, high = (np.nan, np.nan) if single else np.quantile(drawn, [0.025, 0.975])
    return Score(float(np.mean(recalls)), float(low), float(high), len(code), len(classes), n_groups)


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
    for column in (label, groups, leave_out):
        if column is not None and column not in adata.obs:
            raise unknown_name("column", column, adata.obs.columns)
    obs = adata.obs
    used = has_one_term(obs[label])
    names, code = np.unique(obs[label].astype(str).to_numpy()[used], return_inverse=True)
    counts = np.bincount(code)
    if len(names) < 2:
        raise CellTableError(f"column '{label}' has {len(names)} class(es); classification needs at least two.")
    if counts.min() <= k:
        few = {str(n): int(c) for n, c in zip(names, counts, strict=True) if c <= k}
        raise CellTableError(f"classes of '{label}' with no more than k = {k} cells: {few}. Leave them out or choose a smaller k.")
    x = standardise(np.asarray(adata.X)[used])
    if not np.isfinite(x).all():
        raise CellTableError("the feature set holds NaN or infinite values; leave out those columns or cells first.")
    skip = None if leave_out is None else pd.factorize(obs[leave_out].to_numpy()[used])[0]
    predicted = vote(neighbours(x, k, skip), code, k)
    drawn = pd.factorize(obs[groups or independent_groups(obs[used], label)].to_numpy()[used])[0]
    return balanced_accuracy(code, predicted, drawn, seed=seed), np.where(predicted < 0, "", names[predicted])


def has_one_term(labels: pd.Series) -> np.ndarray:
    """Tell where a label is one term, neither empty nor several joined by ``;``: (cells,) bool."""
    text = labels.astype(str)
    return ((text != "") & ~text.str.contains(";", regex=False)).to_numpy()


def scorable(obs: pd.DataFrame, label: str, k: int = PAPER_K) -> np.ndarray:
    """Tell which cells can be scored: (cells,) bool.

    Their label is one term, its class has more than k cells and, where whole images are left out (see
    `independent_groups`), more than one image: the only image of a class would never be found again.
    """
    if label not in obs:
        raise unknown_name("column", label, obs.columns)
    one = has_one_term(obs[label])
    text = obs[label].astype(str)
    counts = text[one].value_counts()
    good = one & text.isin(counts.index[counts > k]).to_numpy()
    if independent_groups(obs[good], label) == "image":
        images = obs[good].groupby(label, observed=True)["image"].nunique()
        good &= text.isin(images.index[images > 1]).to_numpy()
    return good


def independent_groups(obs: pd.DataFrame, label: str) -> str:
    """Return the column whose values share nothing but the class: ``image``, or ``field`` where classes are single images.

    In the authors' toy sets a protein is one image of several fields of view, so fields are the
    largest unit that can be drawn or left out.
    """
    images = obs.groupby(label, observed=True)["image"].nunique()
    return "image" if (images > 1).sum() > 1 or "field" not in obs else "field"


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
        for left_out in (None, group):
            score, _ = knn_benchmark(part, label, k=k, groups=group, leave_out=left_out, seed=seed)
            rows.append({"features": name, "left_out": left_out or "cell", **asdict(score), "n_features": adata.n_vars, "k": k})
    return pd.DataFrame(rows)


def by_layer(scores: pd.DataFrame) -> pd.DataFrame:
    """Lay out the rows of `knn_table`, with further columns ``layer`` and ``network``, for reading.

    Returns
    -------
    DataFrame of str
        One column a layer; rows: what is left out and the network, at last the paper's Table 1. Each
        entry is the accuracy and its interval, or the accuracy alone where there is no interval.
    """
    text = [f"{a:.2f} ({b:.2f}–{c:.2f})" if b == b else f"{a:.2f}" for a, b, c in scores[["accuracy", "low", "high"]].to_numpy()]
    named = scores.assign(text=text, left_out="own " + scores["left_out"] + " left out")
    wide = named.pivot(index=["left_out", "network"], columns="layer", values="text")
    wide.loc[("own cell left out", "paper, other cells"), :] = {k: f"{v:.2f}" for k, v in PAPER_TABLE_1.items()}
    return wide.sort_index().rename_axis(columns=None)


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


def save_table(table: pd.DataFrame, stem: str | os.PathLike[str]) -> None:
    """Write a table as parquet and CSV under one name."""
    stem = Path(stem)
    with atomic_path(stem.with_name(stem.name + ".parquet")) as temporary:
        table.to_parquet(temporary, index=False)
    write_text(stem.with_name(stem.name + ".csv"), table.to_csv(index=False))
