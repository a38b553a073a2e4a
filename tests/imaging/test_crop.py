"""Crops: where they lie, how they are resized, what is dropped and counted."""

from __future__ import annotations

import numpy as np
import pytest

from pci_core.errors import DatasetError
from pci_core.imaging.crop import cell_table, crop_cells, resize_crops


def two_cells() -> tuple[np.ndarray, np.ndarray]:
    field = np.random.default_rng(0).integers(0, 60000, (2, 40, 50), dtype=np.uint16)
    labels = np.zeros((40, 50), np.int32)
    labels[18:23, 20:27] = 3  # centre of mass 20, 23
    labels[2:5, 10:13] = 7  # a 16 px crop reaches over the edge
    return field, labels


def test_crop_lies_around_the_centre_of_mass() -> None:
    field, labels = two_cells()
    got = crop_cells(field, labels, 16, 16)
    np.testing.assert_array_equal(got.crops, field[None, :, 12:28, 15:31])
    assert got.crops.dtype == np.uint16
    assert got.centres.tolist() == [[20.0, 23.0]] and got.areas.tolist() == [35] and got.labels.tolist() == [3]
    assert got.dropped == {"below_min_fraction": 0, "above_max_fraction": 0, "over_edge": 1}


def test_a_crop_that_just_fits_is_kept() -> None:
    field = np.zeros((1, 16, 16), np.uint8)
    labels = np.zeros((16, 16), np.int32)
    labels[8, 8] = 1
    assert len(crop_cells(field, labels, 16, 16).crops) == 1
    labels[:] = 0
    labels[9, 8] = 1
    assert len(crop_cells(field, labels, 16, 16).crops) == 0


def test_centre_of_mass_is_that_of_the_pixels() -> None:
    labels = np.zeros((9, 9), np.int32)
    labels[1, 1] = labels[1, 2] = labels[2, 1] = 5
    numbers, centres, areas = cell_table(labels)
    assert numbers.tolist() == [5] and areas.tolist() == [3]
    np.testing.assert_allclose(centres, [[4 / 3, 4 / 3]])  # rounding of float64 only


def test_area_filters_and_their_counts() -> None:
    field, labels = two_cells()
    small = crop_cells(field, labels, 16, 16, min_fraction=0.2)  # 35 and 9 px of 256
    assert small.dropped == {"below_min_fraction": 2, "above_max_fraction": 0, "over_edge": 0}
    assert small.crops.shape == (0, 2, 16, 16)
    large = crop_cells(field, labels, 16, 16, max_fraction=0.1)
    assert large.dropped == {"below_min_fraction": 0, "above_max_fraction": 1, "over_edge": 1}


def test_limits_are_inclusive() -> None:
    field = np.zeros((1, 40, 40), np.uint8)
    labels = np.zeros((40, 40), np.int32)
    labels[18:22, 18:22] = 1  # 16 of 256 px
    assert len(crop_cells(field, labels, 16, 16, min_fraction=16 / 256, max_fraction=16 / 256).crops) == 1


def test_whole_factor_is_an_exact_local_mean() -> None:
    crops = np.array([0, 1, 2, 3], np.uint8).reshape(1, 1, 2, 2)
    assert resize_crops(np.tile(crops, (1, 1, 2, 2)), 2).tolist() == [[[[2, 2], [2, 2]]]]  # 1.5 rounds to the even 2
    big = np.random.default_rng(0).integers(0, 65536, (3, 2, 32, 32), dtype=np.uint16)
    np.testing.assert_array_equal(resize_crops(big, 16)[1, 0, 0, 0], np.rint(big[1, 0, :2, :2].astype(float).mean()))


def test_other_factors_keep_type_and_level() -> None:
    crops = np.full((1, 1, 20, 20), 117, np.uint8)
    for side in (12, 32):
        got = resize_crops(crops, side)
        assert got.shape == (1, 1, side, side) and got.dtype == np.uint8
        np.testing.assert_array_equal(got, 117)
    assert resize_crops(crops.astype(np.float32), 12).dtype == np.float32


def test_no_cells() -> None:
    got = crop_cells(np.zeros((3, 30, 30), np.float32), np.zeros((30, 30), np.int32), 16, 8)
    assert got.crops.shape == (0, 3, 8, 8) and got.crops.dtype == np.float32 and got.centres.shape == (0, 2)


def test_a_crop_larger_than_the_field_is_dropped() -> None:
    field, labels = two_cells()
    assert crop_cells(field, labels, 64, 64).dropped["over_edge"] == 2


def test_field_and_labels_must_fit() -> None:
    with pytest.raises(DatasetError, match="segment the same field"):
        crop_cells(np.zeros((1, 30, 30)), np.zeros((30, 31), int), 16, 16)
