from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from pci_core.cells import Channel
from pci_core.errors import ImageError
from pci_core.plots import style
from pci_core.plots.contact_sheet import CROPS, ROWS, View, contact_sheet

CHANNELS = [Channel("gfp", "protein"), Channel("dapi", "structural")]


def view(name: str = "f1", cells: int = 3, side: int = 100, channels: int = 2) -> View:
    rng = np.random.default_rng(0)
    labels = np.zeros((side, side), np.int32)
    centres = np.array([[20.0 + 25 * i, 30.0 + 10 * i] for i in range(cells)]).reshape(-1, 2)
    for i, (y, x) in enumerate(centres.astype(int)):
        labels[y - 5 : y + 5, x - 5 : x + 5] = i + 1
    return View(
        name, "A01", rng.integers(0, 99, (channels, side, side)).astype(np.uint16), labels, centres, rng.random((cells, channels, 16, 16))
    )


def texts(figure: object) -> str:
    return " ".join(t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")))  # type: ignore[attr-defined]


def test_every_channel_outline_square_and_count_is_there() -> None:
    figure = contact_sheet([view(), view("f2")], CHANNELS, 20, 0.5, "two fields", ["by hand"])
    figure.canvas.draw()
    grid = figure.subfigs[0].axes
    assert len(grid) == 2 * 3
    assert [a.get_title() for a in grid[:2]] == ["gfp (protein)", "dapi (structural)"]
    squares = [p for p in grid[2].patches if p.get_width() == 20]
    assert len(squares) == 3 and to_hex(squares[0].get_edgecolor()).upper() == style.ORANGE
    picture = np.asarray(grid[2].images[0].get_array())
    assert (picture == 1).all(axis=2).sum() >= 3 * 30, "outlines are white"
    said = texts(figure)
    assert "2 of 2 sampled fields shown; 6 cells found in the sample, 6 of them cut out" in said
    assert "image A01" in said and "3 found, 3 cut" in said and "by hand" in said and "µm" in said
    assert sum(bool(a.images) for a in figure.subfigs[1].axes) == 2 * 6


def test_large_fields_are_shown_close_up_and_reduced() -> None:
    figure = contact_sheet([view(side=1500)], CHANNELS, 20, None, "wide")
    grid = figure.subfigs[0].axes
    assert max(grid[0].images[0].get_array().shape) <= 600
    assert grid[2].get_xlim()[1] - grid[2].get_xlim()[0] == 7 * 20
    assert "px" in texts(figure)


def test_many_fields_channels_and_cells_are_limited() -> None:
    many = [Channel(f"c{i}", "protein" if i == 0 else "structural") for i in range(6)]
    figure = contact_sheet([view(f"f{i}", channels=6) for i in range(9)], many, 20, None, "many")
    assert len(figure.subfigs[0].axes) == ROWS * 7
    assert len(figure.subfigs[1].axes) == 2 * CROPS


def test_no_cells_and_no_fields() -> None:
    assert "NO cell would be cut out" in texts(contact_sheet([view(cells=0)], CHANNELS, 20, None, "none"))
    with pytest.raises(ImageError, match="no field"):
        contact_sheet([], CHANNELS, 20, None, "none")
