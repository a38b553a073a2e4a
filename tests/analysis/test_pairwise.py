"""Condensed distances against scipy's: far rows, near rows, equal rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from pci_core.analysis import pairwise
from pci_core.analysis.pairwise import condensed_distances

METRICS = ("euclidean", "correlation", "cosine")


@pytest.fixture(autouse=True)
def always_by_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise, "_FEW", 1)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("block", [1, 7, 128])
def test_distances_are_scipys(metric: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise, "_BLOCK", block)
    x = np.random.default_rng(0).normal(size=(150, 11)) + 1
    # the products' rounding, some 1e-15 of |x|^2, in a squared distance that is at least 1e-4 of it
    np.testing.assert_allclose(condensed_distances(x, metric), pdist(x, metric), rtol=1e-10)


@pytest.mark.parametrize("metric", METRICS)
def test_near_rows_keep_their_digits(metric: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 30)).repeat(2, 0) + 3
    x[1::2] += rng.normal(size=(40, 30)) * np.logspace(-9, 0, 40)[:, None]
    found, wanted = condensed_distances(x, metric), pdist(x, metric)
    if metric == "euclidean":
        assert wanted.min() < 1e-7
        np.testing.assert_allclose(found, wanted, rtol=1e-10)  # of 1e-8 a plain product keeps no digit: its error is sqrt(1e-15 |x|^2)
    else:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14)  # scipy takes a dot product, of 30 roundings, from 1
        assert (found > 0).all()


def test_equal_rows_lie_at_0() -> None:
    x = np.random.default_rng(2).normal(size=(3, 50)).repeat(30, 0)
    for metric in METRICS:
        found = condensed_distances(x, metric)
        assert (found >= 0).all() and (found == 0).sum() == 3 * 30 * 29 // 2
    assert (condensed_distances(np.zeros((5, 2)), "euclidean") == 0).all()


def test_few_rows_are_left_to_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise, "_FEW", 2000)
    x = np.random.default_rng(3).normal(size=(60, 4))
    np.testing.assert_array_equal(condensed_distances(x, "correlation"), pdist(x, "correlation"))
