"""L1 logistic regression and random forest under cross-validation (the paper's supplementary table 2).

Every cell is predicted once, by the model of the fold that did not see it. The paper's folds are
plain, so that cells of one image stand on both sides; folds by group keep them together.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

FOLDS = 5
TREES, FEATURE_SHARE = 500, 0.2  # the paper's forest
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


def classifier(kind: str, seed: int = 0, jobs: int = -1) -> Any:
    """Build a classifier of scikit-learn that scales features by what it is fitted on.

    Parameters
    ----------
    kind : str
        ``"logistic"``: one L1 logistic regression a class, C = 1, balanced weights. ``"forest"``: 500 trees,
        20 % of the features at each split, balanced weights.
    seed : int
        Of liblinear's order of coordinates, or of the trees.
    jobs : int
        Processes (logistic regression) or threads (forest); the result does not depend on it.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if kind == "forest":
        model: Any = RandomForestClassifier(TREES, max_features=FEATURE_SHARE, class_weight="balanced", random_state=seed, n_jobs=jobs)
    else:
        one = LogisticRegression(l1_ratio=1, solver="liblinear", class_weight="balanced", max_iter=1000, random_state=seed)
        model = OneVsRestClassifier(one, n_jobs=jobs)
    return make_pipeline(StandardScaler(), model)


def cross_validate(
    kind: str, spaces: np.ndarray | list[np.ndarray], code: np.ndarray, fold: np.ndarray, *, seed: int = 0, jobs: int = -1
) -> np.ndarray:
    """Predict each cell by a model of the other folds.

    Parameters
    ----------
    kind : str
        See `classifier`.
    spaces : ndarray or list of ndarray
        (cells, features); a list gives each fold a space of its own (the features of a network that
        was trained without that fold).
    code : ndarray of int
        (cells,) class.
    fold : ndarray of int
        (cells,) from 0.
    seed, jobs : int
        See `classifier`.

    Returns
    -------
    ndarray of int
        (cells,) predicted class.
    """
    out = np.empty(len(code), np.int64)
    for f, train, test in each_fold(fold):
        x = spaces[f] if isinstance(spaces, list) else spaces
        out[test] = classifier(kind, seed, jobs).fit(x[train], code[train]).predict(x[test])
    return out


def each_fold(fold: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (fold, rows to learn from, rows to test) for every fold that has cells."""
    for f in np.unique(fold):
        yield int(f), np.flatnonzero(fold != f), np.flatnonzero(fold == f)
