"""Figures of distances: every location and feature set has its row, the paper's figure its diamond."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pci_core.analysis import cell_lines
from pci_core.analysis.distances import ALL_TERMS
from pci_core.errors import CellTableError
from pci_core.plots import distances as figures


def terms(shift: float = 0.0) -> pd.DataFrame:
    rows = [("Nucleoli", -0.2), ("Cytosol", -0.9), (ALL_TERMS, -0.55)]
    table = pd.DataFrame(rows, columns=["term", "normalised"])
    table["normalised"] += shift
    return table.assign(
        low=table["normalised"] - 0.1, high=table["normalised"] + 0.1, n_proteins=[3, 4, 7], n_images=9, n_cells=[30, 40, 70]
    )


def table(names: tuple[str, ...] = ("conv3", "mine")) -> pd.DataFrame:
    rows = []
    for name in names:
        for scaling in cell_lines.SCALINGS:
            paper = cell_lines.paper_distances(name) if scaling == cell_lines.SCALINGS[0] else {}
            for i, what in enumerate((*cell_lines.LINES, cell_lines.FIRST, cell_lines.FIVE)):
                rows.append((name, scaling, what, 0.1 * i, 0.1 * i - 0.05, 0.1 * i + 0.05, paper.get(what, np.nan), 0.01, 0.3))
    return pd.DataFrame(rows, columns=["features", "scaled", "what", "value", "low", "high", "paper", "chance", "location_only"])


def test_by_term(texts: Callable[[Figure], str]) -> None:
    figure = figures.by_term(
        {"classic": terms(0.5), "conv3": terms()}, "conv3", "Distances", paper={"conv3": -0.574}, note="SIMULATED cells"
    )
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == [f"{ALL_TERMS} (7)", "Cytosol (4)", "Nucleoli (3)"]  # sorted, the mean first
    told = texts(figure)
    assert all(t in told for t in ("PCI conv3", "classic", "paper (other cells)", "SIMULATED cells", "70 cells, 7 proteins", "95 %"))
    diamonds = [line for line in axes.lines if line.get_marker() == "D"]
    assert [(d.get_xdata()[0], d.get_ydata()[0]) for d in diamonds] == [(-0.574, 0)]
    dots = next(line for line in axes.lines if line.get_marker() == "s")
    np.testing.assert_allclose(sorted(dots.get_xdata()), [-0.4, -0.05, 0.3])
    assert "paper" not in texts(figures.by_term({"mine": terms()}, "mine", "Distances", paper={"conv3": -0.574}))
    for wrong in ({"classic": terms()}, {f"set{i}": terms() for i in range(7)} | {"conv3": terms()}):
        with pytest.raises(CellTableError, match="up to 5 other feature sets"):
            figures.by_term(wrong, "conv3", "Distances")


def test_cell_lines(texts: Callable[[Figure], str]) -> None:
    figure = figures.cell_lines(table(), "Lines", note="SIMULATED cells")
    told = texts(figure)
    assert [a.get_title() for a in figure.axes] == [f"features scaled {s}" for s in cell_lines.SCALINGS]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["PCI conv3", "mine"]
    drawn = np.array([v for line in figure.axes[0].lines if line.get_marker() == "D" for v in line.get_xdata()])
    np.testing.assert_allclose(drawn[np.isfinite(drawn)], [-0.4855, -0.3953])  # the paper's, on the panel that is scaled as it did
    assert not any(np.isfinite(line.get_xdata()).any() for line in figure.axes[1].lines if line.get_marker() == "D")
    assert all(t in told for t in (cell_lines.SAME, cell_lines.DIFFERENT, "paper's table 2", "SIMULATED cells"))
    assert "paper" not in texts(figures.cell_lines(table(("mine",)), "Lines"))
    with pytest.raises(CellTableError, match="no score of cell lines"):
        figures.cell_lines(table().iloc[:0], "Lines")


def test_nearest(texts: Callable[[Figure], str]) -> None:
    figure = figures.nearest(table(), "Again", note="SIMULATED cells")
    told = texts(figure)
    assert "dotted: order by chance" in told and cell_lines.FIRST in told
    assert figure.axes[0].get_xlim() == (0, 1)
    styles = [line.get_linestyle() for line in figure.axes[0].lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2]
    assert styles.count(":") >= 2 and styles.count("--") == 2  # chance and location only, of both shares
