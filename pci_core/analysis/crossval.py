"""L1 logistic regression and random forest under cross-validation (the paper's supplementary table 2).

Every cell is predicted once, by the model of the fold that did not see it. The paper's folds are
plain, so that cells of one image stand on both sides; folds by group keep them together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pci_core.folds import FOLDS, make_folds, unlearnable

__all__ = ["FOLDS", "classifier", "cross_validate", "each_fold", "make_folds", "unlearnable"]

TREES, FEATURE_SHARE = 500, 0.2  # the paper's forest


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
