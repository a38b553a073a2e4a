"""Subclasses within a class of proteins: their heat map and dendrogram, and how well known ones are found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.cluster import hierarchy

from pci_core.analysis.trees import Tree
from pci_core.errors import CellTableError
from pci_core.plots import style

COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, "#F0E442", style.BLACK)
NONE = "#DDDDDD"
_NAMED = 70  # rows; with more their names cannot be read
_LIMIT = 2.5  # standard deviations at which the colours end


def heat_map(
    values: np.ndarray,
    tree: Tree,
    bars: Mapping[str, Sequence[str] | np.ndarray],
    title: str,
    *,
    names: Sequence[str] | None = None,
    n_cells: int | None = None,
    rows: str = "proteins",
    note: str = "",
) -> Figure:
    """Show features of the members of a class in the order of their dendrogram, with bars of their groups.

    Parameters
    ----------
    values : ndarray
        (rows, features), centred and scaled; columns are drawn in the order of their own dendrogram.
    tree : Tree
        Of the rows.
    bars : mapping of str to sequence of str
        Group of each row, by what it is, e.g. its cluster and its true subclass; an empty text is none.
    title : str
    names : sequence of str, optional
        Of the rows, written beside up to 70 of them; by default those of the tree.
    n_cells : int, optional
    rows : str
        What a row is, in the plural.
    note : str
        On which cells, e.g. ``SIMULATED cells``.

    Raises
    ------
    CellTableError
        Values, bars or names that do not fit the tree.
    """
    sizes = {"values": len(values), **{k: len(v) for k, v in bars.items()}, "names": len(tree) if names is None else len(names)}
    wrong = {k: n for k, n in sizes.items() if n != len(tree)}
    if wrong:
        raise CellTableError(f"a heat map of {len(tree)} rows was given other numbers of them: {wrong}.")
    shown = np.asarray(values)[tree.order]
    height = float(np.clip(0.17 * len(tree), 2.2, 9)) + 1.3
    figure = Figure(figsize=(9.5, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.01, wspace=0.0)  # type: ignore[union-attr, call-arg]
    axes = figure.subplots(1, 2 + len(bars), width_ratios=[0.16, 1.0, *[0.035] * len(bars)])
    _dendrogram(axes[0], tree)
    image = axes[1].imshow(
        shown[:, _order(shown)], aspect="auto", cmap="PuOr_r", vmin=-_LIMIT, vmax=_LIMIT, interpolation="nearest", rasterized=True
    )
    axes[1].set(xticks=[], yticks=[])
    axes[1].set_xlabel(f"{values.shape[1]} features", fontsize=8)
    handles: list[Patch | Line2D] = []
    for ax, (what, groups) in zip(axes[2:], bars.items(), strict=True):
        handles += _bar(ax, what, np.asarray(groups).astype(str)[tree.order], len(bars))
    last = axes[-1]
    if len(tree) <= _NAMED:
        texts = np.asarray(tree.names if names is None else names)[tree.order]
        last.yaxis.tick_right()
        last.set_yticks(range(len(tree)), texts, fontsize=6.5 if len(tree) > 20 else 7.5)
        last.tick_params(axis="y", length=0)
    colour_bar = figure.colorbar(image, ax=axes[0], location="bottom", shrink=0.9, aspect=12, pad=0.02, extend="both")
    colour_bar.ax.tick_params(labelsize=6)
    colour_bar.set_label("standard deviations", fontsize=6.5)
    figure.legend(
        handles=handles,
        title=title,
        loc="outside upper center",
        ncols=min(len(handles), 6) or 1,
        fontsize=7.5,
        title_fontsize=10,
        frameon=False,
    )
    told = f"{len(tree)} {rows}" + (f", {n_cells:,} cells" if n_cells is not None else "")
    style.foot(figure, told, f"{tree.metric} distance, {tree.linkage} linkage", note)
    return figure


def _dendrogram(axes: Axes, tree: Tree) -> None:
    with_lines = hierarchy.dendrogram(tree.merges, no_plot=True)
    for y, x in zip(with_lines["icoord"], with_lines["dcoord"], strict=True):
        axes.plot(x, y, color="#555555", lw=0.8)
    axes.set(xlim=(tree.merges[:, 2].max() * 1.03, 0), ylim=(10 * len(tree), 0), xticks=[], yticks=[])  # leaves are 10 apart
    axes.spines[:].set_visible(False)


def _order(values: np.ndarray) -> np.ndarray:
    """Order features so that those alike stand together: (features,)."""
    if values.shape[1] < 3:
        return np.arange(values.shape[1])
    return np.asarray(hierarchy.leaves_list(hierarchy.linkage(values.T, "average")))


def _bar(axes: Axes, what: str, groups: np.ndarray, n_bars: int) -> list[Patch | Line2D]:
    known = sorted({g for g in groups if g}, key=lambda g: (len(g) if g.isdigit() else 0, g))
    # clusters in greys as in the paper, so that they are not taken for the classes beside them
    shades = [str(v) for v in np.resize([0.15, 0.6], len(known))] if what == "cluster" and n_bars > 1 else np.resize(COLOURS, len(known))
    code = np.array([known.index(g) if g else len(known) for g in groups])
    axes.imshow(code[:, None], aspect="auto", cmap=ListedColormap([*shades, NONE]), vmin=0, vmax=len(known), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(what, fontsize=7, rotation=35, ha="left", va="bottom", pad=2)
    if what == "cluster" and n_bars > 1:
        for i, name in enumerate(known):
            at = np.flatnonzero(code == i)
            axes.text(0, at.mean(), name, color="white" if i % 2 == 0 else "black", fontsize=7, ha="center", va="center")
        return []
    return [Patch(color=c, label=f"{what} {g}" if g.isdigit() else f"{what}: {g}") for c, g in zip(shades, known, strict=True)]


def recovery(scores: pd.DataFrame, title: str, *, note: str = "") -> Figure:
    """Show how well known subclasses are found, by level, with intervals and what chance gives.

    Parameters
    ----------
    scores : DataFrame
        From `pci_core.analysis.subclasses.recovery`, with a column ``level``.
    title : str
    note : str
        On which cells, e.g. ``SIMULATED cells``.

    Raises
    ------
    CellTableError
        No score.
    """
    if not len(scores):
        raise CellTableError("no score to draw.")
    measures, levels = list(dict.fromkeys(scores["what"])), list(dict.fromkeys(scores["level"]))
    figure = Figure(figsize=(7.5, 0.55 * len(measures) * len(levels) + 1.3), layout="constrained")
    axes = figure.subplots()
    marks = dict(zip(levels, ("o", "s", "^"), strict=False))
    ticks = []
    for i, what in enumerate(measures):
        for j, level in enumerate(levels):
            row = scores[(scores["what"] == what) & (scores["level"] == level)].iloc[0]
            y = i * (len(levels) + 0.6) + j
            axes.plot([row["chance"], row["chance_high"]], [y, y], color="#C8C8C8", lw=7, solid_capstyle="butt", zorder=1)
            axes.plot([row["low"], row["high"]], [y, y], color=style.BLUE, lw=1.6, zorder=2)
            axes.plot(row["value"], y, marks[level], color=style.BLUE, ms=6, zorder=3)
            text = f"{what}, {level}s" + (f" (p = {row['p']:.2g})" if row["p"] == row["p"] else "")
            ticks.append((y, text))
    axes.set_yticks([t[0] for t in ticks], [t[1] for t in ticks], fontsize=8)
    axes.set(ylim=(ticks[-1][0] + 0.7, -0.7), xlim=(min(-0.05, float(np.nanmin(scores[["low", "value"]])) - 0.03), 1.03))
    axes.axvline(0, color="black", lw=0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    handles = [
        Line2D([], [], color=style.BLUE, marker="o", ms=5, label="ours, 95 % interval"),
        Patch(color="#C8C8C8", label="subclasses dealt out anew: mean to 95 %"),
    ]
    style.head(figure, title, handles)
    rows = ", ".join(f"{int(n)} {level}s" for level, n in scores.drop_duplicates("level")[["level", "n_rows"]].itertuples(index=False))
    style.foot(figure, rows, "drawn and dealt by protein", note)
    return figure
