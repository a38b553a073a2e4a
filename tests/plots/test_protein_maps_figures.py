"""Figures of protein maps: one panel an experiment with shared colours, crops under it, agreement with chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pci_core.analysis.maps import ALL_CELLS, CORRELATION, DISJOINT, OVERLAP
from pci_core.cells import CellDataset
from pci_core.errors import CellTableError
from pci_core.plots import protein_maps as figures


def agreement(correlation: bool = True) -> pd.DataFrame:
    rows = []
    for first, second, kind in (("A", "B", ALL_CELLS), ("A", "A", DISJOINT), ("A", "B", DISJOINT)):
        for measure in (OVERLAP, CORRELATION)[: 1 + correlation]:
            rows.append((first, second, kind, measure, 0.5, 0.4, 0.6, 0.1, 0.2, 0.01, 0.02, 68, 17))
    columns = ["first", "second", "cells", "measure", "value", "low", "high", "chance", "chance_high", "p", "p_within"]
    return pd.DataFrame(rows, columns=[*columns, "n_proteins", "n_classes"])


def test_maps_with_crops(make_cells: Callable[..., CellDataset], texts: Callable[[Figure], str]) -> None:
    dataset = make_cells()
    planes = {name: np.random.default_rng(i).normal(size=(6, 2)) for i, name in enumerate(("one", "other"))}
    labels = np.array(["a", "b", "", "a", "b", "b"])
    examples = {"one": (dataset, {"a": [0, 1], "b": [6]}), "other": (dataset, {"a": [2], "c": []})}
    figure = figures.protein_maps(planes, labels, "Maps", examples=examples, note="SIMULATED cells")
    told = texts(figure)
    assert all(
        t in told for t in ("one", "other", "1  a", "2  b", "several locations", "6 proteins, 5 of them in 2 classes", "SIMULATED cells")
    )
    assert "crops: protein yellow" in told and "µm" in told
    assert sum(len(a.images) for a in figure.axes) == 4
    for name in planes:  # a number of its class a protein, the same colour in either map
        axes = next(a for a in figure.axes if a.get_title() == name)
        assert sorted(t.get_text() for t in axes.texts) == ["1", "1", "2", "2", "2"]
        assert len({(t.get_text(), t.get_color()) for t in axes.texts}) == 2
    assert "crops" not in texts(figures.protein_maps(planes, labels, "Maps"))


def test_many_proteins_are_points(texts: Callable[[Figure], str]) -> None:
    plane = np.random.default_rng(0).normal(size=(400, 2))
    assert "numbers stand where a class is densest" in texts(figures.protein_maps({"one": plane}, np.repeat(["a", "b"], 200), "Maps"))


def test_maps_that_cannot_be_drawn() -> None:
    with pytest.raises(CellTableError, match=r"map of 'one' has shape \(3, 2\), expected \(2, 2\)"):
        figures.protein_maps({"one": np.zeros((3, 2))}, np.array(["a", "b"]), "Maps")
    with pytest.raises(CellTableError, match="0 maps with 1 classes"):
        figures.protein_maps({}, np.array(["a"]), "Maps")
    with pytest.raises(CellTableError, match="1 maps with 36 classes"):
        figures.protein_maps({"one": np.zeros((36, 2))}, np.array([f"c{i:02d}" for i in range(36)]), "Maps")


def test_agreement(texts: Callable[[Figure], str]) -> None:
    figure = figures.agreement(agreement(), "Agreement", note="SIMULATED cells")
    told = texts(figure)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["A\nand B", "A,\nits two halves"]
    assert [a.get_xlabel() for a in figure.axes] == [OVERLAP, CORRELATION]
    assert all(t in told for t in (ALL_CELLS, DISJOINT, "permuted", "68 proteins, 17 classes", "SIMULATED cells"))
    assert len(figures.agreement(agreement(correlation=False), "Agreement").axes) == 1
    with pytest.raises(CellTableError, match="no agreement"):
        figures.agreement(agreement().iloc[:0], "Agreement")


def test_overlap_by_k(texts: Callable[[Figure], str]) -> None:
    curve = pd.DataFrame({"first": "A", "second": "B", "k": [1, 5], "value": [0.3, 0.5], "chance": [0.1, 0.2]})
    figure = figures.overlap_by_k(curve, "Overlap", note="SIMULATED cells", n_proteins=68)
    assert all(t in texts(figure) for t in ("A and B", "chance", "68 proteins", "SIMULATED cells"))
    assert list(figure.axes[0].get_xticks()) == [1, 5]
    with pytest.raises(CellTableError, match="no overlap"):
        figures.overlap_by_k(curve.iloc[:0], "Overlap", n_proteins=0)
