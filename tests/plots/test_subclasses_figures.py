"""The heat map shows rows in the order of the dendrogram with their groups; scores stand beside chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pci_core.analysis import trees
from pci_core.errors import CellTableError
from pci_core.plots import subclasses as figures

NOTE = "SIMULATED cells, made-up"


def test_heat_map(texts: Callable[[Figure], str]) -> None:
    x = np.random.default_rng(0).normal(size=(9, 5))
    tree = trees.grow(x, [f"P{i}" for i in range(9)])
    bars = {"cluster": np.array(list("111222222")), "known": np.array(["even", "", "large"] * 3)}
    figure = figures.heat_map(x, tree, bars, "Vesicles", n_cells=77, note=NOTE)
    told = texts(figure)
    assert "9 proteins, 77 cells" in told and NOTE in told and "euclidean distance, average linkage" in told
    assert "known: even" in told and "known: large" in told and "known: |" not in told
    labels = [t.get_text() for axes in figure.axes for t in axes.get_yticklabels()]
    assert labels == [tree.names[i] for i in tree.order]
    drawn = np.asarray(figure.axes[1].images[0].get_array())
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.sort(x[tree.order], axis=1))  # columns are in an order of their own


def test_many_rows_and_one_feature(texts: Callable[[Figure], str]) -> None:
    x = np.random.default_rng(0).normal(size=(120, 1))
    tree = trees.grow(x, [f"P{i}" for i in range(120)])
    figure = figures.heat_map(x, tree, {"cluster": np.array([""] * 120)}, "None in a cluster", rows="images")
    assert "120 images" in texts(figure)
    assert not any(t.get_text() for t in figure.axes[-1].get_yticklabels() if t.get_text().startswith("P"))


def test_bars_that_do_not_fit() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    with pytest.raises(CellTableError, match=r"4 rows was given other numbers of them: \{'cluster': 3\}"):
        figures.heat_map(x, trees.grow(x, list("abcd")), {"cluster": np.array(list("111"))}, "")


def test_recovery(texts: Callable[[Figure], str]) -> None:
    row = {"value": 0.4, "low": 0.1, "high": 0.7, "chance": 0.0, "chance_high": 0.3, "p": 0.01, "n_rows": 9, "n_proteins": 9}
    scores = pd.DataFrame([{"what": w, "level": v} | row for v in ("protein", "image") for w in ("adjusted Rand index", "purity")])
    figure = figures.recovery(scores, "Found again", note=NOTE)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [
        "adjusted Rand index, proteins (p = 0.01)", "adjusted Rand index, images (p = 0.01)",
        "purity, proteins (p = 0.01)", "purity, images (p = 0.01)",
    ]  # fmt: skip
    told = texts(figure)
    assert "9 proteins, 9 images" in told and NOTE in told
    with pytest.raises(CellTableError, match="no score"):
        figures.recovery(scores.iloc[:0], "")
