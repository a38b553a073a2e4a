"""Figures of the benchmark: feature sets beside one another (figure 2A, supplementary tables 1 and 2, supplementary figure 2).

All take score tables of one row a feature set, classifier, k and way of leaving out: ``features,
classifier, k, left_out, accuracy, low, high, n_cells, n_classes, n_groups``. The paper leaves out the
cell itself, so its figures stand beside ours of that kind only.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pci_core.errors import CellTableError
from pci_core.plots import style

_NEEDED = ("features", "classifier", "k", "left_out", "accuracy", "low", "high", "n_cells")
_INTERVALS = "bars: 95\u00a0% intervals"
_VGG16 = re.compile(r"vgg16_(block\d_conv\d|fc1)_(\w+)")
_LAYERS = [f"block{b}_conv{c}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)]
_STRATEGIES = {
    "protein": ("protein as grey", style.BLUE, "o", "-"),
    "channels": ("each channel as grey, concatenated", style.GREEN, "s", "--"),
    "rgb": ("channels mapped to RGB", style.PURPLE, "^", "-."),
}
_MARKS = {  # classifier: colour, marker
    "knn": (style.BLUE, "o"), "logistic": (style.GREEN, "s"), "forest": (style.PURPLE, "^"), "end_to_end": (style.BLACK, "*"),
}  # fmt: skip


def _error(rows: pd.DataFrame) -> np.ndarray:
    """(2, rows) lengths of the bars; 0 where there is no interval."""
    out: np.ndarray = np.nan_to_num(np.abs(rows[["low", "high"]].to_numpy(float).T - rows["accuracy"].to_numpy(float)))
    return out


def _ways(left_out: pd.Series) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and fill for each way of leaving out in the table: the paper's open, those without leaks filled."""
    marks = ((style.BLUE, "o"), (style.GREEN, "s"), (style.PURPLE, "^"))
    names = style.leak_free(left_out)
    if len(names) > len(marks):
        raise CellTableError(f"{len(names)} ways of leaving out besides the cell ({', '.join(names)}); a figure shows up to {len(marks)}.")
    out = {"cell": ("#555555", "o", "white")} if (left_out == "cell").any() else {}
    return out | {name: (colour, marker, colour) for name, (colour, marker) in zip(names, marks, strict=False)}


def _known(figures: Mapping[Any, float] | None) -> dict[Any, float]:
    """Those of the paper's figures that there are."""
    return {name: value for name, value in (figures or {}).items() if value == value}


def _legend_end(paper: bool, chance: float | None) -> list[Line2D]:
    return ([style.paper_handle()] if paper else []) + ([style.chance_handle(chance)] if chance is not None else [])


def _order(scores: pd.DataFrame) -> list[str]:
    """Feature sets, best first by the first figure without leaks (by the paper's where there is no other)."""
    ways = style.leak_free(scores["left_out"]) or ["cell"]
    best = scores[scores["left_out"] == ways[0]].groupby("features", sort=False)["accuracy"].max()
    rest = [name for name in dict.fromkeys(scores["features"]) if name not in best.index]
    return [*best.sort_values(ascending=False, kind="stable").index, *rest]


def feature_set_accuracy(
    scores: pd.DataFrame,
    chance: float,
    title: str,
    paper: Mapping[str, float] | None = None,
    *,
    missing: Mapping[str, str] | None = None,
    classifier: str = "knn",
    k: int | None = 11,
    note: str = "",
) -> Figure:
    """Show the balanced accuracy of every feature set, one a row, best without leaks first (figure 2A, overall).

    Parameters
    ----------
    scores : DataFrame
        Score table of one data set; other classifiers and k in it are passed over.
    chance : float
        Accuracy of guessing.
    title : str
    paper : mapping of str to float, optional
        The paper's accuracies in [0, 1] by the name of our feature set.
    missing : mapping of str to str, optional
        Feature sets without scores, and why; their rows say so.
    classifier : str
        Which of the table's classifiers to show.
    k : int or None
        Which k of kNN; None to take whatever there is.
    note : str
        On which cells, e.g. ``SIMULATED cells``.

    Returns
    -------
    Figure

    Raises
    ------
    UnknownNameError
        A column is not there.
    CellTableError
        No row to show, or two for one place.
    """
    k = k if classifier == "knn" else None
    scores = style.pick(scores, _NEEDED, classifier=classifier, k=k)
    style.once(scores, "features", "left_out")
    paper, order = _known(paper), _order(scores)
    why = {**{name: "not computed on these cells" for name in paper}, **(missing or {})}
    absent = [name for name in why if name not in order]
    figure = Figure(figsize=(9.5, 0.31 * (len(order) + len(absent)) + 1.7), layout="constrained")
    axes = figure.subplots()
    ways = _ways(scores["left_out"])
    top = 0.18 if len(ways) > 1 else 0.0
    step = 2 * top / max(len(ways) - 1, 1)
    handles = []
    for i, (way, (colour, marker, fill)) in enumerate(ways.items()):
        rows = scores[scores["left_out"] == way]
        y = np.array([order.index(name) for name in rows["features"]]) + i * step - top
        axes.errorbar(rows["accuracy"], y, xerr=_error(rows), fmt=marker, ms=5.5, color=colour, mfc=fill, elinewidth=1.2, zorder=3)
        handles.append(Line2D([], [], marker=marker, color=colour, mfc=fill, ms=5.5, lw=1.2, label=style.left_out_label(way)))
    names = [*order, *absent]
    for name, value in paper.items():
        style.paper_mark(axes, value, names.index(name) - top)
    for name in absent:
        row = names.index(name)
        box = {"facecolor": style.BAND if row % 2 == 0 else "white", "edgecolor": "none", "pad": 1}
        axes.text(0.01, row, textwrap.shorten(why[name], 110, placeholder=" …"), fontsize=8, style="italic", color="#555555", va="center",
                  bbox=box)  # fmt: skip
    axes.axvline(chance, color="black", lw=1, ls=":", zorder=1)
    style.set_names(axes, names)
    table = scores.pivot(index="features", columns="left_out", values="accuracy")
    for x, way in zip(1.035 + 0.065 * np.arange(len(ways)), ways, strict=True):
        colour = ways[way][0]
        axes.text(x, 1.0, way.replace("_", "\n"), fontsize=8, color=colour, ha="center", va="bottom", transform=axes.transAxes)
        for name in order:
            text = f"{table.loc[name, way]:.2f}" if table.loc[name, way] == table.loc[name, way] else "–"
            axes.text(x, names.index(name), text, fontsize=8, color=colour, ha="center", va="center", transform=axes.get_yaxis_transform())
    axes.set(xlim=(0, 1), xlabel=f"balanced accuracy, {style.CLASSIFIERS.get(classifier, classifier)}{f', k = {k}' if k else ''}")
    axes.grid(axis="x", lw=0.4, zorder=0)
    style.head(figure, title, handles + _legend_end(bool(paper), chance))
    style.caption(figure, scores, note, _INTERVALS)
    return figure


def vgg16_layers(
    scores: pd.DataFrame,
    title: str,
    *,
    paper: Mapping[str, float] | None = None,
    chance: float | None = None,
    classifier: str = "knn",
    k: int | None = 11,
    note: str = "",
) -> Figure:
    """Show VGG16's convolutions by input strategy, and the fully connected layer apart (supplementary figure 2).

    Parameters
    ----------
    scores : DataFrame
        Score table; rows whose ``features`` are not ``vgg16_<layer>_<strategy>`` are passed over.
    title : str
    paper : mapping of str to float, optional
        The paper's accuracies in [0, 1] by such a name.
    chance : float, optional
    classifier, k, note
        As in `feature_set_accuracy`.

    Raises
    ------
    CellTableError
        No row of VGG16, e.g. because the weights were not to be had.
    """
    k = k if classifier == "knn" else None
    scores = style.pick(scores, _NEEDED, classifier=classifier, k=k)
    parts = scores["features"].str.extract(_VGG16)
    scores = scores.assign(layer=parts[0], strategy=parts[1])[parts[0].notna()]
    if scores.empty:
        raise CellTableError("no scores of VGG16 to draw; make its feature sets first (they need the ImageNet weights).")
    style.once(scores, "features", "left_out")
    ways = list(_ways(scores["left_out"]))
    figure = Figure(figsize=(10, 2.5 * len(ways) + 1.5), layout="constrained")
    panels = figure.subplots(len(ways), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    place = {**{layer: float(i) for i, layer in enumerate(_LAYERS)}, "fc1": len(_LAYERS) + 0.4}
    shown = [s for s in _STRATEGIES if (scores["strategy"] == s).any()]
    for axes, way in zip(panels, ways, strict=True):
        for i, strategy in enumerate(shown):
            label, colour, marker, line = _STRATEGIES[strategy]
            rows = scores[(scores["left_out"] == way) & (scores["strategy"] == strategy)]
            shift = 0.16 * (i - (len(shown) - 1) / 2)
            for part, ls in ((rows[rows["layer"] != "fc1"], line), (rows[rows["layer"] == "fc1"], "")):
                part = part.assign(x=part["layer"].map(place)).sort_values("x")
                axes.errorbar(part["x"] + shift, part["accuracy"], _error(part), color=colour, marker=marker, ms=5, ls=ls, lw=1.4,
                              elinewidth=1, label=label if ls else None)  # fmt: skip
        for name, value in _known(paper).items():
            match = _VGG16.fullmatch(name)
            if match and way == "cell":
                style.paper_mark(axes, place[match[1]], value)
        if chance is not None:
            axes.axhline(chance, color="black", lw=1, ls=":")
        for last in (1.5, 3.5, 6.5, 9.5):
            axes.axvline(last, color="#CCCCCC", lw=0.8, zorder=0)
        axes.axvline(len(_LAYERS) - 0.3, color="#777777", lw=1.2, zorder=0)
        axes.set_title(style.left_out_label(way), fontsize=9)
        axes.set(ylabel="balanced accuracy", ylim=(0, 1))
        axes.grid(axis="y", lw=0.4)
    panels[-1].set_xticks(list(place.values()), [name.replace("_", "\n") for name in _LAYERS] + ["fc1,\n224 px"], fontsize=8)
    style.head(figure, title, list(panels[0].get_legend_handles_labels()[0]) + _legend_end(bool(paper), chance))
    style.caption(figure, scores, note, _INTERVALS)
    return figure


def accuracy_by_k(
    scores: pd.DataFrame,
    title: str,
    paper: Mapping[str, Mapping[int, float]] | None = None,
    *,
    chance: float | None = None,
    note: str = "",
) -> Figure:
    """Show kNN accuracy by the number of neighbours, one panel a feature set (supplementary table 1).

    Parameters
    ----------
    scores : DataFrame
        Score table; classifiers other than ``knn`` are passed over.
    title : str
    paper : mapping of str to mapping of int to float, optional
        The paper's accuracies in [0, 1] by our feature set's name and k.
    chance : float, optional
    note : str
        On which cells.
    """
    scores = style.pick(scores, _NEEDED, classifier="knn")
    style.once(scores, "features", "left_out", "k")
    order, ks = _order(scores), sorted(scores["k"].unique())
    columns = min(len(order), 5)
    lines = -(-len(order) // columns)
    figure = Figure(figsize=(max(2.0 * columns, 5.5), 1.75 * lines + 1.3), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    ways = _ways(scores["left_out"])
    for axes, name in zip(grid.flat, order, strict=False):
        for i, way in enumerate(ways):
            rows = scores[(scores["features"] == name) & (scores["left_out"] == way)].sort_values("k")
            colour, marker, fill = ways[way]
            x = np.searchsorted(ks, rows["k"]) + 0.12 * (i - (len(ways) - 1) / 2)
            axes.errorbar(x, rows["accuracy"], _error(rows), color=colour, marker=marker, mfc=fill, ms=4, lw=1.1, elinewidth=0.9)
        theirs = {k: v for k, v in _known((paper or {}).get(name)).items() if k in ks}
        style.paper_mark(axes, [float(ks.index(k)) for k in theirs], list(theirs.values()), size=4.5)
        if chance is not None:
            axes.axhline(chance, color="black", lw=0.9, ls=":")
        axes.set_title(style.set_label(name), fontsize=8, fontweight="bold" if style.is_pci(name) else "normal")
        axes.set(ylim=(0, 1), xlim=(-0.5, len(ks) - 0.5))
        axes.set_xticks(range(len(ks)), [str(k) for k in ks])
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", lw=0.4)
    for i, axes in enumerate(grid.flat):
        if i >= len(order):
            axes.set_visible(False)
        elif i + columns >= len(order):
            axes.set_xlabel("k", fontsize=8)
            axes.tick_params(labelbottom=True)
    figure.supylabel("balanced accuracy", fontsize=9)
    handles = [
        Line2D([], [], color=colour, marker=marker, mfc=fill, ms=4, lw=1.1, label=style.left_out_label(way))
        for way, (colour, marker, fill) in ways.items()
    ]
    style.head(figure, title, handles + _legend_end(bool(paper), chance))
    style.caption(figure, scores, note, _INTERVALS)
    return figure


def classifiers(
    scores: pd.DataFrame,
    title: str,
    paper: Mapping[str, Mapping[str, float]] | None = None,
    *,
    chance: float | None = None,
    k: int = 11,
    note: str = "",
) -> Figure:
    """Show each feature set under every classifier (supplementary table 2).

    Parameters
    ----------
    scores : DataFrame
        Score table; of ``knn`` the rows with `k` neighbours.
    title : str
    paper : mapping of str to mapping of str to float, optional
        The paper's accuracies in [0, 1] by classifier and our feature set's name.
    chance : float, optional
    k : int
    note : str
        On which cells.
    """
    scores = style.pick(scores, _NEEDED)
    scores = style.pick(scores[(scores["classifier"] != "knn") | (scores["k"] == k)], _NEEDED)
    style.once(scores, "features", "left_out", "classifier")
    order = _order(scores[scores["classifier"] == "knn"]) if (scores["classifier"] == "knn").any() else []
    order += [name for name in _order(scores) if name not in order]
    known = [c for c in _MARKS if (scores["classifier"] == c).any()]
    ways = list(_ways(scores["left_out"]))
    figure = Figure(figsize=(10 if len(ways) > 1 else 7, 0.5 * len(order) + 1.8), layout="constrained")
    panels = figure.subplots(1, len(ways), squeeze=False, sharex=True, sharey=True)[0]
    step = 0.7 / max(len(known), 1)
    for axes, way in zip(panels, ways, strict=True):
        for i, classifier in enumerate(known):
            rows = scores[(scores["left_out"] == way) & (scores["classifier"] == classifier)]
            colour, marker = _MARKS[classifier]
            shift = step * (i - (len(known) - 1) / 2)
            y = np.array([order.index(name) for name in rows["features"]], float) + shift
            axes.errorbar(rows["accuracy"], y, xerr=_error(rows), fmt=marker, color=colour, ms=8 if marker == "*" else 5, elinewidth=1.1)
            theirs = {n: v for n, v in _known((paper or {}).get(classifier)).items() if n in order} if way == "cell" else {}
            style.paper_mark(axes, list(theirs.values()), [order.index(name) + shift for name in theirs], size=5)
        if chance is not None:
            axes.axvline(chance, color="black", lw=1, ls=":")
        style.set_names(axes, order)
        folds = "single cells" if way == "cell" else f"whole {way.replace('_', ' ')}s"
        axes.set_title(f"kNN: {style.left_out_label(way)} · others: folds of {folds}", fontsize=9)
        axes.set(xlim=(0, 1), xlabel="balanced accuracy")
        axes.grid(axis="x", lw=0.4)
    names = {**style.CLASSIFIERS, "knn": f"kNN, k = {k}"}
    handles = [
        Line2D([], [], color=_MARKS[c][0], marker=_MARKS[c][1], ms=8 if c == "end_to_end" else 5, lw=1.1, label=names[c]) for c in known
    ]
    style.head(figure, title, handles + _legend_end(bool(paper), chance))
    style.caption(figure, scores, note, _INTERVALS)
    return figure
