"""Intervals by drawing whole groups."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pci_core.analysis.bootstrap import bootstrap, tail


def test_the_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    found = bootstrap(lambda rows: x[rows].mean(), np.arange(400), draws=2000)
    assert found.value == x.mean() and found.n_groups == 400
    # half the width is 1.96 standard errors of 0.05; 2,000 draws give a percentile within some 5 %
    assert abs((found.high - found.low) / 2 / (1.96 * x.std() / 20) - 1) < 0.08
    assert found.low < x.mean() < found.high


def test_groups_are_drawn_whole() -> None:
    group = np.repeat(np.arange(5), 100)
    x = group.astype(float)  # all cells of a group are the same: 500 cells say no more than 5
    found = bootstrap(lambda rows: x[rows].mean(), group, draws=2000)
    assert found.high - found.low > 2.0  # over cells it would be 0.25


def test_no_interval_of_one_group_or_of_a_statistic_that_mostly_fails() -> None:
    one = bootstrap(lambda rows: float(len(rows)), np.zeros(7))
    assert one.value == 7 and np.isnan([one.low, one.high]).all() and one.n_groups == 1
    x = np.array([1.0, np.nan, np.nan, np.nan])
    often = bootstrap(lambda rows: x[rows].mean() if len(set(rows)) == 4 else np.nan, np.arange(4), draws=200)
    assert np.isnan(often.low)


def test_the_seed_decides() -> None:
    x = np.random.default_rng(1).normal(size=30)
    one, two, other = (bootstrap(lambda rows: x[rows].mean(), np.arange(30), seed=s) for s in (0, 0, 1))
    assert one == two and one != other


def test_percentiles_of_few_groups_stand_further_out() -> None:
    assert tail([100_000]) == pytest.approx(0.025, rel=1e-3)
    # ten: Student's 2.262 with 9 degrees of freedom, times the root of 10 / 9
    assert tail([10]) == pytest.approx(stats.norm.cdf(-2.2622 * np.sqrt(10 / 9)), rel=1e-3)
    assert tail([2]) < 1e-9  # the whole range of the draws
    # strata of equal variance: 4 times 9 degrees of freedom; one of a single group, or of no variance, adds nothing
    assert tail([10] * 4, [1.0] * 4) == pytest.approx(stats.norm.cdf(-stats.t.ppf(0.975, 36) * np.sqrt(10 / 9)), rel=1e-6)
    assert tail([10, 1, 50], [1.0, 1.0, 0.0]) == tail([10])
    assert tail([1], [1.0]) == pytest.approx(0.025)


def test_intervals_of_ten_groups_hold_the_mean_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for i in range(200):
        x = rng.normal(size=10)
        found = bootstrap(lambda rows, x=x: float(x[rows].mean()), np.arange(10), draws=200, seed=i)  # type: ignore[misc]
        held += found.low <= 0 <= found.high
    assert 0.915 <= held / 200 <= 0.985  # 95 % give or take two and a quarter standard errors; plain percentiles hold some 90 %
