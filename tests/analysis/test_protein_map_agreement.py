"""Agreement of protein maps: by hand, against scipy, and that the permutation tests tell like maps from unlike ones."""

from __future__ import annotations

import itertools

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr

from pci_core.analysis import agreement, maps
from pci_core.errors import AnalysisNeedsError, CellTableError, UnknownNameError


def experiment(seed: int, noise: float = 0.5, proteins: int = 24, classes: int = 6, fields: int = 2) -> anndata.AnnData:
    """Cells of proteins whose places are those of their class (and the same in every experiment), plus noise."""
    places = np.random.default_rng(99).normal(size=(classes, 6)) * 3
    rng = np.random.default_rng(seed)
    rows = [(f"P{p:02d}", f"P{p:02d}_f{f}", f"class {p % classes}") for p in range(proteins) for f in range(fields) for _ in range(3)]
    obs = pd.DataFrame(rows, columns=["protein", "field", "location"], index=[f"c{i}" for i in range(len(rows))])
    x = places[[int(r[0][1:]) % classes for r in rows]] + noise * rng.normal(size=(len(rows), 6))
    return anndata.AnnData(x.astype(np.float32), obs=obs)


def test_overlap_by_hand() -> None:
    one = np.array([[0.0], [1.0], [3.0], [7.0], [7.5]])
    other = np.array([[0.0], [1.0], [3.0], [1.4], [20.0]])
    # two nearest, one: 0 {1,2} 1 {0,2} 2 {0,1} 3 {4,2} 4 {3,2}; other: 0 {1,3} 1 {3,0} 2 {3,1} 3 {1,0} 4 {2,3}
    np.testing.assert_allclose(agreement.overlap_by_protein([(one, other)], 2), [0.5, 0.5, 0.5, 0, 1])
    found = agreement.neighbourhood_overlap([(one, other)], 2, permutations=50)
    assert found.value == pytest.approx(0.5) and found.n == 5
    for k in (0, 4):
        with pytest.raises(AnalysisNeedsError, match="found 5 proteins"):
            agreement.neighbourhood_overlap([(one, other)], k)


def test_one_map_agrees_with_itself_and_not_with_noise() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(60, 8)), rng.normal(size=(60, 8))
    same = agreement.neighbourhood_overlap([(one, one)], 5, permutations=300)
    assert same.value == 1 and same.p == pytest.approx(1 / 301)
    assert same.chance == pytest.approx(5 / 59, abs=0.005)  # 300 permutations: standard error below 0.001
    unlike = agreement.neighbourhood_overlap([(one, other)], 5, permutations=300)
    assert unlike.p > 0.05 and unlike.low < 5 / 59 < unlike.high
    both = agreement.neighbourhood_overlap([(one, one), (one, other)], 5, permutations=0)
    assert both.value == pytest.approx((1 + unlike.value) / 2) and np.isnan(both.p)


def test_within_classes_only_what_is_beyond_the_class_counts() -> None:
    rng = np.random.default_rng(1)
    classes = np.repeat(list("abcdef"), 10)
    place = 20 * np.eye(6)[pd.factorize(classes)[0]]
    one, other = place + rng.normal(size=(60, 6)), place + rng.normal(size=(60, 6))
    found = agreement.neighbourhood_overlap([(one, other)], 5, permutations=300)
    inside = agreement.neighbourhood_overlap([(one, other)], 5, within=classes, permutations=300)
    assert found.p < 0.01 and inside.p > 0.05 and inside.value == found.value
    assert inside.chance == pytest.approx(5 / 9, abs=0.02)  # neighbours are among the nine others of the class
    order = agreement._permuted(np.random.default_rng(0), 60, pd.factorize(classes)[0])
    assert (classes[order] == classes).all() and sorted(order) == list(range(60)) and (order != np.arange(60)).any()


def test_class_correlation_is_scipys() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=(20, 5)), rng.normal(size=(20, 3))
    labels = np.array([*"aaaabbbbccccdddd", "", "", "", ""])
    means = [np.array([m[labels == c].mean(0) for c in "abcd"]) for m in (one, other)]
    found = agreement.class_correlation([(one, other)], labels, permutations=2000, draws=50)
    assert found.value == pytest.approx(pearsonr(*(pdist(m) for m in means))[0])
    exact = [pearsonr(pdist(means[0]), pdist(means[1][list(order)]))[0] for order in itertools.permutations(range(4))]
    # all 24 exchanges: the test draws from them; 2,000 draws have a standard error of 0.011
    assert found.p == pytest.approx(np.mean(np.array(exact) >= found.value - 1e-9), abs=0.04)
    assert agreement.class_correlation([(one, one)], labels, permutations=10, draws=10).value == pytest.approx(1)
    with pytest.raises(AnalysisNeedsError, match="at least 4 classes, found 2: a, b"):
        agreement.class_correlation([(one, other)], np.where(np.isin(labels, ["a", "b"]), labels, ""))


def test_class_means_with_repeats() -> None:
    x = np.array([[0.0], [2.0], [10.0], [50.0]])
    code = np.array([0, 0, 1, -1])
    np.testing.assert_allclose(agreement.class_means(x, code), [[1], [10]])
    np.testing.assert_allclose(agreement.class_means(x, code, np.array([1, 1, 0, 3])), [[4 / 3]])  # class 1 was not drawn


def test_nearest_of_the_same_class_by_hand() -> None:
    x = np.array([[0.0], [0.1], [5.0], [5.2], [0.3], [0.05]])
    labels = np.array(["a", "a", "b", "b", "a", ""])  # the last one is not looked at, else it would be the nearest
    found = agreement.nearest_same_class(x, labels, permutations=50)
    assert found.value == 1 and found.n == 5
    assert agreement.nearest_same_class(x, np.array(["a", "b", "b", "a", "", ""]), permutations=50).value == 0
    with pytest.raises(AnalysisNeedsError, match="two classes with at least two proteins each, found 1"):
        agreement.nearest_same_class(x, np.array(["a", "a", "b", "", "", ""]))


def test_means_of_proteins() -> None:
    adata = experiment(0)
    adata.obs.loc["c0", "location"] = "another"
    means = maps.protein_means(adata)
    raw = np.array([np.asarray(adata[adata.obs["protein"] == p].X).mean(0) for p in means.obs_names])
    np.testing.assert_allclose(means.X, (raw - raw.mean(0)) / raw.std(0), atol=1e-4)  # float32 means
    assert means.obs["location"].iloc[:2].tolist() == ["", "class 1"] and (means.obs["n_cells"] == 6).all()
    assert (maps.protein_means(adata, "nowhere").obs["nowhere"] == "").all()
    adata.X[0, 0] = np.inf
    with pytest.raises(CellTableError, match="1 features hold NaN or infinite"):
        maps.protein_means(adata)


def test_what_is_coloured() -> None:
    labels = ["a;b", "a", "a", "b", "", "c", "c", "c"]
    assert maps.shown_classes(labels, 2).tolist() == ["", "a", "a", "", "", "c", "c", "c"]


def test_examples_come_from_many_proteins() -> None:
    table = pd.DataFrame({"protein": ["p"] * 9 + ["q"] * 2 + ["r"], "location": ["Big"] * 11 + ["small"]})
    rows = maps.example_rows(table, "location", "BIG, none", n=3)
    assert list(rows) == ["Big"] and set(table["protein"][rows["Big"][:2]]) == {"p", "q"} and len(rows["Big"]) == 3
    assert list(maps.example_rows(table, "location", "none")) == ["Big", "small"]  # none of those asked for: the most frequent
    assert maps.example_rows(table, "place") == {}


def test_proteins_are_matched_by_name() -> None:
    one, other = maps.protein_means(experiment(0)), maps.protein_means(experiment(1, proteins=30))
    both = maps.match({"one": one, "other": other[::-1]})
    assert list(both["one"].obs_names) == list(both["other"].obs_names) and both["other"].n_obs == 24
    other.obs_names = [f"Q{i}" for i in range(30)]
    with pytest.raises(AnalysisNeedsError, match="at least 5 proteins that are in all of them, found 0 .*P00.*Q0"):
        maps.match({"one": one, "other": other})


def test_halves_share_no_field() -> None:
    cells = {"one": experiment(0, fields=4), "other": experiment(1, fields=3)}
    both = maps.halves(cells)
    for name, other in itertools.product(both, both):
        assert not set(both[name][0].obs["field"]) & set(both[other][1].obs["field"])
    assert sum(h.n_obs for h in both["one"]) == cells["one"].n_obs and both["one"][0].obs.groupby("protein")["field"].nunique().eq(2).all()
    del cells["one"].obs["field"]
    with pytest.raises(UnknownNameError, match="unknown column 'field'"):
        maps.halves(cells)


def test_maps_of_like_experiments_agree() -> None:
    cells = {"one": experiment(0), "other": experiment(1), "noise": experiment(2, noise=60)}
    table = maps.compare_maps(cells, permutations=200, draws=100).set_index(["first", "second", "cells", "measure"]).sort_index()
    assert len(table) == 2 * (3 + 6)  # two measures; three pairs of all cells; three pairs and three experiments in halves
    for kind in (maps.ALL_CELLS, maps.DISJOINT):
        like, unlike = (table.loc[("one", second, kind)] for second in ("other", "noise"))
        assert (like["p"] < 0.01).all() and (unlike["value"] < like["low"]).all() and unlike.loc[maps.OVERLAP, "p"] > 0.05
        assert like.loc[maps.CORRELATION, "value"] > 0.95
    assert (table["n_proteins"] == 24).all() and (table["n_classes"] == 6).all()
    single = maps.compare_maps({k: v[v.obs["field"].str.endswith("f0")].copy() for k, v in cells.items()}, permutations=5, draws=5)
    assert set(single["cells"]) == {maps.ALL_CELLS}  # one field a protein: no halves
    curve = maps.overlap_curve(cells, [1, 5, 90])
    assert curve["k"].tolist() == [1, 5] * 3 and curve["chance"].iloc[1] == pytest.approx(5 / 23)
    assert curve["value"].iloc[1] == pytest.approx(table.loc[("one", "other", maps.ALL_CELLS, maps.OVERLAP), "value"])


def test_too_few_proteins_for_a_map() -> None:
    with pytest.raises(AnalysisNeedsError, match="more than 20 proteins, found 12. Choose a smaller n_neighbors"):
        maps.lay_out(maps.protein_means(experiment(0, proteins=12)))
