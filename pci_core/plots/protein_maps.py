"""Figures of protein maps: several experiments with shared colours (figure 3), and how far they agree."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pci_core.analysis.maps import ALL_CELLS, CORRELATION, DISJOINT, OVERLAP
from pci_core.cells import CellDataset
from pci_core.errors import CellTableError
from pci_core.plots import style
from pci_core.plots.images import composite, scale_bar
from pci_core.plots.maps import _COLOURS, _MARKERS, _scatter

_FEW = 300  # proteins that can each be drawn as a number
Examples = Mapping[str, tuple[CellDataset, Mapping[str, Sequence[int]]]]


def protein_maps(
    maps: Mapping[str, np.ndarray], labels: np.ndarray, title: str, *, examples: Examples | None = None, note: str = ""
) -> Figure:
    """Show one map an experiment with shared colours, and under it crops of some classes.

    Parameters
    ----------
    maps : mapping of str to ndarray
        (proteins, 2) by the name of the experiment, rows as in `labels`.
    labels : ndarray of str
        (proteins,) class; empty ones are drawn in grey, see `pci_core.analysis.maps.shown_classes`.
    title : str
    examples : mapping, optional
        By experiment: its cells, and by class the rows to show.
    note : str
        On which cells, e.g. ``SIMULATED cells``.

    Raises
    ------
    CellTableError
        No map, one that does not fit the labels, or more classes than can be told apart.
    """
    classes = [str(c) for c in np.unique(labels) if c]
    if not maps or len(classes) > len(_COLOURS) * len(_MARKERS):
        raise CellTableError(f"{len(maps)} maps with {len(classes)} classes cannot be drawn: at least one, and up to 35 classes.")
    for name, plane in maps.items():
        if np.shape(plane) != (len(labels), 2):
            raise CellTableError(f"the map of '{name}' has shape {np.shape(plane)}, expected ({len(labels)}, 2): one row a label.")
    shown = {name: {c: r for c, r in rows.items() if len(r)} for name, (_, rows) in (examples or {}).items()}
    lines = list(dict.fromkeys(c for rows in shown.values() for c in rows))
    crops = max((len(r) for rows in shown.values() for r in rows.values()), default=1)
    side = 3.3 if len(maps) > 1 else 4.6
    strip = side / max(crops, 4) * 1.04
    marker = _MARKERS if len(labels) > _FEW else "o"
    handles = [
        Line2D([], [], ls="", marker=marker[i % len(marker)], color=_COLOURS[i % 7], ms=5, label=f"{i + 1}  {c}")
        for i, c in enumerate(classes)
    ]
    if (labels == "").any():
        handles.append(Line2D([], [], ls="", marker=".", color="#CCCCCC", ms=6, label="several locations,\nor none, or rare"))
    height = max(side + strip * len(lines), 0.19 * len(handles)) + 1.0
    figure = Figure(figsize=(side * len(maps) + 2.9, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.02, wspace=0.02, hspace=0.01)  # type: ignore[union-attr, call-arg]
    widths = [0.75 if lines else 0.01, *[side] * len(maps)]  # names of classes have a column: beside a crop they would make it smaller
    grid = figure.add_gridspec(1 + len(lines), 1 + len(maps), height_ratios=[side, *[strip] * len(lines)], width_ratios=widths)
    for line, c in enumerate(lines):
        axes = figure.add_subplot(grid[1 + line, 0])
        axes.axis("off")
        axes.text(1, 0.5, "\n".join(textwrap.wrap(c, 12)), fontsize=7.5, ha="right", va="center", transform=axes.transAxes)
    code = np.array([classes.index(t) if t else -1 for t in labels], int)
    draw = _numbers if len(labels) <= _FEW else _scatter
    for column, (name, plane) in enumerate(maps.items()):
        axes = figure.add_subplot(grid[0, 1 + column])
        draw(axes, np.asarray(plane), code, np.random.default_rng(0))
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=9)
        for spine in axes.spines.values():
            spine.set_color("#BBBBBB")
        for line, c in enumerate(lines):
            cells = grid[1 + line, 1 + column].subgridspec(1, crops, wspace=0.03)
            rows = np.asarray(shown.get(name, {}).get(c, []), np.int64)
            panels = [figure.add_subplot(cells[0, i]) for i in range(crops)]
            _crops(panels, (examples or {})[name][0] if name in shown else None, rows, bar=line == 0)
    figure.suptitle(title, fontsize=10)
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False, handletextpad=0.2)
    told = f"{len(labels):,} proteins, {int((code >= 0).sum()):,} of them in {len(classes)} classes"
    meant = "each number is a protein" if len(labels) <= _FEW else "numbers stand where a class is densest"
    style.foot(figure, told, note, f"means of the cells; {meant}; axes have no unit", "crops: protein yellow" if lines else "")
    return figure


def _numbers(axes: Axes, plane: np.ndarray, code: np.ndarray, rng: np.random.Generator) -> None:
    """Draw every protein as the number of its class: of few proteins a class, no number may hide another."""
    axes.scatter(plane[:, 0], plane[:, 1], s=[8 if c < 0 else 0 for c in code], color="#BBBBBB", lw=0)
    for i in rng.permutation(np.flatnonzero(code >= 0)):
        axes.text(
            plane[i, 0], plane[i, 1], str(code[i] + 1), color=_COLOURS[code[i] % 7], fontsize=7, fontweight="bold", ha="center", va="center"
        )
    axes.margins(0.05)


def _crops(panels: Sequence[Axes], dataset: CellDataset | None, rows: np.ndarray, bar: bool) -> None:
    for i, axes in enumerate(panels):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if dataset is None or i >= len(rows):
            axes.set_facecolor("none")
            continue
        axes.imshow(composite(dataset.read(rows[i : i + 1])[0], dataset.channels, 0.5, 99.9))
        if bar and i == 0:
            scale_bar(axes, dataset.um_per_px, dataset.crops.shape[3])


def agreement(table: pd.DataFrame, title: str, *, note: str = "") -> Figure:
    """Draw the agreement of every two maps with interval and chance, overlap on the left, correlation on the right.

    Parameters
    ----------
    table : DataFrame
        From `pci_core.analysis.maps.compare_maps`.
    title : str
    note : str

    Raises
    ------
    CellTableError
        Nothing to draw.
    """
    if table.empty:
        raise CellTableError("no agreement of maps to draw.")
    pairs = list(dict.fromkeys((a, b) for a, b in table[["first", "second"]].itertuples(index=False) if a != b))
    pairs += list(dict.fromkeys((a, b) for a, b in table[["first", "second"]].itertuples(index=False) if a == b))
    names = [f"{a}\nand {b}" if a != b else f"{a},\nits two halves" for a, b in pairs]
    measures = [m for m in (OVERLAP, CORRELATION) if (table["measure"] == m).any()]
    figure = Figure(figsize=(2.6 + 3.2 * len(measures), 0.5 * len(names) + 1.7), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(measures), sharey=True))
    for axes, measure in zip(panels, measures, strict=True):
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.tick_params(axis="y", length=0)
        for row in range(0, len(names), 2):
            axes.axhspan(row - 0.5, row + 0.5, color=style.BAND, lw=0, zorder=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        for r in table[table["measure"] == measure].itertuples():
            whole = r.cells == ALL_CELLS
            y = pairs.index((r.first, r.second)) + (-0.16 if whole else 0.16)
            colour = style.BLUE if whole else style.ORANGE
            axes.hlines(y, r.low, r.high, color=colour, lw=1.4)
            axes.plot(r.value, y, marker="o" if whole else "s", color=colour, ms=5)
            axes.plot([r.chance, r.chance_high], [y, y], color="#777777", lw=3, solid_capstyle="butt")
        axes.set(xlim=(min(-0.05, axes.get_xlim()[0]), 1.02), ylim=(len(names) - 0.5, -0.5))
        axes.set_xlabel(measure, fontsize=8.5)
    handles = [
        Line2D([], [], color=style.BLUE, marker="o", ms=5, label=ALL_CELLS),
        Line2D([], [], color=style.ORANGE, marker="s", ms=5, label=DISJOINT),
        Line2D([], [], color="#777777", lw=3, label="permuted: mean to 95 %"),
    ]
    style.head(figure, title, handles)
    told = f"{int(table['n_proteins'].min()):,} proteins, {int(table['n_classes'].max())} classes"
    style.foot(figure, told, note, "lines: 95 % intervals over proteins")
    return figure


def overlap_by_k(curve: pd.DataFrame, title: str, *, note: str = "", n_proteins: int) -> Figure:
    """Draw the neighbourhood overlap against the number of neighbours.

    Parameters
    ----------
    curve : DataFrame
        From `pci_core.analysis.maps.overlap_curve`.
    title : str
    note : str
    n_proteins : int

    Raises
    ------
    CellTableError
        Nothing to draw.
    """
    if curve.empty:
        raise CellTableError("no overlap of maps to draw.")
    figure = Figure(figsize=(6.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for i, ((a, b), part) in enumerate(curve.groupby(["first", "second"], sort=False)):
        axes.plot(part["k"], part["value"], marker=_MARKERS[i % 5], color=_COLOURS[i % 7], ms=4, label=f"{a} and {b}")
    line = curve.drop_duplicates("k").sort_values("k")
    axes.plot(line["k"], line["chance"], color="black", lw=1, ls=":", label="chance")
    axes.set(xlabel="nearest proteins looked at", ylabel="share in common", ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", lw=0.6)
    axes.set_xticks(line["k"])
    figure.legend(title=title, loc="outside upper center", fontsize=8, title_fontsize=10, frameon=False)
    style.foot(figure, f"{n_proteins:,} proteins", note)
    return figure
