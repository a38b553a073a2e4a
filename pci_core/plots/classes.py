"""Figures by class: recall of every class in every feature set, and the confusion matrix."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pci_core.errors import CellTableError
from pci_core.plots import style

_MEAN = "mean over classes"


def recall_heatmap(
    recalls: pd.DataFrame, title: str, *, left_out: str | None = None, classifier: str = "knn", k: int | None = 11, note: str = ""
) -> Figure:
    """Show the recall of each class in each feature set in percent (figure 2A, by class), best sets first.

    Parameters
    ----------
    recalls : DataFrame
        One row a feature set and class: ``features, classifier, k, left_out, label, recall, n_cells``.
    title : str
    left_out : str, optional
        Which way of leaving out to show; by default the first besides the cell itself.
    classifier : str
    k : int or None
        Which k of kNN; None to take whatever there is.
    note : str
        On which cells, e.g. ``SIMULATED cells``.

    Raises
    ------
    UnknownNameError
        A column is not there.
    CellTableError
        No row to show, or two for one place.
    """
    k = k if classifier == "knn" else None
    recalls = style.pick(recalls, ("features", "left_out", "label", "recall", "n_cells"), classifier=classifier, k=k)
    left_out = left_out or (style.leak_free(recalls["left_out"]) or ["cell"])[0]
    recalls = style.pick(recalls, (), left_out=left_out)
    style.once(recalls, "features", "label")
    n_cells = recalls.groupby("label", observed=True)["n_cells"].max()
    wide = 100 * recalls.pivot(index="label", columns="features", values="recall")
    wide = wide[wide.mean().sort_values(ascending=False, kind="stable").index]
    wide = wide.loc[wide.mean(axis=1).sort_values(ascending=False, kind="stable").index]
    wide = pd.concat([wide.mean().to_frame(_MEAN).T, wide])
    size = (max(0.5 * wide.shape[1] + 3.4, 5.5), 0.27 * len(wide) + 2.3)
    figure, axes = _heatmap(wide, "recall (%)", size)
    axes.set_yticklabels([_MEAN, *(f"{label} (n = {n_cells[label]:,})" for label in wide.index[1:])])
    axes.set_xticklabels([style.set_label(name) for name in wide.columns], rotation=45, ha="left", rotation_mode="anchor")
    for tick, name in zip(axes.get_xticklabels(), wide.columns, strict=True):
        tick.set_fontweight("bold" if style.is_pci(name) else "normal")
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.axhline(1, color="black", lw=1.5)
    figure.suptitle(title, fontsize=10)
    told = f"{style.CLASSIFIERS.get(classifier, classifier)}{f', k = {k}' if k else ''}, {style.left_out_label(left_out)}"
    style.foot(figure, f"{n_cells.sum():,} cells, {len(n_cells)} classes", note, told)
    return figure


def confusion(matrix: pd.DataFrame, title: str, *, note: str = "") -> Figure:
    """Show which classes are taken for one another, in percent of the true class.

    Parameters
    ----------
    matrix : DataFrame
        (true classes, predicted classes) counts; a further column may hold cells without a prediction.
    title : str
    note : str
        On which cells, e.g. ``SIMULATED cells``.

    Raises
    ------
    CellTableError
        No cells, or negative or missing counts.
    """
    counts = matrix.astype(float)
    if counts.size == 0 or not (counts.to_numpy() >= 0).all() or not counts.to_numpy().sum():
        raise CellTableError("a confusion matrix needs counts of at least one cell, none of them missing or negative.")
    total = counts.sum(axis=1)
    share = 100 * counts.div(total.where(total > 0), axis=0)  # a class without cells stays blank
    n = max(share.shape)
    figure, axes = _heatmap(share, "cells of the true class (%)", (max(0.32 * n + 3.7, 5.5), 0.28 * n + 3.0), blank_below=0.5)
    axes.set_yticklabels([f"{label} (n = {int(m):,})" for label, m in total.items()])
    axes.set_xticklabels([str(c) for c in share.columns], rotation=45, ha="left", rotation_mode="anchor")
    axes.set_ylabel("true class", fontsize=9)
    axes.set_xlabel("predicted class", fontsize=9)
    axes.xaxis.set_label_position("top")
    for i, label in enumerate(share.index):
        if label in share.columns:
            j = share.columns.get_loc(label)
            axes.plot([j, j + 1, j + 1, j, j], [i, i, i + 1, i + 1, i], color=style.ORANGE, lw=1.2, clip_on=False)
    figure.suptitle(title, fontsize=10)
    style.foot(
        figure, f"{int(total.sum()):,} cells, {(total > 0).sum()} classes", note, "each row adds up to 100\u00a0%; blank: below 0.5\u00a0%"
    )
    return figure


def _heatmap(wide: pd.DataFrame, unit: str, size: tuple[float, float], blank_below: float = 0.0) -> tuple[Figure, Axes]:
    """Draw percentages in blue with their numbers; sequential in lightness, so that it reads without colour."""
    import seaborn  # here, since it takes a second to load

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    values = wide.to_numpy(float)
    text = np.array([["" if not v >= blank_below else f"{v:.0f}" for v in row] for row in values])
    with rc_context({"text.parse_math": False}):  # seaborn draws the names at once, to see whether they fit
        seaborn.heatmap(wide, ax=axes, cmap="Blues", vmin=0, vmax=100, annot=text, fmt="", annot_kws={"fontsize": 8}, linewidths=0.5,
                        cbar_kws={"shrink": 0.6, "pad": 0.015, "aspect": 30})  # fmt: skip
    bar = axes.collections[0].colorbar
    if bar is not None:
        bar.ax.tick_params(labelsize=8)
        bar.set_label(unit, fontsize=8)
    axes.set_facecolor("#EEEEEE")
    axes.xaxis.tick_top()
    axes.set(xlabel="", ylabel="")
    axes.tick_params(length=0, labelsize=8)
    axes.tick_params(axis="y", rotation=0)
    return figure, axes
