"""Figures of one network's scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pci_core import plots


def test_accuracy_by_layer_with_and_without_intervals(texts: Callable[[Figure], str]) -> None:
    rows = [
        {"left_out": left, "network": network, "layer": layer, "accuracy": 0.6, "low": low, "high": low + 0.2}
        for left, low in (("cell", 0.5), ("image", np.nan))
        for network in ("trained", "untrained")
        for layer in ("conv1", "conv2")
    ]
    figure = plots.accuracy_by_layer(pd.DataFrame(rows), 0.2, "kNN", paper={"conv1": 0.43})
    assert "own cell left out" in texts(figure) and "own image left out" in texts(figure)
    shown = [[line.get_label() for line in axes.lines] for axes in figure.axes]
    assert "paper (other cells)" in shown[0] and "paper (other cells)" not in shown[1]


def test_recall_by_class(texts: Callable[[Figure], str]) -> None:
    table = pd.DataFrame(
        {"features": ["a", "a", "b", "b"], "label": ["x", "y"] * 2, "recall": [0.1, 0.9, 0.2, 0.8], "n_cells": [5, 6, 5, 6]}
    )
    figure = plots.recall_by_class(table, "recall")
    texts(figure)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["x (n = 5)", "y (n = 6)"]
