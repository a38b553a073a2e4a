"""Intervals by the bootstrap over groups (proteins or images, not cells), for any statistic.

Percentiles of few groups lie too close together: the spread of a drawn mean is that of the mean times (n - 1) / n, and the normal
distribution's quantiles stand where Student's belong. So the percentiles are taken further out, by what both amount to (T. Hesterberg,
The American Statistician 69, 2015, section 5.3: "expanded percentile"). The interval keeps the bounds and the skewness of the
percentile interval; for many groups it is the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
FEW_GROUPS = 30  # from here on the interval of a mean was measured to hold what it promises, of skewed values too, see book/checks.md


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; `low` and `high` are NaN where there is none."""

    value: float
    low: float
    high: float
    n_groups: int


def tail(sizes: Sequence[int] | np.ndarray, variances: Sequence[float] | np.ndarray | None = None, level: float = LEVEL) -> float:
    """Return the share of the draws that lies below an interval, and above it.

    Parameters
    ----------
    sizes : sequence of int
        Groups that are drawn from, one number for each stratum (class, location) that is drawn within.
    variances : sequence of float, optional
        What each stratum adds to the variance of the drawn statistic; not needed for one stratum. Strata of no variance, or of one
        group, count for nothing. Degrees of freedom are Satterthwaite's.
    level : float
        Of the interval.

    Returns
    -------
    float
        (1 - level) / 2 for very many groups, less for few; 0 (the whole range of the draws) for fewer than about five.
    """
    n = np.asarray(sizes, np.float64)
    v = np.ones(len(n)) if variances is None else np.asarray(variances, np.float64)
    used = (n > 1) & (v > 0)
    if not used.any():
        return (1 - level) / 2
    n, v = n[used], v[used]
    true = v * n / (n - 1)
    df = true.sum() ** 2 / (true**2 / (n - 1)).sum()
    further = np.sqrt(true.sum() / v.sum()) * stats.t.ppf((1 + level) / 2, df)
    return float(stats.norm.cdf(-further))


def bootstrap(
    statistic: Callable[[np.ndarray], float], groups: np.ndarray, *, draws: int = 1000, seed: int = 0, level: float = LEVEL
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
        Of the interval, by percentiles that are taken further out where groups are few, see `tail`.

    Returns
    -------
    Interval
        No interval where there is one group only, or where fewer than half of the draws gave a number. Of fewer than `FEW_GROUPS`
        groups it may be too narrow: of skewed values of ten it holds the mean in 93 %, of four in 86 %.
    """
    rows = np.arange(len(groups))
    names, code = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    value = float(statistic(rows))
    if len(names) < 2 or not draws:
        return Interval(value, np.nan, np.nan, len(names))
    n, order = len(names), np.argsort(code, kind="stable")
    members = None if len(rows) == n else np.split(order, np.cumsum(np.bincount(code))[:-1])
    rng = np.random.default_rng(seed)
    found = np.empty(draws)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a draw of one class has no such statistic; it gives NaN and is not counted
        for i in range(draws):
            drawn = rng.integers(0, n, n)
            found[i] = statistic(order[drawn] if members is None else np.concatenate([members[g] for g in drawn]))
    found = found[np.isfinite(found)]
    if len(found) < draws / 2:
        return Interval(value, np.nan, np.nan, n)
    out = tail([n], level=level)
    low, high = np.quantile(found, [out, 1 - out])
    return Interval(value, float(low), float(high), n)
