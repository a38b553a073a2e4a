"""Scores of a search: counted by hand, against scikit-learn, and chance against every possible order."""

from __future__ import annotations

import itertools

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pci_core.analysis import neighbours, retrieval
from pci_core.errors import AnalysisNeedsError

HITS = np.array([True, False, True, False, False])


def grouped(per_class: int = 5, classes: int = 4, spread: float = 0.1) -> tuple[neighbours.Space, np.ndarray]:
    """Proteins of several classes far apart from each other, and which are of the first class."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, 6)) * 3
    values = np.repeat(centres, per_class, 0) + rng.normal(size=(per_class * classes, 6)) * spread
    names = [f"{'abcdef'[i // per_class]}{i % per_class}" for i in range(len(values))]
    return neighbours.space(anndata.AnnData(values.astype(np.float32), obs=pd.DataFrame(index=names))), np.arange(len(values)) < per_class


def test_by_hand() -> None:
    assert retrieval.average_precision(HITS) == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert retrieval.area(HITS) == pytest.approx(5 / 6)  # of 2 x 3 pairs, one is in the wrong order
    assert retrieval.precision_at(HITS, 2) == 0.5 and retrieval.precision_at(HITS, 4) == 0.5
    assert np.isnan(retrieval.average_precision(~HITS & HITS)) and np.isnan(retrieval.area(HITS | True))


def test_copies_of_a_draw_count_as_in_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(40) < 0.2
    rows = rng.integers(0, 40, 40)
    times = np.bincount(rows, minlength=40)
    assert retrieval.average_precision(hits, times) == pytest.approx(average_precision_score(hits[rows], -rows))
    assert retrieval.area(hits, times) == pytest.approx(roc_auc_score(hits[rows], -rows))
    assert retrieval.precision_at(hits, 10, times) == pytest.approx(hits[np.sort(rows)][:10].mean())


@pytest.mark.parametrize(("n", "m"), [(7, 3), (6, 1), (5, 5)])
def test_chance_is_the_mean_over_all_orders(n: int, m: int) -> None:
    orders = [np.isin(np.arange(n), chosen) for chosen in itertools.combinations(range(n), m)]
    assert retrieval.chance_precision(n, m) == pytest.approx(np.mean([retrieval.average_precision(h) for h in orders]))


def test_score_of_a_perfect_search() -> None:
    space, member = grouped()
    table = retrieval.score(neighbours.ranks(space, [0]), member, k=[8, 1000], draws=200).set_index("what")
    assert list(table.index) == ["average precision", "AUROC", "precision at 4", "precision at 8", "precision at 19"]
    assert table["value"].tolist() == pytest.approx([1, 1, 1, 0.5, 4 / 19])
    np.testing.assert_allclose(table["value"], table["most"])
    assert table.loc["precision at 8", "chance"] == pytest.approx(4 / 19) and table.loc["AUROC", "chance"] == 0.5
    assert table.loc["average precision", "p"] == pytest.approx(1 / 201, abs=1 / 201)  # of 3,876 orders one is as good
    assert (table["n_members"] == 4).all() and (table["n_proteins"] == 19).all()
    assert table.loc["average precision", "low"] == 1  # a perfect order stays perfect, however it is drawn
    assert table.loc["precision at 8", "low"] < 0.5 < table.loc["precision at 8", "high"]


def test_p_is_even_under_chance() -> None:
    rng = np.random.default_rng(1)
    p = []
    for _ in range(100):
        rank = np.concatenate([[0], rng.permutation(30) + 1])
        p.append(retrieval.score(rank, np.arange(31) < 5, draws=50).set_index("what").loc["average precision", "p"])
    assert 0.42 < np.mean(p) < 0.6  # mean of 100 even values: 0.5 with standard error 0.029


def test_nothing_to_score() -> None:
    rank = np.array([0, 1, 2, 3])
    with pytest.raises(AnalysisNeedsError, match="besides the queries 0 of 3"):
        retrieval.score(rank, np.array([True, False, False, False]))
    with pytest.raises(AnalysisNeedsError, match="3 of 3"):
        retrieval.score(rank, np.ones(4, bool))
    terms = pd.Series(["x;y", "", "x"], index=list("ABC"))
    ok, told = retrieval.can_score(np.array([True, False, True]), np.array([0]), terms, "x")
    assert ok and "2 of 3 proteins count as *x* (A, C)" in told
    ok, told = retrieval.can_score(np.array([True, False, False]), np.array([0]), terms, "y")
    assert not ok and "too few" in told and "the terms there are: x, y" in told
    assert "no protein has a location" in retrieval.can_score(np.zeros(3, bool), np.array([0]), pd.Series(["", "", ""]), "x")[1]


def test_each_as_query() -> None:
    space, member = grouped()
    table = retrieval.each_as_query(space, member)
    assert table["query"].tolist() == ["a0", "a1", "a2", "a3", "a4"]
    assert (table["average_precision"] == 1).all() and (table["n_members"] == 4).all() and (table["n_proteins"] == 19).all()
    assert len(retrieval.each_as_query(space, member, most=2)) == 2
    assert not len(retrieval.each_as_query(space, np.arange(20) < 1))
    ranked = neighbours.ranks(space, [6], "euclidean")
    odd = np.isin(np.arange(20), [2, 6, 13])
    one = retrieval.each_as_query(space, odd, "euclidean").set_index("query").loc["b1"]
    others = np.arange(20) != 6
    assert one["average_precision"] == pytest.approx(average_precision_score(odd[others], -ranked[others]))
    assert one["auroc"] == pytest.approx(roc_auc_score(odd[others], -ranked[others]))


def test_each_term_and_several_queries() -> None:
    space, member = grouped()
    scattered = np.arange(20) % 5 == 0
    table = retrieval.each_term(space, {"scattered": scattered, "a": member, "one": np.arange(20) == 3}, draws=50)
    assert table["term"].tolist() == ["a", "scattered"]  # best first, one of a single protein left out
    assert table.loc[0, "average_precision"] == 1 and table.loc[1, "average_precision"] < 0.5 and table["n"].tolist() == [5, 4]
    counts = retrieval.by_number_of_queries(space, member, up_to=3)
    assert counts["queries"].tolist() == [1, 1, 2, 2, 3, 3] and (counts["average_precision"] == 1).all()
    assert counts["sets"].tolist() == [5, 5, 10, 10, 10, 10]
    assert counts["chance"].tolist()[::2] == [retrieval.chance_precision(20 - i, 5 - i) for i in (1, 2, 3)]
    assert len(retrieval.by_number_of_queries(space, np.arange(20) < 2)) == 2
    assert not len(retrieval.by_number_of_queries(space, np.arange(20) < 1))


def test_the_papers_count_stands_beside_its_own_search_only() -> None:
    paper = retrieval.paper_figure("precision at 32", "dendrogram", "MKI67", "Nucleoli rim")
    assert paper["paper"] == 13 / 32
    assert retrieval.paper_figure("precision at 32", "euclidean", "MKI67", "Nucleoli rim") == {}
    assert "13 of 32" in retrieval.paper_told("MKI67", "Nucleoli rim") and retrieval.paper_told("NCL", "Nucleoli rim") == ""


def test_laid_out_for_reading() -> None:
    space, member = grouped()
    scores = pd.concat([retrieval.score(neighbours.ranks(space, [0], m), member, draws=50).assign(method=m) for m in space.methods()])
    wide = retrieval.laid_out(scores)
    assert list(wide.columns) == ["dendrogram", "euclidean", "correlation", "chance", "5 %", "most"]
    assert wide.loc["AUROC", "dendrogram"].startswith("1.00 (1.00 to 1.00), p 0.0")
