"""Dots with intervals: one row a feature set, one panel a question, one mark a way of answering it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pci_core.plots import style

_COLOURS = (style.BLUE, style.GREEN, style.PURPLE, style.ORANGE, style.SKY, style.BLACK)
_MARKERS = ("o", "s", "^", "D", "v", "P")


def dots(
    table: pd.DataFrame,
    title: str,
    xlabel: str,
    *,
    panel: str,
    series: str,
    labels: Mapping[str, str] | None = None,
    marks: Mapping[str, float] | None = None,
    mark_label: str = "",
    note: str = "",
    foot: str = "",
) -> Figure:
    """Show values with their intervals by feature set.

    Parameters
    ----------
    table : DataFrame
        ``features, value, low, high`` and the columns `panel` and `series`.
    title, xlabel : str
    panel, series : str
        Columns: one panel, and one colour and shape, for each value.
    labels : mapping of str to str, optional
        How values of `series` are written.
    marks : mapping of str to float, optional
        A line to draw in a panel, such as guessing or the highest possible value.
    mark_label : str
        What the line is.
    note, foot : str
        Under the figure: on which cells; counts and what the bars are.

    Raises
    ------
    UnknownNameError, CellTableError
        A column is missing; a feature set stands twice in one place.
    """
    table = style.pick(table, ["features", "value", "low", "high", panel, series])
    style.once(table, "features", panel, series)
    names, panels, ways = (list(dict.fromkeys(table[c])) for c in ("features", panel, series))
    figure = Figure(figsize=(3.7 * len(panels) + 1.9, 0.17 * (len(ways) + 1) * len(names) + 1.9), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    low = float(np.nanmin(table[["value", "low"]].to_numpy()))
    for axes, which in zip(grid, panels, strict=True):
        part = table[table[panel] == which]
        for line in part.itertuples():
            i = ways.index(getattr(line, series))
            y = names.index(line.features) + 0.22 * (i - (len(ways) - 1) / 2)
            if np.isfinite(line.low):
                axes.plot([line.low, line.high], [y, y], color=_COLOURS[i % 6], lw=1.6)
            axes.plot(line.value, y, _MARKERS[i % 6], color=_COLOURS[i % 6], ms=5.5, mec="white", mew=0.5, zorder=3)
        style.set_names(axes, names)
        mark = (marks or {}).get(which, np.nan)
        if np.isfinite(mark):
            axes.axvline(mark, color=style.BLACK, lw=1, ls=":", zorder=2)
        axes.set_xlim(min(-0.02, low - 0.03), 1.03)
        axes.set_title(str(which), fontsize=9)
        axes.set_xlabel(xlabel, fontsize=9)
    handles = [
        Line2D([], [], color=_COLOURS[i % 6], marker=_MARKERS[i % 6], ms=5.5, lw=1.6, label=(labels or {}).get(w, str(w)))
        for i, w in enumerate(ways)
    ]
    if marks and mark_label:
        handles.append(Line2D([], [], color=style.BLACK, lw=1, ls=":", label=mark_label))
    style.head(figure, title, handles)
    style.foot(figure, foot, note)
    return figure
