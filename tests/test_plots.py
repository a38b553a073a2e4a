"""Figures: they can be drawn from small tables and arrays, and say what they must."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pci_core import plots
from pci_core.cells import Channel
from pci_core.painting import Painted

CHANNELS = (Channel("gfp", "protein"), Channel("dna", "structural"), Channel("tub", "structural"))


def texts(figure: Figure) -> str:
    figure.savefig(io.BytesIO(), format="png", dpi=50)  # whatever cannot be drawn fails here
    found = [t.get_text() for axes in figure.axes for t in axes.texts] + [axes.get_title() for axes in figure.axes]
    return "|".join([*found, figure.get_suptitle(), figure.get_supxlabel()])


def test_composite_stretches_each_channel_and_survives_a_flat_one() -> None:
    image = np.zeros((3, 10, 10), np.uint16)
    image[0, :5] = 4000
    rgb = plots.composite(image, CHANNELS)
    assert rgb.shape == (10, 10, 3) and np.isfinite(rgb).all()
    np.testing.assert_allclose(rgb[0, 0], np.array(plots.PROTEIN) / max(plots.PROTEIN))
    assert rgb[9, 9].max() == 0


@pytest.mark.parametrize(("um_per_px", "expected"), [(0.64, "5 µm"), (None, "10 px"), (0.1, "1 µm")])
def test_scale_bar_is_a_round_number_near_a_fifth_of_the_width(um_per_px: float | None, expected: str) -> None:
    axes = Figure().subplots()
    plots.scale_bar(axes, um_per_px, 64)
    assert axes.texts[0].get_text() == expected
    drawn = np.ptp(axes.lines[0].get_xdata())
    assert drawn == pytest.approx(float(expected.split()[0]) / (um_per_px or 1) / 64)  # the bar is as long as it says


def test_field_of_view() -> None:
    field, labels = np.random.default_rng(0).integers(0, 255, (3, 80, 80)), np.zeros((80, 80), int)
    labels[20:40, 20:40], labels[50:60, 50:60] = 1, 2
    cells = pd.DataFrame({"y": [30.0], "x": [30.0]})
    told = texts(plots.field_of_view(field, labels, cells, 32, CHANNELS, 0.32, "MKI67 (SIMULATED)"))
    assert (
        "SIMULATED" in told
        and "2 objects outlined, 1 crops" in told
        and "µm" in told
        and "channel 'gfp' in yellow · channel 'dna' in blue" in told
    )


def test_pairs() -> None:
    rng = np.random.default_rng(0)
    pairs = Painted(rng.random((2, 3, 16, 16)), rng.random((2, 3, 16, 16)), rng.random((2, 1, 16, 16)))
    told = texts(plots.painted_pairs(pairs, CHANNELS, ["A", "B"], None, "title"))
    assert "title" in told and "A|" in told and "px" in told
    assert len(plots.painted_pairs(pairs, CHANNELS, ["A", "B"], None, "t").axes) == 8
    assert len(plots.training_pairs(pairs, CHANNELS, ["A", "B"], None, "t").axes) == 6


@pytest.mark.parametrize("held_out", [0.1, np.nan])
def test_training_curve(held_out: float) -> None:
    losses = pd.DataFrame({"epoch": [1, 2], "train_loss": [0.2, 0.1], "held_out_loss": held_out})
    figure = plots.training_curve(losses, "curve")
    texts(figure)
    assert len(figure.axes[0].lines) == (1 if np.isnan(held_out) else 2)


def test_accuracy_by_layer_with_and_without_intervals() -> None:
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


def test_recall_by_class() -> None:
    table = pd.DataFrame(
        {"features": ["a", "a", "b", "b"], "label": ["x", "y"] * 2, "recall": [0.1, 0.9, 0.2, 0.8], "n_cells": [5, 6, 5, 6]}
    )
    figure = plots.recall_by_class(table, "recall")
    texts(figure)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["x (n = 5)", "y (n = 6)"]
