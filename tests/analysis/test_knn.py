"""Neighbours and votes for every k against scikit-learn, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from pci_core.analysis import knn
from pci_core.analysis.knn import constant_features, neighbours, neighbours_each, neighbours_in, standardise, vote, votes

KS = (1, 5, 11, 25, 50)


def made_up(n: int = 150, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    code = rng.integers(0, classes, n)
    return rng.normal(size=(n, 6)) * [1, 2, 30, 1, 1, 0.1] + code[:, None] * 0.6, code, rng.integers(0, 15, n)


def by_hand(x: np.ndarray, code: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
    """Fit scikit-learn once for every group, on all other cells."""
    out = np.empty(len(code), int)
    for g in np.unique(groups):
        own = groups == g
        out[own] = KNeighborsClassifier(k, algorithm="brute").fit(x[~own], code[~own]).predict(x[own])
    return out


@pytest.mark.parametrize("block", [7, 512])
def test_every_k_of_one_search_equals_scikit_learn(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "_BLOCK", block)
    x, code, groups = made_up()
    x = StandardScaler().fit_transform(x)
    near = neighbours_each(standardise(x), max(KS), [None, groups])
    for found, left_out in zip(near, (np.arange(len(x)), groups), strict=True):
        predicted = votes(found, code, KS)
        for k in KS:
            np.testing.assert_array_equal(predicted[k], by_hand(x, code, left_out, k))


def test_one_way_at_a_time_gives_the_same_as_several_at_once() -> None:
    x, _, groups = made_up()
    x = standardise(x)
    cell, group, again = neighbours_each(x, 20, [None, groups, None])
    np.testing.assert_array_equal(cell, neighbours(x, 20))
    np.testing.assert_array_equal(group, neighbours(x, 20, groups))
    np.testing.assert_array_equal(again, cell)  # what was struck out for the group is back
    assert (groups[group] != groups[:, None]).all()


def test_neighbours_in_another_set_equal_scikit_learn() -> None:
    x, code, _ = made_up()
    train, test = slice(0, 100), slice(100, None)
    scaler = StandardScaler().fit(x[train])
    near = neighbours_in(standardise(x[test], x[train]), standardise(x[train]), max(KS))
    for k in KS:
        model = KNeighborsClassifier(k, algorithm="brute").fit(scaler.transform(x[train]), code[train])
        np.testing.assert_array_equal(vote(near, code[train], k), model.predict(scaler.transform(x[test])))


def test_fewer_cells_than_k_leave_places_empty() -> None:
    x = np.array([[0.0], [1.0], [3.0]], np.float32)
    np.testing.assert_array_equal(neighbours(x, 4), [[1, 2, -1, -1], [0, 2, -1, -1], [1, 0, -1, -1]])
    np.testing.assert_array_equal(neighbours_in(x[:1], x[1:], 3), [[0, 1, -1]])
    near = neighbours(x, 4, np.zeros(3, int))
    np.testing.assert_array_equal(votes(near, np.array([0, 1, 1]), [1, 4])[4], [-1, -1, -1])


def test_votes_by_hand() -> None:
    code = np.array([2, 1, 1, 0, 2])
    near = np.array([[0, 1, 2, 3], [3, 0, 4, 1], [4, -1, -1, -1]])
    found = votes(near, code, [1, 2, 3, 4, 9])
    np.testing.assert_array_equal(found[1], [2, 0, 2])
    np.testing.assert_array_equal(found[2], [1, 0, 2])  # a tie goes to the lower code
    np.testing.assert_array_equal(found[3], [1, 2, 2])
    np.testing.assert_array_equal(found[4], [1, 2, 2])
    np.testing.assert_array_equal(found[9], found[4])  # no more neighbours are known


def test_constant_features_are_0_even_where_their_mean_is_rounded() -> None:
    x = np.full((1000, 2), 0.1, np.float32)  # the mean of 0.1 is not 0.1 in binary
    x[:, 1] = np.arange(1000)
    assert constant_features(x).tolist() == [True, False]
    scaled = standardise(x)
    assert (scaled[:, 0] == 0).all() and scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[:, 1].std(), 1, rtol=1e-6)  # float32 sums of 1,000 values
    assert (standardise(x[:10] + 5, x)[:, 0] == 0).all()  # constant where it was learned: says nothing elsewhere
