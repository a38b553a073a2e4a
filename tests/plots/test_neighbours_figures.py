"""Figures of a search hold every protein of the class, by every method, and say what they were computed on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from pci_core.analysis import trees
from pci_core.errors import CellTableError
from pci_core.plots import neighbours as figures
from pci_core.plots import style

NAMES = [f"P{i}" for i in range(12)]
MEMBER = np.isin(np.arange(12), [0, 3, 7])
NOTE = "SIMULATED cells, made-up"


def ranking(seed: int = 0) -> np.ndarray:
    return np.concatenate([[0], np.random.default_rng(seed).permutation(11) + 1])


def test_rank_strip_names_the_class(texts: Callable[[Figure], str]) -> None:
    ranks = {"dendrogram": ranking(), "euclidean": ranking(1)}
    figure = figures.rank_strip(ranks, NAMES, MEMBER, "Near P0", term="rim", k=4, note=NOTE, n_cells=99)
    told = texts(figure)
    for rank in ranks.values():
        assert f"P3 {rank[3]}" in told and f"P7 {rank[7]}" in told
    assert "P0 0" not in told  # the query is not ranked
    assert "nearest 4" in told and "12 proteins, 99 cells" in told and NOTE in told and "Near P0" in told
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["dendrogram", "Euclidean distance"]
    with pytest.raises(CellTableError, match="all 12 proteins"):
        figures.rank_strip({"dendrogram": ranking()[:5]}, NAMES, MEMBER, "", term="rim", k=4)


def test_rank_strip_of_thousands(texts: Callable[[Figure], str]) -> None:
    rank = np.random.default_rng(0).permutation(3000) + 1
    figure = figures.rank_strip({"euclidean": rank}, [str(i) for i in rank], np.arange(3000) < 100, "", term="rim", k=32)
    texts(figure)
    assert not figure.axes[0].texts  # a hundred names would cover one another


def test_precision_recall(texts: Callable[[Figure], str]) -> None:
    hits = {"dendrogram": np.array([True, False, True]), "correlation": np.array([False, True, True])}
    figure = figures.precision_recall(hits, {"dendrogram": 0.83, "correlation": 0.58}, 0.4, "Rim", note=NOTE, n_cells=9)
    first = figure.axes[0].lines[0]
    np.testing.assert_allclose(np.array(first.get_data()), [[0.5, 1], [1, 2 / 3]])
    told = texts(figure)
    assert "dendrogram (AP 0.83)" in told and "chance (0.40)" in told and "2 of the class among 3 ranked proteins" in told and NOTE in told
    with pytest.raises(CellTableError, match="no recall to draw"):
        figures.precision_recall({"dendrogram": np.zeros(3, bool)}, {"dendrogram": 0}, 0.1, "")


def test_the_dendrogram_around_a_query_keeps_its_heights(texts: Callable[[Figure], str]) -> None:
    grown = trees.grow(np.random.default_rng(0).normal(size=(20, 4)), [f"P{i}" for i in range(20)])
    heights = squareform(hierarchy.cophenet(grown.merges))
    some = [5, 2, 19, 11, 7]
    figure = figures.branch(
        heights[np.ix_(some, some)], [f"P{i}" for i in some], np.array([1, 0, 1, 0, 0], bool), "Around P5",
        term="rim", locations=pd.Series(list("vwxyz"), index=[f"P{i}" for i in some]), n_proteins=20, note=NOTE,
    )  # fmt: skip
    labels = figure.axes[0].get_yticklabels()
    assert {t.get_text() for t in labels} == {"P5  v", "P2  w", "P19  x", "P11  y", "P7  z"}
    assert [t.get_text() for t in labels if t.get_fontweight() == "bold"] == ["P5  v"]
    assert {t.get_text() for t in labels if t.get_color() == style.BLUE} == {"P5  v", "P19  x"}
    drawn = {round(float(x), 9) for path in figure.axes[0].collections[0].get_paths() for x in path.vertices[:, 0]}
    assert drawn == {round(float(h), 9) for h in heights[np.ix_(some, some)].ravel()}  # 0 and the four heights at which they join
    assert "5 of 20 proteins" in texts(figure) and "the query in bold" in texts(figure)
    with pytest.raises(CellTableError, match="at least two leaves"):
        figures.branch(np.zeros((1, 1)), ["P0"], np.zeros(1, bool), "", term="rim")


def test_searches(texts: Callable[[Figure], str]) -> None:
    terms = pd.DataFrame(
        {"term": ["a", "rim"], "n": [9, 5], "average_precision": [0.9, 0.6], "low": [0.8, 0.4], "high": [1, 0.8], "chance": 0.1}
    )
    counts = pd.DataFrame(
        {"queries": [1, 1, 2, 2], "combine": ["mean", "nearest"] * 2, "average_precision": 0.5, "worst": 0.2, "best": 0.9, "chance": 0.1}
    )
    figure = figures.searches(terms, counts, "Terms", term="rim", note=NOTE, n_proteins=40)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["a (9)", "rim (5)"]
    assert len(figure.axes[1].lines) == 3  # two ways to combine, and chance
    assert "40 proteins" in texts(figure) and NOTE in texts(figure)
    texts(figures.searches(terms, counts.iloc[:0], "Terms", term="rim"))
    with pytest.raises(CellTableError, match="no class of at least two"):
        figures.searches(terms.iloc[:0], counts, "", term="rim")
