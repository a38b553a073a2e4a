"""Figures of one network's scores: by layer and by class."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pci_core.plots import style
from pci_core.plots.style import GREEN, PAPER, TRAINED, UNTRAINED

_NETWORKS = {"trained": (TRAINED, "o"), "untrained": (UNTRAINED, "s"), "shipped": (GREEN, "D")}


def accuracy_by_layer(table: pd.DataFrame, chance: float, title: str, paper: dict[str, float] | None = None) -> Figure:
    """Show balanced kNN accuracy by layer with its intervals.

    Parameters
    ----------
    table : DataFrame
        Rows of `pci_core.analysis.classify.knn_table` with further columns ``layer`` and ``network``
        (``trained``, ``untrained``, ``shipped``).
    chance : float
        Accuracy of guessing.
    title : str
    paper : dict of str to float, optional
        The paper's accuracy by layer in [0, 1], drawn beside where only the own cell is left out.
    """
    figure = Figure(figsize=(4.2 * table["left_out"].nunique(), 3.4), layout="constrained")
    panels = figure.subplots(1, table["left_out"].nunique(), squeeze=False, sharey=True)[0]
    layers = sorted(table["layer"].unique())
    for axes, (left_out, part) in zip(panels, table.groupby("left_out", sort=False), strict=True):
        for (network, rows), offset in zip(part.groupby("network", sort=False), (0.1, -0.1, 0.0), strict=False):
            x = np.array([layers.index(layer) for layer in rows["layer"]]) + offset
            error = np.nan_to_num(np.abs(rows[["low", "high"]].to_numpy().T - rows["accuracy"].to_numpy()))
            colour, marker = _NETWORKS.get(network, (PAPER, "^"))
            axes.errorbar(x, rows["accuracy"], error, fmt=marker, ms=5, capsize=3, label=network, color=colour)
        if paper and left_out == "cell":  # the paper leaves out the cell alone
            axes.plot(
                range(len(layers)), [paper.get(layer, np.nan) for layer in layers], "x", color=PAPER, ms=6, label="paper (other cells)"
            )
        axes.axhline(chance, color="black", lw=0.8, ls=":", label="chance")
        axes.set(xticks=range(len(layers)), xticklabels=layers, title=f"own {left_out} left out", ylim=(0, 1))
        axes.title.set_fontsize(9)
    panels[0].set_ylabel("balanced accuracy")
    panels[0].legend(fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=9)
    style.literal(figure)
    return figure


def recall_by_class(table: pd.DataFrame, title: str) -> Figure:
    """Show the recall of each class for two or more feature sets; rows of `pci_core.analysis.classify.recall_by_class`."""
    wide = table.pivot(index="label", columns="features", values="recall")[list(dict.fromkeys(table["features"]))]
    wide = wide.sort_values(wide.columns[0])
    n_cells = table.drop_duplicates("label").set_index("label")["n_cells"]
    figure = Figure(figsize=(6.5, 0.24 * len(wide) + 1.1), layout="constrained")
    axes = figure.subplots()
    y = np.arange(len(wide))
    for name, colour, marker in zip(wide.columns, (TRAINED, UNTRAINED, PAPER), "osD", strict=False):
        axes.plot(wide[name], y, marker, color=colour, ms=5, label=name)
    axes.set(yticks=y, yticklabels=[f"{label} (n = {n_cells[label]})" for label in wide.index], xlim=(-0.02, 1.02), xlabel="recall")
    axes.tick_params(axis="y", labelsize=7)
    axes.grid(axis="x", lw=0.4)
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    style.literal(figure)
    return figure
