"""Balanced accuracy with its interval, recall by class, confusion matrix: what any classifier's predictions are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pci_core.analysis.bootstrap import tail

NONE = "(none)"  # the column of cells without a prediction in a confusion matrix
_AT_ONCE = 4_000_000  # drawn groups in memory at a time


@dataclass(frozen=True)
class Score:
    """A balanced accuracy with its interval.

    Attributes
    ----------
    accuracy, low, high : float
        Mean recall over classes in [0, 1], and its bootstrap interval; NaN where there is no interval.
    n_cells, n_classes, n_groups : int
        What it was computed on; groups are what the bootstrap drew.
    n_seeds : int
        Trainings that the accuracy is the mean of.
    """

    accuracy: float
    low: float
    high: float
    n_cells: int
    n_classes: int
    n_groups: int
    n_seeds: int = 1


def recalls(code: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the share of each class that is found again.

    Parameters
    ----------
    code : ndarray of int
        (cells,) true class, from 0, every class at least once.
    predicted : ndarray of int
        (cells,) or (seeds, cells); -1 for none.

    Returns
    -------
    ndarray
        (classes,) in [0, 1], mean over seeds.
    """
    right = (np.atleast_2d(predicted) == code).mean(0)
    return np.asarray(np.bincount(code, weights=right) / np.bincount(code))


def balanced_accuracy(code: np.ndarray, predicted: np.ndarray, groups: np.ndarray, draws: int = 1000, seed: int = 0) -> Score:
    """Mean recall over classes, with a 95 % bootstrap interval over groups within each class, and over seeds.

    Percentiles are taken further out where groups are few, see `pci_core.analysis.bootstrap`.

    Parameters
    ----------
    code : ndarray of int
        (cells,) true class.
    predicted : ndarray of int
        (cells,), or (seeds, cells) where several trainings predicted the same cells.
    groups : ndarray of int
        (cells,) field or image: what is drawn, since cells of one image are not independent. Each draw
        also picks as many seeds as there are, with replacement, and takes their mean.
    draws, seed : int
        Of the bootstrap.

    Returns
    -------
    Score
        Without an interval (NaN) if a class has a single group.
    """
    classes = np.unique(code)
    rng = np.random.default_rng(seed)
    right = np.atleast_2d(predicted) == code
    n_seeds = len(right)
    weight = np.ones((draws, 1)) if n_seeds == 1 else rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), draws) / n_seeds
    shares, drawn, n_groups, single = [], np.zeros(draws), 0, False
    sizes, variances = [], []
    for c in classes:
        members = code == c
        _, group = np.unique(groups[members], return_inverse=True)
        total = np.bincount(group)
        hits = np.stack([np.bincount(group, weights=r[members]) for r in right])
        shares.append(hits.sum() / total.sum() / n_seeds)
        recall = np.empty(draws)
        step = max(1, _AT_ONCE // (len(total) * n_seeds))
        for start in range(0, draws, step):
            rows = slice(start, min(start + step, draws))
            pick = rng.integers(0, len(total), (rows.stop - start, len(total)))
            found = hits[:, pick].sum(2).T / total[pick].sum(1)[:, None]
            recall[rows] = (found * weight[rows]).sum(1) / len(classes)
        drawn += recall
        sizes.append(len(total))
        variances.append(float(recall.var()) if draws else 0.0)
        n_groups += len(total)
        single |= len(total) == 1
    out = tail(sizes, variances)
    low, high = (np.nan, np.nan) if single or not draws else np.quantile(drawn, [out, 1 - out])
    return Score(float(np.mean(shares)), float(low), float(high), len(code), len(classes), n_groups, n_seeds)


def confusion_matrix(code: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Count what each class was taken for.

    Parameters
    ----------
    code : ndarray of int
        (cells,) true class.
    predicted : ndarray of int
        (cells,) or (seeds, cells): with several seeds each cell counts once a seed. -1 for none.
    names : sequence of str
        One a class.

    Returns
    -------
    DataFrame of int
        Rows: true class; columns: predicted class, and ``(none)`` where cells have no prediction.
    """
    n = len(names)
    predicted = np.atleast_2d(predicted)
    flat = np.broadcast_to(code, predicted.shape).ravel() * (n + 1) + np.where(predicted < 0, n, predicted).ravel()
    counts = np.bincount(flat, minlength=n * (n + 1)).reshape(n, n + 1)
    table = pd.DataFrame(counts, index=pd.Index(names, name="label"), columns=pd.Index([*names, NONE], name="predicted"))
    return table if counts[:, n].any() else table.drop(columns=NONE)


def row_shares(confusion: pd.DataFrame) -> pd.DataFrame:
    """Return a confusion matrix with each row divided by its sum: the diagonal is the recall of each class."""
    return confusion.div(confusion.sum(1), axis=0)
