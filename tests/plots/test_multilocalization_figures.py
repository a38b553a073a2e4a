"""Figures of scores between two locations hold what they should."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection

from pci_core.analysis import fractions
from pci_core.analysis.multilocalization import SCORES
from pci_core.errors import CellTableError, UnknownNameError
from pci_core.plots import dots
from pci_core.plots import multilocalization as figures


@pytest.fixture
def scores() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    which = np.repeat(["first", "second", "both"], 40)
    fraction = np.concatenate([np.zeros(40), np.ones(40), rng.random(40)])
    table = pd.DataFrame({"set": which, "image": np.repeat([f"i{i}" for i in range(12)], 10), "unit": np.repeat(np.arange(12), 10)})
    table["protein"], table["fraction"] = table["image"], fraction
    for name in SCORES:
        table[name] = 2 * fraction - 1 + 0.2 * rng.normal(size=120)
    table.attrs |= {"first": "Here", "second": "There", "unit": "protein"}
    return table


def words(figure: object) -> str:
    return " ".join(t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")))  # type: ignore[attr-defined]


def test_violins_and_the_cells_of_images(scores: pd.DataFrame) -> None:
    figure = figures.violins(scores, ["i8", "i9"], titles={"i8": "GENE"}, note="SIMULATED cells")
    axes = figure.axes[0]
    assert sum(isinstance(c, PolyCollection) for c in axes.collections) == 3
    dotted = [line for line in axes.lines if len(line.get_xdata()) == 10]
    assert len(dotted) == 2
    assert sorted(dotted[0].get_ydata()) == sorted(scores.loc[scores["image"] == "i8", "ratio"])
    text = words(figure)
    assert "own protein out of the means" in text and "SIMULATED cells" in text and "GENE" in text and "120 cells of 12 proteins" in text
    assert "nearer to Here  ←  score  →  nearer to There" in text
    medians = [line.get_ydata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
    assert medians == pytest.approx([scores.loc[scores["set"] == s, "ratio"].median() for s in ("first", "second", "both")])


def test_violins_refuse_what_is_not_there(scores: pd.DataFrame) -> None:
    with pytest.raises(UnknownNameError, match="image 'i99'"):
        figures.violins(scores, ["i99"])
    with pytest.raises(UnknownNameError, match="Did you mean ratio"):
        figures.violins(scores, [], name="ration")
    with pytest.raises(CellTableError):
        figures.violins(scores[:0], [])


@pytest.mark.parametrize("discrete", [False, True])
def test_score_against_fraction(scores: pd.DataFrame, discrete: bool) -> None:
    if discrete:
        scores["fraction"] = scores["fraction"].mul(4).round().div(4)
    axes = figures.against_fraction(scores, 2.0).axes[0]
    assert sum(len(c.get_offsets()) for c in axes.collections) == 120
    curve = max(axes.lines, key=lambda line: len(line.get_xdata()))
    f, s = np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata())
    assert f == pytest.approx(1 / (1 + np.exp(-2 * s)))
    assert len(figures.against_fraction(scores, np.nan).axes[0].lines) == len(axes.lines) - 1
    with pytest.raises(CellTableError, match="no fraction is known"):
        figures.against_fraction(scores.assign(fraction=np.nan), 1.0)


def test_agreement_of_every_score(scores: pd.DataFrame) -> None:
    table = fractions.agreement(scores, draws=20)
    figure = figures.agreements({"Here and There": table, "no pair": table[:0]}, unit="protein", note="real cells")
    assert len(figure.axes) == 1  # a pair without known fractions has no panel
    shown = {round(float(line.get_xdata()[0]), 6) for line in figure.axes[0].lines if len(line.get_xdata()) == 1}
    assert {round(v, 6) for v in table["spearman"]} <= shown
    assert "bars: 95 % bootstrap over proteins" in words(figure).replace("\n", " ")
    with pytest.raises(CellTableError):
        figures.agreements({"no pair": table[:0]})


def test_dots_by_feature_set() -> None:
    rows = [(f, p, s, 0.5, 0.4, 0.6) for f in ("conv3", "classic") for p in ("one", "two") for s in ("a", "b")]
    table = pd.DataFrame(rows, columns=["features", "pair", "score", "value", "low", "high"])
    figure = dots.dots(table, "Title", "x", panel="pair", series="score", labels={"a": "first way"}, marks={"one": 0.9}, mark_label="most")
    assert len(figure.axes) == 2 and "first way" in words(figure) and "most" in words(figure)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["PCI conv3", "classic"]
    assert any(list(line.get_xdata()) == [0.9, 0.9] for line in figure.axes[0].lines)
    with pytest.raises(CellTableError, match="twice"):
        dots.dots(pd.concat([table, table]), "t", "x", panel="pair", series="score")
    with pytest.raises(UnknownNameError):
        dots.dots(table, "t", "x", panel="pairs", series="score")
