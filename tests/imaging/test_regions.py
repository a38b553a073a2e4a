"""Values of regions beside scipy's own; the same numbers, not near ones: only comparisons and one sum of two are involved."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage as ndi

from pci_core.imaging.regions import depths, highest, middle


def labels_and_values(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels, _ = ndi.label(ndi.gaussian_filter(rng.normal(size=(60, 47)), 1.5) > 0.05)
    values = rng.integers(0, 30, labels.shape).astype(np.float32) / 7  # ties too
    return np.where(labels == 2, 0, labels), values  # a label that is nowhere


@pytest.mark.parametrize("seed", range(4))
def test_highest_and_middle_are_scipys(seed: int) -> None:
    labels, values = labels_and_values(seed)
    n = int(labels.max()) + 1
    assert n > 6
    there = np.bincount(labels.ravel(), minlength=n) > 0
    found = highest(values, labels, n)
    np.testing.assert_array_equal(found[there], ndi.maximum(values, labels, np.flatnonzero(there)))
    assert found[2] == 0
    found, there[0] = middle(values, labels, n), False
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found[there], ndi.median(values, labels, np.flatnonzero(there)))
    assert found[2] == found[0] == 0


@pytest.mark.parametrize("seed", range(4))
def test_depths_are_those_of_the_whole_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    holes, n = ndi.label(ndi.gaussian_filter(rng.normal(size=(90, 80)), 2) > 0.05)  # some meet at their corners
    inside = np.ones(n + 1, bool)
    inside[np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1], [0]])] = False
    assert inside.sum() > 4
    expected = ndi.maximum(ndi.distance_transform_edt(holes > 0), holes, np.arange(n + 1))
    np.testing.assert_array_equal(depths(holes, inside), np.where(inside, expected, 0))


def test_nothing_to_measure() -> None:
    empty = np.zeros((5, 6), np.int64)
    assert highest(np.ones((5, 6)), empty, 1).tolist() == [1.0]
    assert middle(np.ones((5, 6)), empty, 1).tolist() == [0.0]
    assert depths(empty, np.zeros(1, bool)).tolist() == [0.0]
