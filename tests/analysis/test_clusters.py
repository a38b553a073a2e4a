"""Clusters of a dendrogram against scikit-learn's HDBSCAN, every possible cut, and cases worked out by hand."""

from __future__ import annotations

import itertools

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from pci_core.analysis import clusters, trees
from pci_core.errors import AnalysisNeedsError, CellTableError, ParameterError, UnknownNameError


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


@pytest.mark.parametrize(
    ("linkage", "metric"), [("average", m) for m in trees.METRICS] + [(n, "euclidean") for n in ("ward", "complete", "single")]
)
def test_separate_groups_are_found_without_their_number(linkage: str, metric: str) -> None:
    x, code = blobs()
    found = clusters.cut(trees.grow(x, names(x), linkage=linkage, metric=metric), min_size=4)
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


def test_correlation_is_cut_as_the_distance_of_rows_of_one_length() -> None:
    x = blobs(apart=1.5, features=20)[0]
    tree = trees.grow(x, names(x), metric="correlation", linkage="single")  # single linkage merges in the same order for both
    unit = x - x.mean(1, keepdims=True)
    same = trees.grow(unit / np.linalg.norm(unit, axis=1, keepdims=True), names(x), linkage="single")
    assert adjusted_rand_score(clusters.cut(tree, min_size=3), clusters.cut(same, min_size=3)) == 1
    for a, b in zip(clusters._condense(tree, 3), clusters._condense(same, 3), strict=True):
        assert a.mass == pytest.approx(b.mass)


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
    with pytest.raises(ParameterError, match=r"n_clusters is 3\.5; it must be a whole number"):
        clusters.cut(tree, n_clusters=3.5)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="min_size is '5'; it must be a whole number"):
        clusters.cut(tree, min_size="5")  # type: ignore[arg-type]
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


def made_cells(n_proteins: int = 20, cells: int = 4, seed: int = 0) -> anndata.AnnData:
    """Cells of proteins of two kinds, one cell of no protein, and a feature of one value."""
    rng = np.random.default_rng(seed)
    protein = np.repeat(np.arange(n_proteins), cells)
    x = rng.normal(size=(len(protein), 6)) + 4 * rng.normal(size=(2, 6))[protein % 2]
    x[:, 5] = 7
    names = [f"P{p:02d}" for p in protein]
    names[0] = ""
    return anndata.AnnData(x.astype(np.float32), obs=pd.DataFrame({"protein": names}, index=[f"c{i}" for i in range(len(names))]))


def test_proteins_are_averaged_scaled_and_clustered() -> None:
    cells = made_cells()
    found = clusters.cluster_proteins(cells, metric="euclidean")
    x = np.asarray(found.proteins.X)
    np.testing.assert_allclose(x[:, :5].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(x[:, :5].std(0), 1, atol=1e-5)
    assert (x[:, 5] == 0).all()
    assert found.count == 2 and adjusted_rand_score(found.labels, np.arange(20) % 2) == 1
    assert found.proteins.obs["n_cells"].tolist() == [3] + [4] * 19
    members = found.members()
    assert sorted(members["1"] + members["2"]) == found.proteins.obs_names.tolist()
    place = dict(zip(found.proteins.obs_names, found.tree.place(), strict=True))
    assert [place[p] for p in members["1"] + members["2"]] == list(range(20))


def test_cells_that_cannot_be_clustered_are_said() -> None:
    cells = made_cells()
    with pytest.raises(AnalysisNeedsError, match=r"at least 10 values of 'protein' .* the cells have 1 \(P03\)"):
        clusters.cluster_proteins(cells[12:16].copy())
    flat = cells.copy()
    flat.X = np.ones((80, 6), np.float32)
    with pytest.raises(AnalysisNeedsError, match="all 6 features have one value"):
        clusters.cluster_proteins(flat)
    with pytest.raises(UnknownNameError, match="unknown linkage 'averge'. Did you mean average"):
        clusters.cluster_proteins(cells, linkage="averge")
    with pytest.raises(UnknownNameError, match="unknown column 'gene'"):
        clusters.cluster_proteins(cells, by="gene")
    with pytest.raises(ParameterError, match="allows 1 to"):
        clusters.cluster_proteins(cells, n_clusters=11)
    chain = anndata.AnnData(
        np.c_[2.0 ** np.arange(12), np.zeros(12)].astype(np.float32),
        obs=pd.DataFrame({"protein": list("abcdefghijkl")}, index=[f"c{i}" for i in range(12)]),
    )
    with pytest.raises(AnalysisNeedsError, match="the rule finds no clusters"):
        clusters.cluster_proteins(chain, linkage="single", metric="euclidean")


def test_the_most_common_location_counts_every_term() -> None:
    assert clusters.common_location(pd.Series(["Cytosol;Nucleoli", "Nucleoli", None, "Vesicles"])) == ("Nucleoli", 2)
    assert clusters.common_location(pd.Series(["b", "a"])) == ("a", 1)
    assert clusters.common_location(pd.Series(["", None])) == ("", 0)


def test_features_of_one_value_are_not_in_their_dendrogram() -> None:
    found = clusters.cluster_proteins(made_cells(), metric="euclidean")
    values, tree = clusters.feature_tree(found)
    assert values.shape == (20, 5) and tree.names == ("0", "1", "2", "3", "4")
    few = clusters.cluster_proteins(made_cells()[:, [0, 5]].copy(), metric="euclidean")
    with pytest.raises(AnalysisNeedsError, match="1 of 2 do"):
        clusters.feature_tree(few)
