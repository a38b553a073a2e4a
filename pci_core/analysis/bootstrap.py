"""Intervals by the bootstrap over groups (proteins or images, not cells), for any statistic."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; `low` and `high` are NaN where there is none."""

    value: float
    low: float
    high: float
    n_groups: int


def bootstrap(
    statistic: Callable[[np.ndarray], float], groups: np.ndarray, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Estimate the interval of a statistic by drawing whole groups with replacement.

    Parameters
    ----------
    statistic : callable
        Takes row numbers (int64, with repeats) and returns a number; NaN where the drawn rows do not allow one.
    groups : ndarray
        (rows,) what is drawn: protein, image or a code of it. Rows of one group stay together.
    draws, seed : int
        Of the bootstrap.
    level : float
        Of the interval, by percentiles.

    Returns
    -------
    Interval
        No interval where there is one group only, or where fewer than half of the draws gave a number.
    """
    rows = np.arange(len(groups))
    names, code = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    value = float(statistic(rows))
    if len(names) < 2 or not draws:
        return Interval(value, np.nan, np.nan, len(names))
    members = [np.flatnonzero(code == g) for g in range(len(names))]
    rng = np.random.default_rng(seed)
    found = np.empty(draws)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a draw of one class has no such statistic; it gives NaN and is not counted
        for i in range(draws):
            found[i] = statistic(np.concatenate([members[g] for g in rng.integers(0, len(names), len(names))]))
    found = found[np.isfinite(found)]
    if len(found) < draws / 2:
        return Interval(value, np.nan, np.nan, len(names))
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), len(names))
