"""A linear discriminant of two sets of cells, fitted on cells of other images than those it places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from pci_core.errors import AnalysisNeedsError

SHRINKAGES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9)  # towards equal variances in all directions
_USUAL_SHRINKAGE, _FOLDS = 0.5, 5
_AS_GOOD = 0.001  # of the area under the ROC curve


def discriminants(x: np.ndarray, second: np.ndarray, shrinkages: Sequence[float]) -> np.ndarray:
    """Return the direction that tells two sets of cells apart, for each shrinkage of their covariance: (shrinkages, features).

    Fisher's linear discriminant with both sets given equal weight; the covariance within them is mixed with
    that of equal variances, ``(1 - s) C + s trace(C) / features``.

    Parameters
    ----------
    x : ndarray
        (cells, features) float64.
    second : ndarray of bool
        (cells,) which cells are of the second set.
    shrinkages : sequence of float
        Above 0, up to 1.
    """
    means = [x[~second].mean(0), x[second].mean(0)]
    within = np.concatenate(
        [(x[mask] - m) / np.sqrt(2 * mask.sum()) for mask, m in zip((~second, second), means, strict=True)]
    )  # its product with itself is the mean of the two covariances
    _, singular, axes = np.linalg.svd(within, full_matrices=False)
    variance, apart = singular**2, means[1] - means[0]
    if not variance.sum() > 0:  # each set is one point
        return np.stack([apart] * len(shrinkages))
    mean = variance.sum() / x.shape[1]
    along = axes @ apart
    rest = apart - axes.T @ along  # directions in which neither set varies
    return np.stack([axes.T @ (along / ((1 - s) * variance + s * mean)) + rest / (s * mean) for s in shrinkages])


def _deal(second: np.ndarray, alone: np.ndarray, units: np.ndarray, seed: int) -> np.ndarray:
    """Deal whole units out to up to five folds, those of either location in turn, so that no fold holds all of one: (cells,)."""
    of_two, of_one = np.unique(units[second & alone]), np.unique(units[~second & alone])
    n = min(_FOLDS, len(of_two), len(of_one))
    rng, fold = np.random.default_rng(seed), np.zeros(units.max() + 1, np.int64)
    for part in (np.unique(units), of_one, of_two):
        fold[rng.permutation(part)] = np.arange(len(part)) % n
    return np.asarray(fold[units])


def crossed(x: np.ndarray, second: np.ndarray, alone: np.ndarray, units: np.ndarray, seed: int = 0) -> np.ndarray:
    """Place every cell along a discriminant fitted on cells of other units: -1 and 1 are the means of the two sets there.

    Parameters
    ----------
    x : ndarray
        (cells, features) float64.
    second, alone : ndarray of bool
        (cells,) which cells are of the second set, and which may be fitted on; the rest are only placed.
    units : ndarray of int
        (cells,) codes from 0 of what stays together.
    seed : int
        Of the folds.

    Returns
    -------
    ndarray
        (cells,) float64.

    Raises
    ------
    AnalysisNeedsError
        Without the units of one fold a set has no cell left.
    """
    out = np.empty(len(x))
    fold = _deal(second, alone, units, seed)
    for f in np.unique(fold):
        train, test = (fold != f) & alone, fold == f
        if second[train].all() or not second[train].any():
            raise AnalysisNeedsError("the cells of one location alone share images with the other's, so that none can be left out.")
        strength = _best_shrinkage(x[train], second[train], units[train], seed)
        out[test] = _along(x[train], second[train], [strength], x[test])[0]
    return out


def _along(x: np.ndarray, second: np.ndarray, shrinkages: Sequence[float], cells: np.ndarray) -> np.ndarray:
    """Fit on some cells and place others: (shrinkages, cells)."""
    directions = discriminants(x, second, shrinkages)
    one, two = x[~second].mean(0), x[second].mean(0)
    apart = directions @ (two - one)
    return np.asarray(2 * directions @ (cells - (one + two) / 2).T / np.maximum(apart, np.finfo(float).tiny)[:, None])


def _best_shrinkage(x: np.ndarray, second: np.ndarray, units: np.ndarray, seed: int) -> float:
    """Choose the shrinkage that best tells apart held-out cells of one location alone, by the area under the ROC curve.

    Of several as good as the best (most tell nearly all cells apart) the strongest, which leans least on these cells.
    """
    inner = _deal(second, np.ones(len(x), bool), units, seed)
    found = np.zeros((len(SHRINKAGES), len(x)))
    for f in np.unique(inner):
        train = inner != f
        if second[train].all() or not second[train].any():
            return _USUAL_SHRINKAGE  # a single unit of one location: none can be held out
        found[:, ~train] = _along(x[train], second[train], SHRINKAGES, x[~train])
    n = int(second.sum())
    area = (rankdata(found, axis=1)[:, second].sum(1) - n * (n + 1) / 2) / (n * (len(x) - n))
    return max(s for s, a in zip(SHRINKAGES, area, strict=True) if a >= area.max() - _AS_GOOD)
