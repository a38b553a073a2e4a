"""Dendrograms, beside scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist

from pci_core.analysis import pairwise, trees
from pci_core.errors import CellTableError, UnknownNameError


@pytest.mark.parametrize(("linkage", "metric"), [("average", "euclidean"), ("ward", "euclidean"), ("average", "correlation")])
def test_merges_are_scipys(linkage: str, metric: str) -> None:
    x = np.random.default_rng(0).normal(size=(40, 6))
    tree = trees.grow(x, [f"p{i}" for i in range(40)], linkage=linkage, metric=metric)
    wanted = hierarchy.linkage(pdist(x, metric), linkage)
    np.testing.assert_allclose(tree.merges[:, 2], wanted[:, 2])  # the heights; the two below a node may stand in either order
    np.testing.assert_array_equal(np.sort(tree.merges[:, :2], 1), np.sort(wanted[:, :2], 1))
    assert sorted(tree.order) == list(range(40)) and len(tree) == 40


def test_walking_by_hand() -> None:
    tree = trees.grow(np.array([[0.0], [10.0], [1.0], [14.0]]), "abcd")  # ((a c) (b d))
    assert tree.parents().tolist() == [4, 5, 4, 5, 6, 6, -1]
    assert set(tree.leaves(4)) == {0, 2} and set(tree.leaves(6)) == {0, 1, 2, 3} and tree.leaves(1).tolist() == [1]
    assert tree.leaves(6).tolist() == tree.order.tolist()
    assert tree.place()[tree.order].tolist() == [0, 1, 2, 3]
    assert {"".join(tree.names[i] for i in tree.order)} <= {"acbd", "cabd", "acdb", "cadb", "bdac", "bdca", "dbac", "dbca"}


@pytest.mark.parametrize("metric", ["euclidean", "correlation"])
def test_merges_of_many_rows_are_scipys(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise, "_FEW", 50)
    x = np.random.default_rng(1).normal(size=(2100, 20))
    tree = trees.grow(x, [""] * len(x), metric=metric)
    wanted = hierarchy.linkage(pdist(x, metric), "average")
    np.testing.assert_array_equal(tree.merges[:, [0, 1, 3]], wanted[:, [0, 1, 3]])  # no two distances are within rounding
    np.testing.assert_allclose(tree.merges[:, 2], wanted[:, 2], rtol=1e-10)  # see test_pairwise.py
    np.testing.assert_array_equal(tree.order, hierarchy.leaves_list(wanted))


def test_bad_input() -> None:
    x = np.eye(4)
    with pytest.raises(UnknownNameError, match="unknown linkage 'averge'. Did you mean average"):
        trees.grow(x, "abcd", linkage="averge")
    with pytest.raises(UnknownNameError, match="Ward"):
        trees.grow(x, "abcd", linkage="ward", metric="correlation")
    with pytest.raises(CellTableError, match="at least two rows, found 1"):
        trees.grow(x[:1], "a")
    with pytest.raises(CellTableError, match="NaN"):
        trees.grow(np.where(x == 1, np.nan, 0), "abcd")
    with pytest.raises(CellTableError, match="1 of 5 rows to cluster are rows of one value"):
        trees.grow(np.vstack([x, np.full(4, 0.1)]), "abcde", metric="correlation")  # the mean of 0.1 is not 0.1 in binary
    with pytest.raises(CellTableError, match="1 of 5 rows to cluster are rows of one value, which have no cosine"):
        trees.grow(np.vstack([x, np.zeros(4)]), "abcde", metric="cosine")
