"""Galleries of crops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pci_core.cells import CellDataset
from pci_core.errors import CellTableError
from pci_core.plots.gallery import crop_rows, draw_cells


def test_a_row_a_group_with_names_and_what_they_are(make_cells: Callable[..., CellDataset]) -> None:
    cells = make_cells()
    figure = crop_rows(cells, {"one": [0, 1, 2], "none": [], "two": [6]}, "Crops", names={"one": ["P0", "P0", "P0"]}, note="made up")
    pictures = [a for a in figure.axes if a.images]
    assert len(pictures) == 4 and pictures[0].get_title() == "P0"
    assert "µm" in pictures[0].texts[0].get_text()  # the scale bar
    under = figure.get_supxlabel().replace("\n", " ")
    assert "4 cells of 2 proteins" in under and "made up" in under and "protein yellow" in under


def test_the_protein_alone_is_grey(make_cells: Callable[..., CellDataset]) -> None:
    picture = crop_rows(make_cells(), {"one": [3]}, "Crops", show="protein").axes[0].images[0].get_array()
    assert picture is not None
    assert (picture[..., 0] == picture[..., 1]).all() and picture.max() == 1


def test_nothing_to_show_and_a_wrong_way(make_cells: Callable[..., CellDataset]) -> None:
    with pytest.raises(CellTableError, match="every group is empty"):
        crop_rows(make_cells(), {"one": []}, "Crops")
    with pytest.raises(CellTableError, match="composite, protein"):
        crop_rows(make_cells(), {"one": [0]}, "Crops", show="all")


def test_cells_come_from_as_many_images_as_possible(make_cells: Callable[..., CellDataset]) -> None:
    cells = make_cells()  # 4 images of 6 cells
    drawn = draw_cells(cells, np.arange(24), 8)
    assert np.unique(cells.table["image"].iloc[drawn], return_counts=True)[1].tolist() == [2, 2, 2, 2]
    assert len(set(drawn)) == 8 and len(draw_cells(cells, np.arange(3), 8)) == 3
    assert draw_cells(cells, np.arange(24), 8).tolist() == drawn.tolist()
