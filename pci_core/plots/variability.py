"""Figures of single-cell variability: who varies, and the cells of one image as a dendrogram (the paper's figure 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from pci_core.analysis.trees import Tree
from pci_core.analysis.variability import SCORES
from pci_core.cells import Channel
from pci_core.errors import CellTableError, unknown_name
from pci_core.plots import style
from pci_core.plots.images import composite, scale_bar

BRANCH_COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.VERMILLION)
_NONE = "#999999"
_SHOWN = 10  # crops a branch
_KINDS = {"": "does not vary", "location": "varies in location", "intensity": "varies in intensity", "variable": "annotated as variable"}
_KIND_LOOKS = {"": (_NONE, "o"), "location": (style.VERMILLION, "D"), "intensity": (style.BLUE, "s"), "variable": (style.VERMILLION, "D")}


def branch_colour(branch: int) -> str:
    """Return the colour of a branch by its number from 1; grey for cells in none."""
    return BRANCH_COLOURS[(branch - 1) % len(BRANCH_COLOURS)] if branch > 0 else _NONE


def ranked(proteins: pd.DataFrame, name: str = "combined", *, truth: pd.Series | None = None, n_named: int = 10, note: str = "") -> Figure:
    """Show all proteins by their variability score, the first ones by name.

    Parameters
    ----------
    proteins : DataFrame
        From `pci_core.analysis.variability.protein_scores`.
    name : str
        Which score.
    truth : Series, optional
        Known kind of variation by protein.
    n_named : int
        How many are named, highest first.
    note : str
        On which cells.

    Raises
    ------
    UnknownNameError, CellTableError
        No such score; no protein with a score.
    """
    if name not in SCORES:
        raise unknown_name("score", name, SCORES)
    table = proteins[np.isfinite(proteins[name])].sort_values(name, ascending=False, ignore_index=True)
    if not len(table):
        raise CellTableError("no protein has a variability score to draw.")
    by = str(table.columns[0])
    figure = Figure(figsize=(8.2, 3.9), layout="constrained")
    axes = figure.subplots()
    kinds = (truth.reindex(table[by]).fillna("") if truth is not None else pd.Series("", index=table[by])).to_numpy()
    handles = []
    for kind in dict.fromkeys(["", *kinds]):
        rows = np.flatnonzero(kinds == kind)
        colour, marker = _KIND_LOOKS.get(kind, (style.PURPLE, "^"))
        axes.plot(rows + 1, table[name].to_numpy()[rows], marker, ls="", color=colour, ms=4 if kind == "" else 6, mec="white", mew=0.4)
        if truth is not None:
            label = f"{_KINDS.get(kind, kind)} ({len(rows)})"
            handles.append(Line2D([], [], ls="", marker=marker, color=colour, ms=5, label=label))
    values = table[name].to_numpy()
    span = max(float(np.ptp(values)), 1e-9)
    level = np.inf
    for i in range(min(n_named, len(table))):
        level = min(values[i], level - 0.052 * span)  # one under the other, however near two scores are
        x = max(len(table) * 0.25, i + 1 + len(table) * 0.05)
        axes.annotate(
            str(table[by][i]), (i + 1, values[i]), (x, level), fontsize=7.5, va="center",
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "#AAAAAA", "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip
    axes.set_xlabel(f"{by}s, highest score first", fontsize=9)
    axes.set_ylabel(SCORES[name], fontsize=9)
    axes.set_xlim(0, len(table) + 1)
    axes.spines[["top", "right"]].set_visible(False)
    if handles:
        style.head(figure, "Variability from cell to cell", handles)
    else:
        figure.suptitle("Variability from cell to cell", fontsize=10)
    style.foot(figure, f"{int(table['n_cells'].sum()):,} cells of {len(table)} {by}s", note)
    return figure


def detections(table: pd.DataFrame, *, note: str = "") -> Figure:
    """Show how well each score finds the proteins that vary: average precision and area under the ROC curve.

    Parameters
    ----------
    table : DataFrame
        From `pci_core.analysis.variability.detection`.
    note : str
        On which cells.

    Raises
    ------
    CellTableError
        No row.
    """
    if not len(table):
        raise CellTableError("it is not known which proteins vary, so there is nothing to draw.")
    kinds = list(dict.fromkeys(table["kind"]))
    names = [n for n in SCORES if n in set(table["score"])]
    figure = Figure(figsize=(8.6, 0.34 * len(names) * len(kinds) + 1.9), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    looks = {"any": (style.BLACK, "o"), **{k: _KIND_LOOKS.get(k, (style.PURPLE, "^")) for k in kinds if k != "any"}}
    for axes, (value, low, high) in zip(panels, (("ap", "low", "high"), ("auroc", "auroc_low", "auroc_high")), strict=True):
        for row, name in enumerate(names):
            if row % 2 == 0:
                axes.axhspan(row - 0.5, row + 0.5, color=style.BAND, lw=0, zorder=0)
            for j, kind in enumerate(kinds):
                part = table[(table["score"] == name) & (table["kind"] == kind)]
                if not len(part):
                    continue
                line, y = part.iloc[0], row + 0.24 * (j - (len(kinds) - 1) / 2)
                colour, marker = looks[kind]
                if np.isfinite(line[low]):
                    axes.plot([line[low], line[high]], [y, y], color=colour, lw=1.5)
                axes.plot(line[value], y, marker, color=colour, ms=5.5, mec="white", mew=0.5, zorder=3)
                chance = line["chance"] if value == "ap" else 0.5
                axes.plot([chance] * 2, [y - 0.1, y + 0.1], color=colour, lw=1.5, ls=":")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(names)), [SCORES[n] for n in names], fontsize=8.5)
    panels[0].set_xlabel("average precision", fontsize=9)
    panels[1].set_xlabel("area under the ROC curve", fontsize=9)
    handles = []
    for kind in kinds:
        n = int(table.loc[table["kind"] == kind, "n_variable"].iloc[0])
        text = f"any variation ({n})" if kind == "any" else f"{_KINDS.get(kind, kind)} ({n})"
        handles.append(Line2D([], [], color=looks[kind][0], marker=looks[kind][1], ms=5, lw=1.5, label=text))
    handles.append(Line2D([], [], color="black", lw=1.5, ls=":", label="guessing"))
    style.head(figure, "Finding the proteins that vary", handles)
    style.foot(figure, f"{int(table['n_proteins'].max())} proteins", note, "bars: 95 % bootstrap over proteins")
    return figure


def dendrogram(
    tree: Tree,
    branch: np.ndarray,
    crops: np.ndarray,
    channels: Sequence[Channel],
    title: str,
    *,
    phenotype: np.ndarray | None = None,
    um_per_px: float | None = None,
    note: str = "",
) -> Figure:
    """Show the dendrogram of single cells with crops of each branch (figure 6).

    Parameters
    ----------
    tree : Tree
        Of the cells.
    branch : ndarray of int
        (cells,) number of the branch from 1, 0 for none.
    crops : ndarray
        (cells, C, H, W) in the order of the tree's rows. All are stretched to one range, so that dim cells look dim.
    channels : sequence of Channel
    title : str
    phenotype : ndarray of str, optional
        (cells,) known phenotype, empty where unknown: a strip under the dendrogram.
    um_per_px : float, optional
        Of the crops.
    note : str
        On which cells.

    Raises
    ------
    CellTableError
        Branches, crops or phenotypes do not fit the tree.
    """
    n = len(tree)
    for what, found in (("branches", len(branch)), ("crops", len(crops)), ("phenotypes", n if phenotype is None else len(phenotype))):
        if found != n:
            raise CellTableError(f"the dendrogram has {n} cells, but there are {found} {what}; give one a cell, in the same order.")
    place = tree.place()
    numbers = [b for b in sorted(np.unique(branch)) if b > 0] or [0]
    numbers = sorted(sorted(numbers, key=lambda b: -(branch == b).sum())[: len(BRANCH_COLOURS)])
    kinds = [k for k in np.unique(phenotype) if k] if phenotype is not None else []
    shown = {b: _spread(np.flatnonzero(branch == b)[np.argsort(place[branch == b])]) for b in numbers}
    columns = max(max(len(rows) for rows in shown.values()), 6)
    figure = Figure(figsize=(max(0.82 * columns + 1.3, 7.0), 2.9 + 0.95 * len(numbers) + (0.2 if kinds else 0)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.02, wspace=0.01, hspace=0.02)  # type: ignore[union-attr, call-arg]
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.2 + (0.2 if kinds else 0), 0.95 * len(numbers)])  # type: ignore[misc]
    axes = top.subplots()
    _draw_tree(axes, tree, branch, place)
    low = -0.05 * tree.merges[:, 2].max()
    handles = [Line2D([], [], color=branch_colour(b), lw=2.5, label=_branch_name(b, int((branch == b).sum()))) for b in numbers]
    if kinds:
        strip = dict(zip(kinds, (style.BLACK, "#BBBBBB", style.VERMILLION, style.SKY, style.PURPLE), strict=False))
        for cell in range(n):
            colour = strip.get(str(phenotype[cell]), "white") if phenotype is not None else "white"
            axes.add_patch(Rectangle((place[cell] - 0.5, 2 * low), 1, -low, color=colour, lw=0))
        handles += [Line2D([], [], ls="", marker="s", color=strip.get(k, _NONE), ms=6, label=k) for k in kinds]
        low *= 2
    numbered = dict.fromkeys(c for b in numbers for c in shown[b])
    for i, cell in enumerate(numbered, 1):
        axes.text(place[cell], low * 1.15, str(i), fontsize=6, ha="center", va="top", color=branch_colour(int(branch[cell])))
    axes.set(xlim=(-0.7, n - 0.3), ylim=(low * 1.15 - 0.06 * tree.merges[:, 2].max(), None), xticks=[])
    axes.set_yticks([t for t in axes.get_yticks() if 0 <= t <= 1.05 * tree.merges[:, 2].max()])
    axes.set_ylabel("height", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    grid = bottom.subplots(len(numbers), columns, squeeze=False)
    pictures = _pictures(crops[list(numbered)], channels)
    at = dict(zip(numbered, range(len(numbered)), strict=True))
    for line, b in zip(grid, numbers, strict=True):
        for j, spot in enumerate(line):
            spot.set(xticks=[], yticks=[])
            spot.spines[:].set_visible(False)
            if j < len(shown[b]):
                cell = shown[b][j]
                spot.imshow(pictures[at[cell]])
                spot.set_title(str(at[cell] + 1), fontsize=6.5, pad=1.5, color=branch_colour(int(b)))
        line[0].set_ylabel(f"branch {b}" if b else "cells", fontsize=8, rotation=0, ha="right", va="center", color=branch_colour(int(b)))
    scale_bar(grid[0, 0], um_per_px, crops.shape[3])
    style.head(figure, title, handles)
    structural = iter(("blue", "purple", "green"))
    colours = ", ".join(f"{c.name} {'yellow' if c.role == 'protein' else next(structural)}" for c in channels)
    style.foot(figure, f"{n} cells", note, f"{tree.linkage} linkage", f"{colours}; crops stretched together")
    return figure


def _branch_name(b: int, n: int) -> str:
    return f"branch {b} ({n} cells)" if b else f"in no branch ({n} cells)"


def _spread(rows: np.ndarray) -> list[int]:
    """Choose up to ten cells, evenly along a branch."""
    return [int(rows[i]) for i in np.unique(np.linspace(0, len(rows) - 1, min(_SHOWN, len(rows))).round().astype(int))]


def _pictures(crops: np.ndarray, channels: Sequence[Channel]) -> list[np.ndarray]:
    """Blend crops into RGB, all stretched to one range."""
    n, side = len(crops), crops.shape[3]
    together = composite(np.concatenate(list(crops), axis=2), channels, 0.5, 99.8)
    return [together[:, i * side : (i + 1) * side] for i in range(n)]


def _draw_tree(axes: Axes, tree: Tree, branch: np.ndarray, place: np.ndarray) -> None:
    n = len(tree)
    x, height, own = np.append(place, np.zeros(n - 1)), np.zeros(2 * n - 1), np.append(branch, np.zeros(n - 1, np.int64))
    lines, colours = [], []
    for i, (a, b) in enumerate(tree.merges[:, :2].astype(int)):
        up = tree.merges[i, 2]
        x[n + i], height[n + i] = (x[a] + x[b]) / 2, up
        own[n + i] = own[a] if own[a] == own[b] else -1
        lines.append([(x[a], height[a]), (x[a], up), (x[b], up), (x[b], height[b])])
        colours.append(branch_colour(int(own[n + i])) if own[n + i] > 0 else "#666666")
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=0.9))


def boxed_field(
    field: np.ndarray,
    channels: Sequence[Channel],
    cells: pd.DataFrame,
    branch: np.ndarray,
    crop: int,
    um_per_px: float | None,
    title: str,
    *,
    numbers: Mapping[int, int] | None = None,
    note: str = "",
) -> Figure:
    """Show a field of view with its cells boxed in the colour of their branch (figure 6A).

    Parameters
    ----------
    field : ndarray
        (C, H, W) as read.
    channels : sequence of Channel
    cells : DataFrame
        The field's cells, with ``y`` and ``x`` of their centres, px.
    branch : ndarray of int
        (cells,) number of the branch from 1, 0 for none.
    crop : int
        Side of a box, px of the field.
    um_per_px : float or None
        Of the field.
    title : str
    numbers : mapping of int to int, optional
        Number to write in the box of a cell, by its position in `cells`.
    note : str
        On which cells.

    Raises
    ------
    CellTableError
        No cell, or another number of branches.
    """
    if not len(cells) or len(cells) != len(branch):
        raise CellTableError(f"there are {len(cells)} cells and {len(branch)} branches; give at least one cell and one branch a cell.")
    height, width = field.shape[1:]
    figure = Figure(figsize=(6.2, 6.2 * height / width + 0.9), layout="constrained")
    axes = figure.subplots()
    axes.imshow(composite(field, channels))
    for i, ((y, x), b) in enumerate(zip(cells[["y", "x"]].to_numpy(), branch, strict=True)):
        colour = branch_colour(int(b))
        axes.add_patch(Rectangle((x - crop / 2, y - crop / 2), crop, crop, fill=False, ec="white", lw=2.2))
        axes.add_patch(Rectangle((x - crop / 2, y - crop / 2), crop, crop, fill=False, ec=colour, lw=1.4))
        told = (numbers or {}).get(i, int(b) or "–")
        rim = {"boxstyle": "round,pad=0.15", "facecolor": colour, "edgecolor": "none"}
        axes.text(x - crop / 2, y - crop / 2, str(told), fontsize=6.5, color="white", ha="center", va="center", bbox=rim)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    scale_bar(axes, um_per_px, width)
    handles = [
        Line2D([], [], color=branch_colour(int(b)), lw=2, label=_branch_name(int(b), int((branch == b).sum())))
        for b in sorted(np.unique(branch), key=lambda b: (b == 0, b))
    ]
    style.head(figure, title, handles)
    style.foot(figure, f"{len(cells)} cells of one field of view", note, "numbers in the boxes are the branch" if not numbers else "")
    return figure
