"""Figures of variants of the training: what each loss sees of a pair, what each changes, and what features know that they should not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

from pci_core.plots import style

_CELL, _NET, _LOSS = "#DDECF7", "#F2F2F2", "#FBE3D6"
_ACROSS = 4  # panels in a row


def losses() -> Figure:
    """Draw which part of a pair each pretext task sees, and what its loss compares; a drawing, nothing is measured.

    Returns
    -------
    Figure
        Three panels: inpainting, contrast, redundancy.
    """
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    panels = figure.subplots(1, 3)
    _inpainting(panels[0])
    both = "two random changes\nof the whole cells"
    _alike(panels[1], "contrast", both, "near each other, far from\ncells of other images")
    _alike(panels[2], "redundancy", both, "near each other; over the batch each\nnumber varies and says something else")
    kinds = {_CELL: "what is seen", _NET: "what learns", _LOSS: "what the loss asks"}
    handles = [Patch(fc=c, ec="black", lw=0.7, label=label) for c, label in kinds.items()]
    style.head(figure, "What each pretext task sees of a pair of cells", handles)
    style.foot(
        figure,
        "drawn, not measured",
        "thick frame: the source cell encoder, the only part that is kept",
        "inpainting+contrast adds the first two losses",
    )
    return figure


def _inpainting(axes: Axes) -> None:
    _stage(axes, "inpainting (the paper)")
    _box(axes, (0.5, 8.2), "source cell\nprotein and markers", _CELL)
    _box(axes, (5.5, 8.2), "target cell\nmarkers alone", _CELL)
    _box(axes, (0.5, 5.6), "source cell encoder", _NET, kept=True)
    _box(axes, (5.5, 5.6), "target marker encoder", _NET)
    _box(axes, (3.0, 3.0), "decoder", _NET)
    _box(axes, (1.8, 0.4), "painted protein = the target's,\npixel by pixel", _LOSS, width=6.4)
    _arrows(axes, ((2.5, 8.2), (2.5, 7.2)), ((7.5, 8.2), (7.5, 7.2)), ((2.5, 5.6), (4.2, 4.6)), ((7.5, 5.6), (5.8, 4.6)), ((5, 3), (5, 2)))


def _alike(axes: Axes, title: str, seen: str, asked: str) -> None:
    _stage(axes, title)
    _box(axes, (0.5, 8.2), "source cell\nprotein and markers", _CELL)
    _box(axes, (5.5, 8.2), "target cell\nprotein and markers", _CELL)
    _box(axes, (0.5, 5.6), "source cell encoder", _NET, kept=True)
    _box(axes, (5.5, 5.6), "the same encoder", _NET, kept=True)
    _box(axes, (0.5, 3.0), "projection head", _NET)
    _box(axes, (5.5, 3.0), "the same head", _NET)
    _box(axes, (1.0, 0.4), asked, _LOSS, width=8)
    for x in (2.5, 7.5):
        _arrows(axes, ((x, 8.2), (x, 7.2)), ((x, 5.6), (x, 4.6)), ((x, 3.0), (x, 2.0)))
    axes.text(5, 7.7, seen, ha="center", va="center", fontsize=7, style="italic")


def _stage(axes: Axes, title: str) -> None:
    axes.set(xlim=(0, 10), ylim=(0, 10.2))
    axes.set_title(title, fontsize=10)
    axes.axis("off")


def _box(axes: Axes, at: tuple[float, float], text: str, colour: str, kept: bool = False, width: float = 4.0) -> None:
    shape = "round,pad=0,rounding_size=0.25"
    axes.add_patch(FancyBboxPatch(at, width, 1.6, boxstyle=shape, fc=colour, ec="black", lw=2.2 if kept else 0.7))
    axes.text(at[0] + width / 2, at[1] + 0.8, text, ha="center", va="center", fontsize=8)


def _arrows(axes: Axes, *ways: tuple[tuple[float, float], tuple[float, float]]) -> None:
    for begin, end in ways:
        axes.add_patch(FancyArrowPatch(begin, end, arrowstyle="-|>", mutation_scale=10, lw=0.9, color="black", shrinkA=0, shrinkB=0))


def spoken(variant: str) -> str:
    """Return a variant's name for a figure, where a plus would be taken for what stands behind the name of a feature set."""
    return variant.replace("+", " and ")


def differences(
    table: pd.DataFrame, panels: Mapping[str, tuple[str, str]], baseline: str, title: str, *, note: str = "", foot: str = ""
) -> Figure:
    """Show what each variant changes against the paper's method, to the right where it is better.

    Parameters
    ----------
    table : DataFrame
        ``cells, variant, measure, better, difference, difference_low, difference_high, n_pairs`` of
        `pci_core.analysis.overview.compared`.
    panels : mapping of str to (str, str)
        Heading of a panel to (cells, measure).
    baseline : str
        Whose difference to itself is left out.
    title, note, foot : str

    Returns
    -------
    Figure
        One panel a measure. Filled marks: the 95 % interval over seeds does not hold 0. Open ones: it does, or there is none.

    Raises
    ------
    UnknownNameError, CellTableError
        A column is missing, or a variant stands twice.
    """
    wanted = ["cells", "variant", "measure", "better", "difference", "difference_low", "difference_high", "n_pairs"]
    table = style.pick(table, wanted)
    table = style.pick(table[table["variant"] != baseline], wanted)
    style.once(table, "cells", "variant", "measure")
    names = list(dict.fromkeys(table["variant"]))
    lines = -(-len(panels) // _ACROSS)
    across = min(_ACROSS, len(panels))
    figure = Figure(figsize=(2.2 * across + 2.2, lines * (0.17 * len(names) + 0.6) + 1.3), layout="constrained")
    grid = figure.subplots(lines, across, squeeze=False, sharey=True).ravel()
    for axes in grid[len(panels) :]:
        axes.axis("off")
    for axes, (label, (cells, measure)) in zip(grid, panels.items(), strict=False):
        for line in table[(table["cells"] == cells) & (table["measure"] == measure)].itertuples():
            sign, y = 1 if line.better == "more" else -1, names.index(line.variant)
            ends = sorted((sign * line.difference_low, sign * line.difference_high))
            sure = bool(np.isfinite(ends).all() and (ends[0] > 0 or ends[1] < 0))
            if np.isfinite(ends).all():
                axes.plot(ends, [y, y], color=style.BLUE, lw=1.3)
            axes.plot(sign * line.difference, y, "o", color=style.BLUE, mfc=style.BLUE if sure else "white", ms=4.5, mew=1, zorder=3)
        style.set_names(axes, [spoken(n) for n in names])
        axes.axvline(0, color=style.BLACK, lw=0.8, ls=":", zorder=1)
        axes.set_title(label.replace(", ", ",\n", 1), fontsize=8)
        axes.tick_params(labelsize=7.5)
    handles = [
        Line2D([], [], color=style.BLUE, marker="o", ms=4.5, mfc=fill, lw=1.3, label=text)
        for fill, text in ((style.BLUE, "interval without 0"), ("white", "interval holds 0, or none"))
    ]
    style.head(figure, title, handles)
    style.foot(figure, f"right of the line: better than {baseline}; each panel has its own scale", foot, note)
    return figure


def nuisances(table: pd.DataFrame, location: str, title: str, *, note: str = "", foot: str = "") -> Figure:
    """Show how well features tell each nuisance (R²) beside how well they tell the location.

    Parameters
    ----------
    table : DataFrame
        ``variant, measure, value``: measures ``nuisance R², <name>`` and `location`.
    location : str
        Measure of the location.
    title, note, foot : str

    Returns
    -------
    Figure
        A heat map with its numbers: variants by nuisances, and the location as a map of its own.

    Raises
    ------
    UnknownNameError, CellTableError
        A column is missing, or a variant stands twice.
    """
    table = style.pick(table, ["variant", "measure", "value"])
    style.once(table, "variant", "measure")
    wide = table.pivot(index="variant", columns="measure", values="value").reindex(list(dict.fromkeys(table["variant"])))
    parts = [c for c in dict.fromkeys(table["measure"]) if c.startswith("nuisance R², ")]
    style.pick(table[table["measure"].isin(parts)], ["value"])  # none at all is told
    shown = [parts, [location] if location in wide else []]
    width = 0.85 * (len(parts) + 1) + 3.6
    figure = Figure(figsize=(width, 0.27 * len(wide) + 1.9), layout="constrained")
    grid = figure.subplots(1, 2, width_ratios=[len(parts), 1], sharey=True)
    for axes, columns, name, best in zip(grid, shown, ("Blues", "Greens"), (0.8, 1.0), strict=True):
        _heat(axes, wide[columns], mpl.colormaps[name], best)
    grid[0].set_yticks(range(len(wide)), [spoken(n) for n in wide.index], fontsize=8.5)
    grid[0].set_title("R² of what should not be known (less is better)", fontsize=9)
    grid[1].set_title("location\n(more)", fontsize=9)
    style.head(figure, title, [])
    style.foot(figure, "mean over seeds", foot, note)
    return figure


def _heat(axes: Axes, values: pd.DataFrame, colours: mpl.colors.Colormap, most: float) -> None:
    axes.imshow(values.to_numpy(float), cmap=colours, vmin=0, vmax=most, aspect="auto")
    axes.set_xticks(range(values.shape[1]), [_short(c) for c in values], fontsize=8)
    for (i, j), value in np.ndenumerate(values.to_numpy(float)):
        if np.isfinite(value):
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color="white" if value > 0.6 * most else "black")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _short(measure: str) -> str:
    return measure.removeprefix("nuisance R², ").replace(" of ", " of\n")


def long(table: pd.DataFrame, panels: Mapping[str, tuple[str, str]], series: Sequence[tuple[str, pd.DataFrame]] = ()) -> pd.DataFrame:
    """Put tables of `pci_core.analysis.overview.compared` into the form of `pci_core.plots.dots.dots`.

    Parameters
    ----------
    table : DataFrame
        Taken where `series` is empty.
    panels : mapping of str to (str, str)
        Heading of a panel to (cells, measure).
    series : sequence of (str, DataFrame)
        One colour and shape each, e.g. one table a layer.

    Returns
    -------
    DataFrame
        ``features`` (the variant), ``value, low, high, panel, series``.
    """
    parts = []
    for name, part in series or [("", table)]:
        for label, (cells, measure) in panels.items():
            found = part[(part["cells"] == cells) & (part["measure"] == measure)]
            parts.append(found.assign(features=found["variant"].map(spoken), panel=label, series=name))
    return pd.concat(parts, ignore_index=True)[["features", "value", "low", "high", "panel", "series"]]
