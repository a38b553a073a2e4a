"""Figures of distances between images: by location (figure 2B), within and across cell lines (table 2)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pci_core.analysis.cell_lines import DIFFERENT, FIRST, FIVE, SAME, SCALINGS
from pci_core.analysis.distances import ALL_TERMS
from pci_core.errors import CellTableError
from pci_core.plots import style

_OTHERS = (style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.BLACK)
_MARKERS = ("s", "^", "v", "P", "X")


def by_term(
    terms: Mapping[str, pd.DataFrame], chosen: str, title: str, *, paper: Mapping[str, float] | None = None, note: str = ""
) -> Figure:
    """Draw the normalised distance of every location, the chosen feature set with its interval (the paper's figure 2B).

    Parameters
    ----------
    terms : mapping of str to DataFrame
        By feature set, see `pci_core.analysis.distances.score_terms`; up to five besides the chosen one.
    chosen : str
        The one drawn with intervals and sorted by.
    title : str
    paper : mapping of str to float, optional
        The paper's mean over its 18 locations by feature set; that of `chosen` is drawn.
    note : str
        On which cells, e.g. ``SIMULATED cells``.

    Raises
    ------
    CellTableError
        The chosen feature set is not among them, or there are too many.
    """
    if chosen not in terms or len(terms) > 1 + len(_OTHERS):
        raise CellTableError(f"'{chosen}' and up to {len(_OTHERS)} other feature sets can be drawn, got {', '.join(terms)}.")
    own = terms[chosen].sort_values("normalised", key=lambda v: v.where(terms[chosen]["term"] != ALL_TERMS, -np.inf))
    rows = {term: i for i, term in enumerate(own["term"])}
    figure = Figure(figsize=(8.0, 0.23 * len(own) + 1.9), layout="constrained")
    axes = figure.subplots()
    _rows(axes, [f"{t} ({n})" for t, n in zip(own["term"], own["n_proteins"], strict=True)], bold=0)
    handles = []
    others = [name for name in terms if name != chosen]
    for name, colour, marker in zip(others, _OTHERS, _MARKERS, strict=False):
        at = terms[name][terms[name]["term"].isin(rows)]
        axes.plot(at["normalised"], at["term"].map(rows), ls="", marker=marker, color=colour, ms=4, alpha=0.8, mew=0)
        handles.append(Line2D([], [], ls="", marker=marker, color=colour, ms=5, label=style.set_label(name)))
    _interval(axes, own["normalised"], own["low"], own["high"], np.arange(len(own)), style.BLUE)
    handles.insert(0, Line2D([], [], color=style.BLUE, marker="o", ms=5, label=style.set_label(chosen)))
    if paper and chosen in paper:
        style.paper_mark(axes, paper[chosen], 0)
        handles.append(style.paper_handle())
    axes.axvline(0, color="black", lw=1, ls=":")
    axes.axhline(0.5, color="#777777", lw=0.8)
    axes.set_xlabel("normalised distance of images of one location (0: as far as images of other locations)", fontsize=8.5)
    style.head(figure, title, handles)
    last = own.iloc[0]
    told = f"{last['n_cells']:,} cells, {last['n_proteins']:,} proteins of one location, number of proteins in brackets"
    style.foot(figure, told, note, "lines: 95 % intervals over proteins")
    return figure


def cell_lines(table: pd.DataFrame, title: str, *, note: str = "") -> Figure:
    """Draw the normalised distance within and across cell lines, one row a feature set (the paper's table 2).

    Parameters
    ----------
    table : DataFrame
        From `pci_core.analysis.cell_lines.side_by_side`.
    title : str
    note : str
    """
    return _two_scalings(
        table, {SAME: ("o", style.BLUE), DIFFERENT: ("s", style.ORANGE)}, title, "normalised distance of images of one location", note,
        "lines: 95 % intervals over proteins", "diamonds: the paper's table 2, upper same, lower different lines",
    )  # fmt: skip


def nearest(table: pd.DataFrame, title: str, *, note: str = "") -> Figure:
    """Draw how often a protein is nearest to itself in another cell line, one row a feature set.

    Parameters
    ----------
    table : DataFrame
        From `pci_core.analysis.cell_lines.side_by_side`.
    title : str
    note : str
    """
    kinds = {FIRST: ("o", style.BLUE), FIVE: ("s", style.ORANGE)}
    figure = _two_scalings(
        table, kinds, title, "share of proteins", note, "lines: 95 % intervals over proteins",
        "dotted: order by chance; dashed: proteins of the same location first, else by chance",
    )  # fmt: skip
    for axes in figure.axes:
        axes.set_xlim(0, 1)
        for what, (_, colour) in kinds.items():
            row = table[table["what"] == what].iloc[0]
            axes.axvline(row["chance"], color=colour, lw=1, ls=":")
            axes.axvline(row["location_only"], color=colour, lw=1, ls="--")
    return figure


def _two_scalings(table: pd.DataFrame, kinds: Mapping[str, tuple[str, str]], title: str, unit: str, note: str, *told: str) -> Figure:
    table = table[table["what"].isin(kinds)]
    if table.empty:
        raise CellTableError("no score of cell lines to draw.")
    names = list(dict.fromkeys(table["features"]))
    scalings = [s for s in SCALINGS if (table["scaled"] == s).any()]
    figure = Figure(figsize=(1.9 + 3.3 * len(scalings), 0.42 * len(names) + 2.0), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(scalings), sharex=True, sharey=True))
    for axes, scaling in zip(panels, scalings, strict=True):
        style.set_names(axes, names)
        for shift, (what, (marker, colour)) in zip((-0.18, 0.18), kinds.items(), strict=True):
            at = table[(table["scaled"] == scaling) & (table["what"] == what)].set_index("features").reindex(names)
            y = np.arange(len(names)) + shift
            _interval(axes, at["value"], at["low"], at["high"], y, colour, marker)
            style.paper_mark(axes, at["paper"].tolist(), y.tolist(), size=5)
        if unit.startswith("normalised"):
            axes.axvline(0, color="black", lw=1, ls=":")
        axes.set_title(f"features scaled {scaling}", fontsize=9)
        axes.set_xlabel(unit, fontsize=8.5)
    handles = [Line2D([], [], color=c, marker=m, ms=5, label=what) for what, (m, c) in kinds.items()]
    drawn = [*told]
    if table["paper"].notna().any():
        handles.append(style.paper_handle())
    else:
        drawn = [t for t in told if not t.startswith("diamonds")]
    style.head(figure, title, handles)
    style.foot(figure, note, *drawn)
    return figure


def _interval(axes: Axes, x: pd.Series, low: pd.Series, high: pd.Series, y: np.ndarray, colour: str, marker: str = "o") -> None:
    axes.hlines(y, low, high, color=colour, lw=1.4, zorder=3)
    axes.plot(x, y, ls="", marker=marker, color=colour, ms=5, zorder=3)


def _rows(axes: Axes, names: list[str], bold: int) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.get_yticklabels()[bold].set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    for row in range(0, len(names), 2):
        axes.axhspan(row - 0.5, row + 0.5, color=style.BAND, lw=0, zorder=0)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
