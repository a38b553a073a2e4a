"""Granularity beside cp_measure's own, reconstruction beside scikit-image's: bit for bit, since only order and sums are involved."""

from __future__ import annotations

import numpy as np
import pytest
from cp_measure.core.measuregranularity import get_granularity
from skimage.morphology import reconstruction

from pci_core.baselines.granularity import rebuilt, spectrum

CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)


def planes(sides: list[tuple[int, int]], seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Cells of several sizes, of as few levels as 8-bit crops have, one of them dark and one constant."""
    rng = np.random.default_rng(seed)
    labels, found = [], []
    for k, (h, w) in enumerate(sides):
        rows, columns = np.mgrid[:h, :w]
        labels.append((np.hypot(rows - h / 2, columns - w / 2) < max(min(h, w) / 2.2, 1)).astype(np.int64))
        plane = rng.integers(0, 200, (h, w)) * (rng.random((h, w)) < 0.5) / 255
        found.append(plane if k % 4 < 2 else np.full((h, w), 0.0 if k % 4 == 2 else 0.3))
    return labels, found


@pytest.mark.parametrize("sides", [[(64, 64), (31, 47), (47, 31), (40, 40), (64, 64)], [(3, 3), (5, 4), (3, 9)], [(200, 190)]])
def test_it_is_cp_measures(sides: list[tuple[int, int]]) -> None:
    labels, pixels = planes(sides)
    found = spectrum(labels, pixels)
    assert found.shape == (len(sides), 8)
    for label, plane, values in zip(labels, pixels, found, strict=True):
        expected = get_granularity(label, plane, subsample_size=1.0, granular_spectrum_length=8)
        np.testing.assert_array_equal(values, [expected[f"Granularity_{i}"][0] for i in range(1, 9)])


def test_a_plane_does_not_depend_on_those_beside_it() -> None:
    labels, pixels = planes([(64, 60), (20, 33), (50, 50)])
    alone = [spectrum([label], [plane])[0] for label, plane in zip(labels, pixels, strict=True)]
    np.testing.assert_array_equal(spectrum(labels, pixels), alone)


def test_light_flows_round_every_corner() -> None:
    spiral = np.zeros((31, 31), np.int16)
    y = x = 15
    dy, dx, length = 0, 1, 2
    while max(y, x) < 30 and min(y, x) > 0:
        for _ in range(2):
            for _ in range(length):
                if 0 <= y < 31 and 0 <= x < 31:
                    spiral[y, x] = 100
                y, x = y + dy, x + dx
            dy, dx = dx, -dy
        length += 2
    low = np.zeros_like(spiral)
    low[15, 15] = 70
    found = rebuilt(np.stack([low, np.minimum(low, 50)], 2), np.stack([spiral, spiral // 2], 2))
    assert (found[:, :, 0] > 0).sum() == (spiral > 0).sum() > 200
    for k, top in enumerate((spiral, spiral // 2)):
        np.testing.assert_array_equal(found[:, :, k], reconstruction(np.minimum(low, top), top, footprint=CROSS))


def test_reconstruction_of_noise() -> None:
    rng = np.random.default_rng(1)
    top = rng.integers(0, 50, (30, 20, 6))
    low = np.where(rng.random(top.shape) < 0.1, top, 0)
    expected = [reconstruction(low[:, :, k], top[:, :, k], footprint=CROSS) for k in range(6)]
    np.testing.assert_array_equal(rebuilt(low, top), np.stack(expected, 2))
