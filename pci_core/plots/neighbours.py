"""Proteins like a known one: where those of a class stand among all, precision and recall, the dendrogram around the query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from pci_core.errors import CellTableError
from pci_core.plots import style

METHOD_LABELS = {"dendrogram": "dendrogram", "euclidean": "Euclidean distance", "correlation": "correlation distance"}
METHOD_COLOURS = {"dendrogram": style.BLUE, "euclidean": style.ORANGE, "correlation": style.GREEN}
OTHER = "#C8C8C8"
_NAMED = 40  # with more members than that, no names beside their marks


def rank_strip(
    ranks: Mapping[str, np.ndarray],
    names: Sequence[str],
    member: np.ndarray,
    title: str,
    *,
    term: str,
    k: int,
    note: str = "",
    n_cells: int | None = None,
) -> Figure:
    """Show all proteins from the nearest to the farthest, one row a way to search, those of the class marked and named.

    Parameters
    ----------
    ranks : mapping of str to ndarray
        (proteins,) by method, 0 for queries, see `pci_core.analysis.neighbours.ranks`.
    names : sequence of str
    member : ndarray of bool
        (proteins,) of the class.
    title : str
    term : str
        The class.
    k : int
        How many nearest ones are set off by a line.
    note : str
        On which cells, e.g. ``SIMULATED cells``.
    n_cells : int, optional
        Cells behind the proteins' means.

    Raises
    ------
    CellTableError
        No ranking, or one that does not fit the names.
    """
    if not ranks or any(len(r) != len(names) for r in ranks.values()):
        raise CellTableError(f"a rank strip needs rankings of all {len(names)} proteins.")
    named = int((np.asarray(member) & (next(iter(ranks.values())) > 0)).sum()) <= _NAMED
    figure = Figure(figsize=(9, (1.15 if named else 0.6) * len(ranks) + 1.5), layout="constrained")
    axes = figure.subplots()
    n = max(int(r.max()) for r in ranks.values())
    for row, rank in enumerate(ranks.values()):
        for part, colour, tall in ((~np.asarray(member), OTHER, 0.13), (np.asarray(member), style.BLUE, 0.2)):
            at = rank[part & (rank > 0)]
            wide = max(0.8, 420 / n * (1.0 if n < 400 else 1.6)) if tall > 0.15 else max(0.3, 260 / n)
            axes.vlines(at, row - tall, row + tall, color=colour, lw=min(wide, 3.5), zorder=2 + (tall > 0.15))
        if named:
            _names_above(axes, row, sorted((int(rank[i]), names[int(i)]) for i in np.flatnonzero(np.asarray(member) & (rank > 0))), n)
    axes.axvline(k + 0.5, color="black", lw=0.9, ls="--", zorder=1)
    axes.set_yticks(range(len(ranks)), [METHOD_LABELS.get(m, m) for m in ranks], fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set(xlim=(0, n + 1), ylim=(len(ranks) - 0.6, -0.75 if named else -0.5), xlabel="rank, nearest first")
    handles = [
        Patch(color=style.BLUE, label=term),
        Patch(color=OTHER, label="other proteins"),
        Line2D([], [], color="black", lw=0.9, ls="--", label=f"nearest {k}"),
    ]
    style.head(figure, title, handles)
    style.foot(figure, _count(len(names), n_cells), note)
    return figure


def _names_above(axes: Axes, row: int, marks: Sequence[tuple[int, str]], n: int) -> None:
    """Write names over their marks, pushed apart to both sides until none covers another."""
    step = n * 0.018  # of the axis: a line of 7 pt turned by 90 degrees
    at = np.array([m[0] for m in marks], float)
    for _ in range(200):
        gap = np.diff(at)
        push = np.clip(step - gap, 0, None) / 2
        if not (push > 1e-6).any():
            break
        at[:-1] -= push
        at[1:] += push
    at += max(0.0, step * 0.6 - at[0]) if len(at) else 0
    for x, (rank, name) in zip(at, marks, strict=True):
        axes.plot([rank, x], [row - 0.2, row - 0.28], color="#777777", lw=0.5, zorder=1)
        axes.text(x, row - 0.3, f"{name} {rank}", fontsize=6.5, rotation=90, ha="center", va="bottom")


def precision_recall(
    hits: Mapping[str, np.ndarray],
    precision: Mapping[str, float],
    chance: float,
    title: str,
    *,
    note: str = "",
    n_cells: int | None = None,
) -> Figure:
    """Show precision against recall, one line a way to search, and what a random order gives.

    Parameters
    ----------
    hits : mapping of str to ndarray of bool
        (ranked proteins,) by method, nearest first.
    precision : mapping of str to float
        Average precision by method, for the legend.
    chance : float
        Average precision of a random order.
    title, note, n_cells
        As in `rank_strip`.

    Raises
    ------
    CellTableError
        A ranking without any protein of the class.
    """
    figure = Figure(figsize=(6, 3.9), layout="constrained")
    axes = figure.subplots()
    handles = []
    for i, (method, hit) in enumerate(hits.items()):
        if not hit.any():
            raise CellTableError("no protein of the class among those ranked: there is no recall to draw.")
        found = np.cumsum(hit)
        colour = METHOD_COLOURS.get(method, style.BLUE)
        at = np.flatnonzero(hit)
        axes.plot(found[at] / found[-1], found[at] / (at + 1), "o-", color=colour, ms=6 - 1.2 * i, lw=2.2 - 0.5 * i, zorder=3 + i)
        handles.append(
            Line2D([], [], color=colour, marker="o", ms=5, label=f"{METHOD_LABELS.get(method, method)} (AP {precision[method]:.2f})")
        )
    axes.axhline(chance, color="black", lw=1, ls=":")
    handles.append(style.chance_handle(chance))
    axes.set(xlim=(0, 1.03), ylim=(0, 1.05), xlabel="recall: share of the class found", ylabel="precision: share of those looked at")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=handles, title=title, loc="outside upper center", ncols=2, fontsize=8, title_fontsize=10, frameon=False)
    first = next(iter(hits.values()))
    style.foot(figure, f"{int(first.sum())} of the class among {len(first):,} ranked proteins", _cells(n_cells), note)
    return figure


def branch(
    heights: np.ndarray,
    names: Sequence[str],
    member: np.ndarray,
    title: str,
    *,
    term: str,
    n_queries: int = 1,
    locations: Sequence[str] | None = None,
    n_proteins: int | None = None,
    unit: str = "height",
    note: str = "",
) -> Figure:
    """Show the dendrogram of a query and the proteins nearest to it, all other leaves left out.

    Parameters
    ----------
    heights : ndarray
        (leaves, leaves) at which each two join, see `pci_core.analysis.neighbours.Space.between`; queries first.
    names : sequence of str
    member : ndarray of bool
        (leaves,) of the class; their names are coloured.
    title, term, note
        As in `rank_strip`.
    n_queries : int
        So many first ones are printed in bold.
    locations : sequence of str, optional
        Written behind each name.
    n_proteins : int, optional
        Leaves of the whole dendrogram.
    unit : str
        What heights are.

    Raises
    ------
    CellTableError
        Fewer than two leaves.
    """
    n = len(names)
    if n < 2:
        raise CellTableError("a dendrogram needs at least two leaves.")
    merges = hierarchy.linkage(squareform(heights, checks=False), "single")  # exact: in a tree the largest of three heights comes twice
    figure = Figure(figsize=(7.5, 0.165 * n + 1.4), layout="constrained")
    axes = figure.subplots()
    places = [""] * n if locations is None else [f"  {p}" for p in locations]
    texts = [name + place for name, place in zip(names, places, strict=True)]
    drawn = hierarchy.dendrogram(
        merges, orientation="left", labels=texts, ax=axes, color_threshold=0, above_threshold_color="#555555", leaf_font_size=7
    )
    for label, leaf in zip(axes.get_yticklabels(), drawn["leaves"], strict=True):
        label.set(color=style.BLUE if member[leaf] else "#666666", fontweight="bold" if leaf < n_queries else "normal")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    style.head(figure, title, [Patch(color=style.BLUE, label=term), Patch(color="#666666", label="other proteins")])
    of = f" of {n_proteins:,}" if n_proteins else ""
    style.foot(figure, f"{n}{of} proteins", "queries in bold" if n_queries > 1 else "the query in bold", note)
    return figure


def searches(
    terms: pd.DataFrame, counts: pd.DataFrame, title: str, *, term: str, note: str = "", n_proteins: int | None = None, most: int = 30
) -> Figure:
    """Show how well every class is found by its own proteins, and what more queries change for one class.

    Parameters
    ----------
    terms : DataFrame
        From `pci_core.analysis.neighbours.each_term`.
    counts : DataFrame
        From `pci_core.analysis.neighbours.by_number_of_queries`; may be empty.
    title, term, note
        As in `rank_strip`.
    n_proteins : int, optional
    most : int
        Classes shown: those with most proteins, and `term`.

    Raises
    ------
    CellTableError
        No class of two proteins.
    """
    if not len(terms):
        raise CellTableError("no class of at least two proteins to search for.")
    keep = terms["n"].rank(method="first", ascending=False) <= most
    shown = terms[keep | (terms["term"] == term)].sort_values("average_precision", ascending=False, kind="stable")
    figure = Figure(figsize=(9.5, max(3.2, 0.19 * len(shown) + 1.5)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    at = np.arange(len(shown))
    colours = [style.BLUE if t == term else "#555555" for t in shown["term"]]
    left.hlines(at, shown["low"], shown["high"], color=colours, lw=1.6)
    left.scatter(shown["average_precision"], at, c=colours, s=26, zorder=3)
    left.scatter(shown["chance"], at, marker="|", c="black", s=50, zorder=2)
    left.set_yticks(at, [f"{t} ({n})" for t, n in zip(shown["term"], shown["n"], strict=True)], fontsize=7.5)
    for tick, colour in zip(left.get_yticklabels(), colours, strict=True):
        tick.set_color(colour)
    left.set(xlim=(0, 1.02), ylim=(len(shown) - 0.5, -0.5), xlabel="mean average precision, each protein as query")
    left.spines[["top", "right", "left"]].set_visible(False)
    left.tick_params(axis="y", length=0)
    handles = [
        Line2D([], [], color=style.BLUE, marker="o", ms=5, label=term),
        Line2D([], [], color="#555555", marker="o", ms=5, label="other terms (proteins)"),
        Line2D([], [], color="black", marker="|", ls=":", lw=1, ms=7, label="random order"),
    ]
    for combine, ls, mark in (("mean", "-", "o"), ("nearest", "--", "s")):
        part = counts[counts["combine"] == combine]
        if len(part):
            right.plot(part["queries"], part["average_precision"], ls=ls, marker=mark, color=style.BLUE, ms=5)
            handles.append(
                Line2D(
                    [], [], color=style.BLUE, ls=ls, marker=mark, ms=5, label=f"right: {combine} {'rank' if combine == 'mean' else 'query'}"
                )
            )
            if combine == "mean":
                right.fill_between(part["queries"], part["worst"], part["best"], color=style.BLUE, alpha=0.12, lw=0)
                right.plot(part["queries"], part["chance"], color="black", lw=1, ls=":")
    if len(counts):
        right.set(xlabel=f"queries together ({term})", ylabel="average precision of the others", ylim=(0, 1.05))
        right.set_xticks(sorted(counts["queries"].unique()))
        right.spines[["top", "right"]].set_visible(False)
    else:
        right.axis("off")
    style.head(figure, title, handles)
    shade = "shaded: best and worst set of queries, mean rank" if len(counts) else ""
    style.foot(figure, "" if n_proteins is None else f"{n_proteins:,} proteins", "bars: 95 % bootstrap over queries", shade, note)
    return figure


def _count(n_proteins: int, n_cells: int | None) -> str:
    return f"{n_proteins:,} proteins" + (f", {n_cells:,} cells" if n_cells is not None else "")


def _cells(n_cells: int | None) -> str:
    return "" if n_cells is None else f"{n_cells:,} cells"
