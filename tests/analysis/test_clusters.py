"""Clusters of a dendrogram against scikit-learn's HDBSCAN, every possible cut, and cases worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from pci_core.analysis import clusters, trees
from pci_core.errors import CellTableError, ParameterError


def blobs(sizes: tuple[int, ...] = (12, 9, 15, 7), features: int = 8, apart: float = 6.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Groups of points around well separated centres, and the group of each."""
    rng = np.random.default_rng(seed)
    code = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return rng.normal(size=(len(code), features)) + apart * rng.normal(size=(len(sizes), features))[code], code


def names(x: np.ndarray) -> list[str]:
    return [f"p{i}" for i in range(len(x))]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("min_size", [3, 5])
def test_single_linkage_gives_the_clusters_of_hdbscan(seed: int, min_size: int) -> None:
    x = blobs((14, 11, 20, 8), apart=1.5, seed=seed)[0]  # they overlap, so that leaves fall out on the way
    ours = clusters.cut(trees.grow(x, names(x), linkage="single"), min_size=min_size)
    # with min_samples=1 its mutual reachability is the plain distance, and its tree that of single linkage
    theirs = HDBSCAN(min_cluster_size=min_size, min_samples=1, metric="precomputed", copy=True).fit_predict(squareform(pdist(x)))
    # HDBSCAN's minimum spanning tree may join equal-mass clusters in another order, but labels are the same up to their numbers
    assert adjusted_rand_score(ours, theirs) == 1.0
    assert ((ours == 0) == (theirs == -1)).all()


@pytest.mark.parametrize("linkage", trees.LINKAGES)
def test_separate_groups_are_found_without_their_number(linkage: str) -> None:
    x, code = blobs()
    found = clusters.cut(trees.grow(x, names(x), linkage=linkage), min_size=4)
    clustered = found > 0
    assert adjusted_rand_score(code[clustered], found[clustered]) == 1.0
    assert clustered.mean() > 0.8  # single linkage loses some points at the rim
    assert found.max() == 4


def test_clusters_are_numbered_along_the_dendrogram_and_lie_together() -> None:
    x = blobs(apart=2)[0]
    tree = trees.grow(x, names(x))
    found = clusters.cut(tree, min_size=3)[tree.order]
    first = [int(np.flatnonzero(found == c)[0]) for c in range(1, found.max() + 1)]
    assert first == sorted(first)
    for c in range(1, found.max() + 1):
        where = np.flatnonzero(found == c)
        assert len(where) == where[-1] - where[0] + 1 >= 3


def _every_cut(condensed: list[clusters._Condensed], c: int = 0) -> list[tuple[int, ...]]:
    below = [_every_cut(condensed, p) for p in condensed[c].parts]
    return [(c,), *(sum(pair, ()) for pair in itertools.product(*below))] if below else [(c,)]


@pytest.mark.parametrize("seed", range(4))
def test_no_other_cut_of_so_many_clusters_has_more_mass(seed: int) -> None:
    x = blobs((9, 8, 7, 10, 6), apart=1.2, seed=seed)[0]
    tree = trees.grow(x, names(x))
    condensed = clusters._condense(tree, 3)
    every = _every_cut(condensed)
    for k in {len(c) for c in every}:
        most = max(sum(condensed[i].mass for i in c) for c in every if len(c) == k)
        chosen = clusters._best(condensed, k)
        mass = {c.node: c.mass for c in condensed}
        assert len(chosen) == k == clusters.cut(tree, min_size=3, n_clusters=k).max()
        assert sum(mass[n] for n in chosen) == pytest.approx(most)
    free = clusters._best(condensed, None)
    assert sum(mass[n] for n in free) == pytest.approx(max(sum(condensed[i].mass for i in c) for c in every if len(c) > 1))


def test_masses_by_hand() -> None:
    # on a line: 0, 1, 2 | 10, 11, 12 | 40: single linkage merges at 1, 8 and 28
    x = np.array([0, 1, 2, 10, 11, 12, 40.0])[:, None]
    root, *rest = clusters._condense(trees.grow(x, names(x), linkage="single"), 3)
    # 40 leaves the root where it begins; the other six stay from 28 to 8
    assert root.mass == pytest.approx(6 * (1 / 8 - 1 / 28))
    assert [c.mass for c in rest] == pytest.approx([3 * (1 - 1 / 8)] * 2)
    found = clusters.cut(trees.grow(x, names(x), linkage="single"), min_size=3).tolist()
    assert found in ([1, 1, 1, 2, 2, 2, 0], [2, 2, 2, 1, 1, 1, 0])  # a dendrogram may stand either way round


def test_what_cannot_be_cut_is_said() -> None:
    x = blobs()[0]
    tree = trees.grow(x, names(x))
    with pytest.raises(ParameterError, match=r"n_clusters is 30; this tree of 43 leaves allows 1 to \d clusters of at least 5"):
        clusters.cut(tree, n_clusters=30)
    with pytest.raises(ParameterError, match="n_clusters is 0"):
        clusters.cut(tree, n_clusters=0)
    with pytest.raises(ParameterError, match="min_size is 1; a cluster has at least 2"):
        clusters.cut(tree, min_size=1)
    with pytest.raises(ParameterError, match="only 43 leaves"):
        clusters.cut(tree, min_size=44)
    with pytest.raises(CellTableError, match="same features"):
        clusters.cut(trees.grow(np.ones((4, 3)), "abcd"), min_size=2)
    chain = trees.grow(2.0 ** np.arange(8)[:, None], "abcdefgh", linkage="single")
    assert (clusters.cut(chain, min_size=3) == 0).all()  # no split into two parts of three
    assert (clusters.cut(chain, min_size=3, n_clusters=1) == 1).all()


def test_equal_rows_are_one_cluster() -> None:
    x = np.repeat(np.eye(3), 4, axis=0)
    assert clusters.cut(trees.grow(x, names(x)), min_size=3).tolist() in (
        [a] * 4 + [b] * 4 + [c] * 4 for a, b, c in itertools.permutations((1, 2, 3))
    )


def test_a_deep_tree_needs_no_recursion() -> None:
    x = np.cumsum(1.001 ** np.arange(1600))[:, None]  # single linkage adds one leaf after another
    assert len(clusters.cut(trees.grow(x, names(x), linkage="single"))) == 1600
