"""Figures of images: they can be drawn from small arrays, and say what they must."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pci_core import plots
from pci_core.cells import Channel
from pci_core.painting import Painted

CHANNELS = (Channel("gfp", "protein"), Channel("dna", "structural"), Channel("tub", "structural"))


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


def test_field_of_view(texts: Callable[[Figure], str]) -> None:
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


def test_pairs(texts: Callable[[Figure], str]) -> None:
    rng = np.random.default_rng(0)
    pairs = Painted(rng.random((2, 3, 16, 16)), rng.random((2, 3, 16, 16)), rng.random((2, 1, 16, 16)))
    told = texts(plots.painted_pairs(pairs, CHANNELS, ["A", "B"], None, "title"))
    assert "title" in told and "A|" in told and "px" in told
    assert len(plots.painted_pairs(pairs, CHANNELS, ["A", "B"], None, "t").axes) == 8
    assert len(plots.training_pairs(pairs, CHANNELS, ["A", "B"], None, "t").axes) == 6
