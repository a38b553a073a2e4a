"""Folds of cross-validation in which cells that share an image stay together."""

from __future__ import annotations

import warnings

import numpy as np

FOLDS = 5
_TRIES = 20


def make_folds(code: np.ndarray, groups: np.ndarray | None = None, n: int = FOLDS, seed: int = 0) -> np.ndarray:
    """Divide cells into folds in which the classes are as alike as can be.

    Parameters
    ----------
    code : ndarray of int
        (cells,) class.
    groups : ndarray of int, optional
        (cells,) cells of one group come into one fold. By default each cell for itself, as in the paper.
    n : int
        Folds; fewer where there are fewer groups.
    seed : int
        Of the shuffling. Where a class would have all its cells in one fold, so that no model
        could learn it, further shuffles are tried.

    Returns
    -------
    ndarray of int
        (cells,) fold from 0.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    fold = np.zeros(len(code), np.int64)
    if groups is None:
        for i, (_, test) in enumerate(StratifiedKFold(n, shuffle=True, random_state=seed).split(code[:, None], code)):
            fold[test] = i
        return fold
    n = min(n, len(np.unique(groups)))
    best, fewest = fold, None
    for attempt in range(_TRIES):
        folds = StratifiedGroupKFold(n, shuffle=True, random_state=seed + attempt)
        fold = np.zeros(len(code), np.int64)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The least populated class")  # the balance of small classes is as good as can be
            for i, (_, test) in enumerate(folds.split(code[:, None], code, groups)):
                fold[test] = i
        lost = len(unlearnable(code, fold))
        if fewest is None or lost < fewest:
            best, fewest = fold, lost
        if not lost:
            break
    return best


def unlearnable(code: np.ndarray, fold: np.ndarray) -> list[int]:
    """Return the classes that have all their cells in one fold, so that the model tested on them never saw them."""
    return [int(c) for c in np.unique(code) if len(np.unique(fold[code == c])) < 2]
