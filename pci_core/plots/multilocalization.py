"""Figures of proteins of two locations (the paper's figure 5) and of how well a score tells their fraction."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pci_core.analysis.multilocalization import SCORES, check_score
from pci_core.errors import CellTableError, unknown_name
from pci_core.plots import style

_SETS = ("first", "second", "both")
_COLOURS = {"first": style.BLUE, "second": style.GREEN, "both": style.ORANGE}
_MARKERS = ("o", "s", "^", "D")
_TRUTHS = {
    ("both", "cells"): "cells of both locations",
    ("all", "cells"): "with cells of one alone",
    ("both", "images"): "means of images",
    ("both", "cells within images"): "cells within their image",
}


def _check(scores: pd.DataFrame, name: str) -> None:
    check_score(name)
    if not len(scores):
        raise CellTableError("no scored cell to draw.")


def violins(
    scores: pd.DataFrame,
    images: Sequence[str],
    *,
    name: str = "ratio",
    titles: Mapping[str, str] | None = None,
    note: str = "",
    seed: int = 0,
) -> Figure:
    """Show the score of all cells as violins and that of single cells of some images as dots (figure 5).

    Parameters
    ----------
    scores : DataFrame
        From `pci_core.analysis.multilocalization.score`.
    images : sequence of str
        Images to show cell by cell.
    name : str
        Which score.
    titles : mapping of str to str, optional
        What to write under an image; its name by default.
    note : str
        On which cells.
    seed : int
        Of the sideways scatter of the dots.

    Raises
    ------
    UnknownNameError, CellTableError
        No such score or image; no cell.
    """
    _check(scores, name)
    first, second = scores.attrs.get("first", "first"), scores.attrs.get("second", "second")
    places = len(_SETS) + len(images)
    figure = Figure(figsize=(1.15 * places + 1.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="#888888", lw=0.8, ls=":")
    ticks = []
    for i, which in enumerate(_SETS):
        part = scores.loc[scores["set"] == which, name].to_numpy()
        _violin(axes, i, part, _COLOURS[which])
        told = {"first": f"{first}\nalone", "second": f"{second}\nalone", "both": f"{first} and\n{second}"}[which]
        ticks.append(f"{told}\nn = {len(part):,}")
    rng = np.random.default_rng(seed)
    for i, image in enumerate(images, len(_SETS)):
        part = scores.loc[(scores["image"] == image) & (scores["set"] == "both"), name].to_numpy()
        if not len(part):
            raise unknown_name("image", image, sorted(scores["image"].unique()))
        axes.plot(i + rng.uniform(-0.2, 0.2, len(part)), part, "o", ms=3.2, mfc="black", mec="white", mew=0.3, alpha=0.85)
        lines = [line for text in str((titles or {}).get(image, image)).split("\n") for line in textwrap.wrap(text, 15)]
        ticks.append("\n".join(lines) + f"\nn = {len(part)}")
    if images:
        axes.axvline(len(_SETS) - 0.5, color="#BBBBBB", lw=0.8)
    axes.set_xticks(range(places), ticks, fontsize=8)
    axes.set_xlim(-0.6, places - 0.4)
    axes.set_ylabel(f"nearer to {first}  ←  score  →  nearer to {second}", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    unit = scores.attrs.get("unit", "image")
    handles = [
        Line2D([], [], color="black", lw=5, label="middle half of the cells"),
        Line2D([], [], ls="", marker="o", mfc="white", mec="black", ms=5, label="median"),
    ]
    if images:
        handles.append(Line2D([], [], ls="", marker="o", color="black", ms=3.2, label="cells of one image"))
    style.head(figure, f"Between {first} and {second}: {SCORES[name].format(unit=unit)}", handles)
    proteins = f" of {scores['protein'].nunique()} proteins" if "protein" in scores else f" of {scores['image'].nunique()} images"
    style.foot(figure, f"{len(scores):,} cells{proteins}", note, "a violin's width is the share of cells, all cell lines together")
    return figure


def _violin(axes: Axes, x: float, values: np.ndarray, colour: str) -> None:
    if len(values) > 1 and np.ptp(values) > 0:
        drawn = axes.violinplot([values], [x], widths=0.85, showextrema=False)
        for body in drawn["bodies"]:  # type: ignore[attr-defined]
            body.set(facecolor=colour, edgecolor=colour, alpha=0.55)
    low, middle, high = np.percentile(values, [25, 50, 75])
    axes.plot([x, x], [low, high], color="black", lw=5, solid_capstyle="butt", zorder=3)
    axes.plot(x, middle, "o", mfc="white", mec="black", ms=5, zorder=4)


def against_fraction(scores: pd.DataFrame, scale: float, *, name: str = "ratio", note: str = "") -> Figure:
    """Show the score of every cell against its known fraction, with medians and the one-parameter calibration.

    Parameters
    ----------
    scores : DataFrame
        From `pci_core.analysis.multilocalization.score`, with known fractions.
    scale : float
        Of the calibration, see `pci_core.analysis.fractions.Calibrated`; NaN draws none.
    name : str
        Which score.
    note : str
        On which cells.

    Raises
    ------
    UnknownNameError, CellTableError
        No such score; no known fraction.
    """
    _check(scores, name)
    known = scores[np.isfinite(scores["fraction"])]
    if not len(known):
        raise CellTableError("no fraction is known of these cells, so there is nothing to compare the score with.")
    first, second = scores.attrs.get("first", "first"), scores.attrs.get("second", "second")
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    few = known["fraction"].nunique() <= 12
    rng = np.random.default_rng(0)
    for which in _SETS:
        part = known[known["set"] == which]
        aside = rng.uniform(-0.035, 0.035, len(part)) if few or which != "both" else 0.0
        axes.scatter(part["fraction"] + aside, part[name], s=7, color=_COLOURS[which], alpha=0.35, lw=0, rasterized=True)
    middle, values = _medians(known[known["set"] == "both"], name, few)
    axes.plot(middle, values, "o", color="black", ms=6, mfc="white", mew=1.5, zorder=4)
    handles = [
        Line2D([], [], ls="", marker="o", color=_COLOURS[s], ms=5, label=t)
        for s, t in (("first", f"{first} alone"), ("second", f"{second} alone"), ("both", "both"))
        if (known["set"] == s).any()
    ]
    handles.append(Line2D([], [], ls="", marker="o", color="black", mfc="white", mew=1.5, ms=6, label="median of both"))
    if np.isfinite(scale):
        f = np.linspace(0.02, 0.98, 200)
        low, high = known[name].min(), known[name].max()
        line = np.log(f / (1 - f)) / scale
        shown = (line >= low) & (line <= high)
        axes.plot(f[shown], line[shown], color=style.VERMILLION, lw=1.5, zorder=3)
        handles.append(Line2D([], [], color=style.VERMILLION, lw=1.5, label="calibration, one parameter"))
    axes.set_xlabel(f"known share of the protein in {second}", fontsize=9)
    axes.set_ylabel(f"score (positive: nearer to {second})", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    unit = scores.attrs.get("unit", "image")
    style.head(figure, f"Score and fraction: {SCORES[name].format(unit=unit)}", handles)
    units = known.loc[known["set"] == "both", "unit"].nunique()
    of = f"{len(known):,} cells, those of both locations from {units} {unit}{'s' if units != 1 else ''}"
    style.foot(figure, of, note, "dots of equal fraction are spread sideways" if few else "dots at 0 and 1 are spread sideways")
    return figure


def _medians(both: pd.DataFrame, name: str, few: bool) -> tuple[np.ndarray, np.ndarray]:
    if few:
        found = both.groupby("fraction")[name].median()
        return found.index.to_numpy(), found.to_numpy()
    bins = pd.cut(both["fraction"], np.linspace(0, 1, 11), include_lowest=True)
    found = both.groupby(bins, observed=True)[["fraction", name]].median()
    return found["fraction"].to_numpy(), found[name].to_numpy()


def agreements(tables: Mapping[str, pd.DataFrame], *, unit: str = "image", note: str = "") -> Figure:
    """Show the rank correlation of every score with the known fraction, one panel a pair of locations.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        By pair, from `pci_core.analysis.fractions.agreement`.
    unit : str
        What the intervals are over.
    note : str
        On which cells.

    Raises
    ------
    CellTableError
        No table has a row.
    """
    tables = {pair: t for pair, t in tables.items() if len(t)}
    if not tables:
        raise CellTableError("no fraction is known of any cell, so there is no agreement to draw.")
    looked = [k for k in _TRUTHS if any(((t["cells"] == k[0]) & (t["of"] == k[1])).any() for t in tables.values())]
    figure = Figure(figsize=(4.3 * len(tables) + 1.6, 0.95 * len(looked) + 1.7), layout="constrained")
    grid = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
    colours = (style.BLACK, style.BLUE, style.GREEN, style.PURPLE)
    for axes, (pair, table) in zip(grid, tables.items(), strict=True):
        for row, (cells, of) in enumerate(looked):
            part = table[(table["cells"] == cells) & (table["of"] == of)].set_index("score")
            for i, name in enumerate(n for n in SCORES if n in part.index):
                line, y = part.loc[name], row + 0.17 * (i - 1.5)
                if np.isfinite(line["low"]):
                    axes.plot([line["low"], line["high"]], [y, y], color=colours[i], lw=1.6)
                axes.plot(line["spearman"], y, _MARKERS[i], color=colours[i], ms=5.5, mec="white", mew=0.5, zorder=3)
            if len(part) and part["highest"].iloc[0] < 0.9995:
                axes.plot([part["highest"].iloc[0]] * 2, [row - 0.4, row + 0.4], color=style.VERMILLION, lw=1.5, zorder=2)
        for row in range(0, len(looked), 2):
            axes.axhspan(row - 0.5, row + 0.5, color=style.BAND, lw=0, zorder=0)
        axes.axvline(0, color="black", lw=0.8, ls=":")
        axes.set_title(pair, fontsize=9)
        axes.set_xlabel("Spearman's rank correlation", fontsize=9)
        axes.set_xlim(min(-0.02, np.nanmin(table[["low", "spearman"]].to_numpy()) - 0.03), 1.03)
        axes.set_ylim(len(looked) - 0.5, -0.5)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    grid[0].set_yticks(range(len(looked)), [_TRUTHS[k] for k in looked], fontsize=8.5)
    handles = [
        Line2D([], [], marker=_MARKERS[i], color=colours[i], ms=5.5, lw=1.6, label=text.format(unit=unit))
        for i, text in enumerate(SCORES.values())
    ]
    if any((t["highest"] < 0.9995).any() for t in tables.values()):
        handles.append(Line2D([], [], color=style.VERMILLION, lw=1.5, label="highest that ties of the known fractions allow"))
    figure.legend(handles=handles, title="Score against the known fraction", loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    told = [f"{pair}: {int(t['n_cells'].max()):,} cells, {int(t['n_units'].max())} {unit}s" for pair, t in tables.items()]
    style.foot(figure, *told, note, f"bars: 95 % bootstrap over {unit}s")
    return figure
