"""Maps of feature sets in two dimensions (supplementary figure 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pci_core.errors import CellTableError
from pci_core.plots import style

_COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.VERMILLION, style.BLACK)
_MARKERS = ("o", "^", "s", "P", "v")  # 7 colours and 5 shapes have no common factor: 35 different pairs in turn
_SHUFFLES = 12


def umaps(embeddings: Mapping[str, np.ndarray], labels: Sequence[str] | np.ndarray, title: str, *, note: str = "", seed: int = 0) -> Figure:
    """Show one map a feature set, each class in a colour, a shape and a number of its own.

    Parameters
    ----------
    embeddings : mapping of str to ndarray
        (N, 2) by feature set, rows as in `labels`; cells with NaN are not drawn, see `pci_core.analysis.embed.umap`.
    labels : sequence of str
        (N,) class of each cell; empty ones are drawn in grey.
    title : str
    note : str
        On which cells, e.g. ``SIMULATED cells``.
    seed : int
        Of the order in which points are drawn.

    Raises
    ------
    CellTableError
        An embedding that does not fit the labels, or more classes than can be told apart.
    """
    text = np.asarray(labels).astype(str)
    classes = [str(c) for c in np.unique(text) if c]
    if len(classes) > len(_COLOURS) * len(_MARKERS):
        raise CellTableError(f"{len(classes)} classes cannot be told apart on one map, {len(_COLOURS) * len(_MARKERS)} can.")
    for name, plane in embeddings.items():
        if np.shape(plane) != (len(text), 2):
            raise CellTableError(f"the map of '{name}' has shape {np.shape(plane)}, expected ({len(text)}, 2): one row a label.")
    if not embeddings:
        raise CellTableError("no map to draw.")
    columns = min(len(embeddings), 4 if len(embeddings) > 9 else 3)
    lines = -(-len(embeddings) // columns)
    side = 8.0 / max(columns, 2)
    figure = Figure(figsize=(side * columns + 2.2, max(1.02 * side * lines, 0.19 * len(classes)) + 0.9), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    code = np.array([classes.index(t) if t else -1 for t in text], int)
    for axes, (name, plane) in zip(grid.flat, embeddings.items(), strict=False):
        drawn = np.isfinite(plane).all(axis=1)
        _scatter(axes, plane[drawn], code[drawn], np.random.default_rng(seed))
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{style.set_label(name)} (n = {drawn.sum():,})", fontsize=9, fontweight="bold" if style.is_pci(name) else "normal")
        for spine in axes.spines.values():
            spine.set_color("#BBBBBB")
    for axes in list(grid.flat)[len(embeddings) :]:
        axes.set_visible(False)
    handles = [
        Line2D([], [], ls="", marker=_MARKERS[i % 5], color=_COLOURS[i % 7], ms=5, label=f"{i + 1}  {c}") for i, c in enumerate(classes)
    ]
    if (code < 0).any():
        handles.append(Line2D([], [], ls="", marker=".", color="#CCCCCC", ms=5, label="no label"))
    figure.suptitle(title, fontsize=10)
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False, handletextpad=0.2)
    drawn = [int((np.isfinite(plane).all(axis=1) & (code >= 0)).sum()) for plane in embeddings.values()]
    most = f"{min(drawn):,}" if min(drawn) == max(drawn) else f"{min(drawn):,}–{max(drawn):,}"
    told = f"{most} of {int((code >= 0).sum()):,} labelled cells, {len(classes)} classes"
    style.foot(figure, told, note, "numbers stand where a class is densest; axes have no unit")
    return figure


def _scatter(axes: Axes, plane: np.ndarray, code: np.ndarray, rng: np.random.Generator) -> None:
    size = float(np.clip(14000 / max(len(plane), 1), 3, 16))
    unlabelled = plane[code < 0]
    axes.scatter(unlabelled[:, 0], unlabelled[:, 1], s=size / 2, color="#CCCCCC", lw=0, rasterized=True)
    # drawn in shuffled portions, so that no class hides the others
    for part in np.array_split(rng.permutation(np.flatnonzero(code >= 0)), _SHUFFLES):
        for shape, marker in enumerate(_MARKERS):
            rows = part[code[part] % len(_MARKERS) == shape]
            colours = [_COLOURS[c % len(_COLOURS)] for c in code[rows]]
            axes.scatter(plane[rows, 0], plane[rows, 1], s=size, c=colours, marker=marker, lw=0, alpha=0.7, rasterized=True)
    present = [c for c in np.unique(code) if c >= 0]
    if not present:
        return
    low, high = plane.min(axis=0), plane.max(axis=0)
    spots = _apart(np.array([_densest(plane[code == c]) for c in present]), (high - low) * 0.075)
    for c, spot in zip(present, spots, strict=True):
        rim = {
            "boxstyle": "circle,pad=0.12",
            "facecolor": "white",
            "edgecolor": _COLOURS[c % len(_COLOURS)],
            "linewidth": 1.1,
            "alpha": 0.9,
        }
        axes.text(spot[0], spot[1], str(c + 1), fontsize=6.5, fontweight="bold", ha="center", va="center", bbox=rim)


def _densest(points: np.ndarray) -> np.ndarray:
    """Return where a class lies densest: the point with most others near it, (2,)."""
    points = points[:: max(1, len(points) // 400)]  # some hundreds say enough
    near = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    radius = np.median(near) * 0.1 + 1e-12
    out: np.ndarray = points[(near < radius).sum(axis=1).argmax()]
    return out


def _apart(spots: np.ndarray, least: np.ndarray, rounds: int = 60) -> np.ndarray:
    """Push numbers apart until none covers another, as far as some rounds get."""
    spots = spots / least
    for _ in range(rounds):
        gap = spots[:, None] - spots[None]
        distance = np.sqrt((gap**2).sum(axis=2)) + 1e-9
        push = np.clip(1 - distance, 0, None) / distance * 0.5
        np.fill_diagonal(push, 0)
        spots = spots + (gap * push[..., None]).sum(axis=1)
    out: np.ndarray = spots * least
    return out
