"""Figures of single-cell variability hold what they should."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from pci_core.analysis.trees import grow
from pci_core.analysis.variability import SCORES, branches
from pci_core.analysis.variability_truth import detection
from pci_core.cells import Channel
from pci_core.errors import CellTableError, UnknownNameError
from pci_core.plots import variability as figures

CHANNELS = (Channel("protein", "protein"), Channel("marker", "structural"))


def words(figure: object) -> str:
    return " ".join(t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")))  # type: ignore[attr-defined]


@pytest.fixture
def proteins() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"protein": [f"P{i}" for i in range(30)], **{n: rng.normal(size=30) for n in SCORES}, "n_cells": 10})
    return table


@pytest.fixture
def truth() -> pd.Series:
    return pd.Series(["location"] * 4 + ["intensity"] * 4 + [""] * 22, index=[f"P{i}" for i in range(30)])


def test_ranked_proteins(proteins: pd.DataFrame, truth: pd.Series) -> None:
    figure = figures.ranked(proteins, truth=truth, note="SIMULATED cells", n_named=3)
    drawn = np.concatenate([np.c_[line.get_xdata(), line.get_ydata()] for line in figure.axes[0].lines])
    drawn = drawn[np.argsort(drawn[:, 0])]
    assert np.array_equal(drawn[:, 1], np.sort(proteins["combined"])[::-1])
    text, best = words(figure), proteins.sort_values("combined")["protein"].iloc[-1]
    assert best in text and "varies in location (4)" in text and "300 cells of 30 proteins" in text and "SIMULATED cells" in text
    assert "varies" not in words(figures.ranked(proteins))
    with pytest.raises(UnknownNameError, match="Did you mean spread"):
        figures.ranked(proteins, "spreads")
    with pytest.raises(CellTableError):
        figures.ranked(proteins.assign(combined=np.nan))


def test_detections(proteins: pd.DataFrame, truth: pd.Series) -> None:
    table = detection(proteins, truth, draws=20)
    figure = figures.detections(table)
    for axes, column in zip(figure.axes, ("ap", "auroc"), strict=True):
        shown = {round(float(line.get_xdata()[0]), 6) for line in axes.lines if len(line.get_xdata()) == 1}
        assert shown == {round(v, 6) for v in table[column]}
    assert "any variation (8)" in words(figure) and "bootstrap over proteins" in words(figure)
    with pytest.raises(CellTableError, match="not known"):
        figures.detections(table[:0])


def test_dendrogram_with_crops_of_each_branch() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 4)) + np.repeat([0, 20], [12, 18])[:, None]
    tree = grow(x, [str(i) for i in range(30)], linkage="ward")
    branch = branches(tree, 2, min_size=3)
    crops = rng.integers(0, 200, (30, 2, 16, 16)).astype(np.uint8)
    phenotype = np.where(np.arange(30) < 12, "near", "far")
    figure = figures.dendrogram(tree, branch, crops, CHANNELS, "Cells of GENE", phenotype=phenotype, um_per_px=0.3, note="real cells")
    trunk = figure.axes[0]
    lines = next(c for c in trunk.collections if isinstance(c, LineCollection))
    assert len(lines.get_segments()) == 29
    assert max(y for s in lines.get_segments() for y in s[:, 1]) == tree.merges[-1, 2]
    assert len(trunk.patches) == 30  # the strip of phenotypes
    assert sum(len(a.images) for a in figure.axes) == 20  # ten crops a branch
    text = words(figure)
    assert "branch 1 (" in text and "near" in text and "30 cells" in text and "µm" in text and "real cells" in text
    assert to_hex(figures.branch_colour(1)) != to_hex(figures.branch_colour(2)) != to_hex(figures.branch_colour(0))
    plain = figures.dendrogram(tree, np.zeros(30, int), crops, CHANNELS, "no branches")
    assert "in no branch (30 cells)" in words(plain) and "px" in words(plain)
    with pytest.raises(CellTableError, match="30 cells, but there are 29 crops"):
        figures.dendrogram(tree, branch, crops[:29], CHANNELS, "")


def test_field_with_boxes() -> None:
    field = np.random.default_rng(0).integers(0, 200, (2, 100, 120))
    cells = pd.DataFrame({"y": [20.0, 60.0], "x": [30.0, 90.0]})
    figure = figures.boxed_field(field, CHANNELS, cells, np.array([1, 2]), 16, 0.5, "Field f", note="SIMULATED cells")
    boxes = [p for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    assert {(p.get_x(), p.get_y(), p.get_width()) for p in boxes} == {(22.0, 12.0, 16), (82.0, 52.0, 16)}
    assert {to_hex(p.get_edgecolor()) for p in boxes} == {"#ffffff", *(figures.branch_colour(b).lower() for b in (1, 2))}
    assert "2 cells of one field of view" in words(figure) and "µm" in words(figure)
    with pytest.raises(CellTableError):
        figures.boxed_field(field, CHANNELS, cells, np.array([1]), 16, None, "")
