"""The discriminant: scikit-learn's direction, and no cell placed by what its own image taught."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from pci_core.analysis.discriminant import crossed, discriminants
from pci_core.errors import AnalysisNeedsError


@pytest.mark.parametrize("shape", [(60, 8), (20, 40)])
def test_the_discriminant_is_scikit_learns(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x, second = rng.normal(size=shape), np.arange(shape[0]) < shape[0] // 3
    x[second] += 0.5
    for s, ours in zip((0.1, 0.7), discriminants(x, second, (0.1, 0.7)), strict=True):
        theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s, priors=[0.5, 0.5]).fit(x, second).coef_[0]
        assert ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) == pytest.approx(1, abs=1e-6)


def test_sets_of_one_point_each() -> None:
    found = discriminants(np.array([[0.0, 0.0], [2.0, 1.0]]), np.array([False, True]), (0.1, 0.5))
    assert np.array_equal(found, [[2, 1], [2, 1]])


def test_nothing_is_learned_from_the_own_unit() -> None:
    # noise in many dimensions, few cells: a discriminant that saw them tells its own cells apart perfectly
    rng = np.random.default_rng(0)
    x, second, units = rng.normal(size=(40, 60)), np.arange(40) < 20, np.arange(40) // 2
    placed = crossed(x, second, np.ones(40, bool), units)
    right = ((placed > 0) == second).mean()
    assert 0.2 < right < 0.8  # 40 guesses: 0.5 +- 0.16 in 95 of 100 cases
    x[second] += 1
    assert ((crossed(x, second, np.ones(40, bool), units) > 0) == second).mean() > 0.9


def test_a_unit_that_holds_all_of_one_set() -> None:
    x, second = np.random.default_rng(0).normal(size=(6, 2)), np.array([True, True, True, False, False, False])
    with pytest.raises(AnalysisNeedsError, match="none can be left out"):
        crossed(x, second, np.ones(6, bool), np.array([0, 0, 0, 0, 1, 1]))
