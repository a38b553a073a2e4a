"""Figures of clustered proteins: the heat map in dendrogram order (figure 4), clusters by location, their stability."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pci_core.analysis.selection import has_one_term, label_text
from pci_core.analysis.trees import Tree
from pci_core.errors import CellTableError
from pci_core.plots import style

# The paper's colours. Yellow and blue differ for every common kind of colour blindness, and both are bright on black.
YELLOW_BLUE = LinearSegmentedColormap.from_list("yellow_blue", ["#8FD3FF", "#0072B2", "#000000", "#A89C1E", "#FFF36B"])
_BARS = ("#8C8C8C", "#1A1A1A")  # grey and black in turn, as in the paper
_NAMED_ROWS = 160  # up to so many proteins, their names can be read
_NAMED_COLUMNS = 60
_DRAWN_FORKS = 400


def heat_map(
    values: np.ndarray,
    rows: Tree,
    columns: Tree,
    labels: np.ndarray,
    names: Mapping[int, str],
    title: str,
    *,
    note: str = "",
    n_cells: int | None = None,
    limit: float = 2.5,
) -> Figure:
    """Draw the clustered heat map: a row a protein, a column a feature, both in dendrogram order, clusters as bars on the right.

    Parameters
    ----------
    values : ndarray
        (proteins, features) centred and scaled.
    rows, columns : Tree
        Of the proteins and of the features.
    labels : ndarray of int
        (proteins,) cluster of each, 0 = none, see `pci_core.analysis.clusters.cut`.
    names : mapping of int to str
        What stands beside each cluster's bar; where clusters are too thin for that, the largest are named.
    title : str
    note : str
        On which cells, e.g. ``SIMULATED cells``.
    n_cells : int, optional
        How many were averaged.
    limit : float
        The colours end at this many standard deviations.

    Raises
    ------
    CellTableError
        Values or labels that do not fit the trees.
    """
    n, f = len(rows), len(columns)
    if np.shape(values) != (n, f) or len(labels) != n:
        raise CellTableError(f"values of shape {np.shape(values)} and {len(labels)} labels do not fit {n} rows and {f} columns.")
    tall = float(np.clip(0.078 * n + 1.3, 4.5, 11))
    figure = Figure(figsize=(9, tall), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.03, wspace=0.0, hspace=0.0)  # type: ignore[union-attr, call-arg]
    grid = figure.subplots(
        2, 3, squeeze=False, gridspec_kw={"width_ratios": (0.9, 5, 2.1), "height_ratios": (0.4, tall - 1.2)}
    )  # fmt: skip
    grid[0, 0].axis("off")
    grid[0, 2].axis("off")
    _dendrogram(grid[1, 0], rows, upright=False)
    _dendrogram(grid[0, 1], columns, upright=True)
    axes = grid[1, 1]
    shown = np.clip(np.asarray(values, np.float32)[rows.order][:, columns.order], -limit, limit)
    image = axes.imshow(shown, cmap=YELLOW_BLUE, vmin=-limit, vmax=limit, aspect="auto", interpolation="auto", rasterized=True)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if n <= _NAMED_ROWS:
        axes.yaxis.tick_right()
        axes.set_yticks(range(n), [rows.names[i] for i in rows.order], fontsize=4.6)
        axes.tick_params(length=0, pad=1)
    named = _bars(grid[1, 2], np.asarray(labels)[rows.order], names, per_inch=n / (tall - 1.2))
    bar = figure.colorbar(image, cax=grid[0, 2].inset_axes((0.12, 0.62, 0.5, 0.22)), orientation="horizontal", ticks=[-limit, 0, limit])
    bar.ax.tick_params(labelsize=6, length=2, pad=1)
    bar.ax.set_title("mean of a protein's cells, in s.d.", fontsize=6.5, pad=2)
    figure.suptitle(title, fontsize=10)
    count = len(np.unique(labels[labels > 0]))
    cells = f"{n_cells:,} cells, " if n_cells else ""
    told = f"{count} clusters{'' if named == count else f', the {named} largest that leave room named'}"
    loose = int((np.asarray(labels) == 0).sum())
    least = int(np.ceil(n / _DRAWN_FORKS))
    undrawn = f"branches of fewer than {least} proteins not drawn" if least > 2 else ""
    parts = [f"{cells}{n:,} proteins, {f:,} features", told, f"{loose:,} proteins in no cluster" if loose else "", undrawn, note]
    style.foot(figure, *parts)
    return figure


def _dendrogram(axes: Axes, tree: Tree, *, upright: bool) -> None:
    """Draw a dendrogram whose leaves stand at 0, 1, ... along the heat map."""
    at = np.concatenate([tree.place(), np.zeros(len(tree) - 1)])
    height = np.concatenate([np.zeros(len(tree)), tree.merges[:, 2]])
    forks = np.empty((len(tree) - 1, 4, 2))
    for i, (a, b) in enumerate(tree.merges[:, :2].astype(np.int64)):
        top = len(tree) + i
        at[top] = (at[a] + at[b]) / 2
        forks[i] = (at[a], height[a]), (at[a], height[top]), (at[b], height[top]), (at[b], height[b])
    forks = forks[tree.merges[:, 3] >= len(tree) / _DRAWN_FORKS]  # the others would lie on one another
    lines = LineCollection(list(forks if upright else forks[:, :, ::-1]), colors="#444444", linewidths=0.5, rasterized=len(tree) > 1000)
    axes.add_collection(lines)
    along, up = (-0.5, len(tree) - 0.5), (0.0, float(height.max() * 1.02) or 1.0)
    if upright:
        axes.set(xlim=along, ylim=up)
    else:
        axes.set(ylim=along[::-1], xlim=up[::-1])
    axes.axis("off")


def _bars(axes: Axes, labels: np.ndarray, names: Mapping[int, str], per_inch: float) -> int:
    """Draw a bar beside the rows of each cluster and the names of those that leave room, the largest first; return how many."""
    spans = {int(c): np.flatnonzero(labels == c) for c in np.unique(labels) if c > 0}
    room = 0.115 * per_inch  # rows under a line of 7 pt
    taken: list[float] = []
    for c in sorted(spans, key=lambda c: (-len(spans[c]), c)):
        first, last = float(spans[c][0]), float(spans[c][-1])
        axes.plot([0, 0], [first - 0.35, last + 0.35], color=_BARS[c % 2], lw=5, solid_capstyle="butt")
        middle = (first + last) / 2
        if all(abs(middle - t) >= room for t in taken):
            taken.append(middle)
            axes.text(0.05, middle, names.get(c, str(c)), fontsize=7, va="center", ha="left", color=_BARS[1])
    axes.set(xlim=(-0.04, 1), ylim=(len(labels) - 0.5, -0.5))
    axes.axis("off")
    return len(taken)


def composition(labels: np.ndarray, locations: pd.Series, names: Mapping[int, str], title: str, *, note: str = "") -> Figure:
    """Show how many proteins of each location lie in each cluster; those of one location only.

    Parameters
    ----------
    labels : ndarray of int
        (proteins,) cluster of each, 0 = none.
    locations : Series of str
        (proteins,) terms joined by ``;``.
    names : mapping of int to str
        Names of the clusters.
    title, note : str

    Raises
    ------
    CellTableError
        No protein with one location.
    """
    one = has_one_term(locations)
    if not one.any():
        raise CellTableError("no protein has one annotated location, so there is no composition of clusters to draw.")
    found, place = np.asarray(labels)[one], label_text(locations)[one].to_numpy()
    sizes = pd.Series(found[found > 0]).value_counts()
    shown = sorted(int(c) for c in sizes.index[:_NAMED_COLUMNS])
    counts = pd.crosstab(place, found).reindex(columns=[*shown, 0], fill_value=0)
    # the locations in the order of the clusters that hold most of their proteins
    counts = counts.iloc[np.lexsort((-counts[shown].max(axis=1), counts[shown].to_numpy().argmax(axis=1)))]
    table = counts.to_numpy()
    figure = Figure(figsize=(max(6.0, 0.27 * table.shape[1] + 2.8), 0.2 * table.shape[0] + 3.1), layout="constrained")
    axes = figure.subplots()
    axes.imshow(table, cmap="Blues", vmin=0, vmax=max(table.max(), 1) * 1.15, aspect="auto")
    for (y, x), value in np.ndenumerate(table):
        if value:
            axes.text(x, y, f"{value}", fontsize=6.5, ha="center", va="center", color="white" if value > 0.6 * table.max() else "black")
    axes.set_yticks(range(len(counts)), [f"{n} ({r})" for n, r in zip(counts.index, table.sum(1), strict=True)], fontsize=7.5)
    axes.set_xticks(range(len(shown) + 1), [*(names.get(c, str(c)) for c in shown), "in none"], fontsize=7, rotation=90)
    axes.set_xticks(np.arange(len(shown)) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(counts) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="#DDDDDD", lw=0.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_color("#BBBBBB")
    axes.set(xlabel="cluster", ylabel="annotated location (proteins)")
    figure.suptitle(title, fontsize=10)
    left = len(sizes) - len(shown)
    told = f"{one.sum():,} of {len(one):,} proteins, those of one location"
    style.foot(figure, told, f"{left} smaller clusters are not shown" if left else "", note)
    return figure


def stability(table: pd.DataFrame, names: Mapping[int, str], title: str, *, note: str = "", most: int = 60) -> Figure:
    """Show how well each cluster is found again when cells or images are drawn anew.

    Parameters
    ----------
    table : DataFrame
        From `pci_core.analysis.cluster_scores.stability`.
    names : mapping of int to str
        Names of the clusters.
    title, note : str
    most : int
        Only so many clusters are shown, the largest.
    """
    if table.empty:
        raise CellTableError("no cluster whose stability could be drawn.")
    shown = table.nlargest(most, "n_proteins", keep="first").sort_values("jaccard", ascending=False)
    figure = Figure(figsize=(7.5, 0.2 * len(shown) + 1.5), layout="constrained")
    axes = figure.subplots()
    y = np.arange(len(shown))
    axes.hlines(y, shown["low"], shown["high"], color=style.SKY, lw=2.5)
    axes.plot(shown["jaccard"], y, "o", color=style.BLUE, ms=5)
    axes.axvline(0.5, color="black", lw=1, ls=":")
    axes.set_yticks(y, [f"{names.get(c, c)} (n = {k})" for c, k in zip(shown["cluster"], shown["n_proteins"], strict=True)], fontsize=7.5)
    axes.set(ylim=(len(shown) - 0.5, -0.5), xlim=(0, 1.02), xlabel="greatest Jaccard index with a cluster of the draw")
    axes.spines[["top", "right"]].set_visible(False)
    unit, draws = str(table["unit"].iloc[0]), int(table["draws"].iloc[0])
    marks = [
        Line2D([], [], ls="", marker="o", color=style.BLUE, ms=5, label="mean of the draws"),
        Line2D([], [], color=style.SKY, lw=2.5, label="middle 95 %"),
        Line2D([], [], color="black", lw=1, ls=":", label="0.5"),
    ]
    style.head(figure, title, marks)
    fewer = f"the {len(shown)} largest of {len(table)} clusters" if len(shown) < len(table) else f"{len(table)} clusters"
    style.foot(figure, f"{fewer}, {int(table['n_proteins'].sum()):,} proteins", f"{draws} draws of every protein's {unit}s", note)
    return figure
