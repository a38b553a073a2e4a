"""One cell under two names is told by its features."""

from __future__ import annotations

import numpy as np

from pci_core.analysis.twins import LEAST_FEATURES, twins


def test_a_cell_in_two_groups_is_told_also_after_rounding() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 30)).astype(np.float32)
    x[30] = x[2] * np.float32(1 + 1e-7)  # last bits of another machine
    x[31] = x[3]
    groups = np.repeat(np.arange(10), 4)
    groups[31] = groups[3]  # the same cell twice in one group leaks nothing
    assert np.flatnonzero(twins(x, groups)).tolist() == [2, 30]


def test_few_features_may_be_equal_by_chance() -> None:
    x = np.zeros((10, LEAST_FEATURES - 1), np.float32)
    x[::2] = 1
    assert not twins(x, np.arange(10)).any()
    assert not twins(np.ones((10, 50), np.float32), np.arange(10)).any()
