"""Mean distances of pairs of images: against scipy, in blocks of any size, on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from pci_core.analysis import image_distances
from pci_core.analysis.image_distances import mean_distances

A, B = np.array([0, 1, 2, 0, 5, 1, 0]), np.array([1, 0, 5, 3, 2, 4, 5])


def made_up(n: int = 60, images: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 7)).astype(np.float32), rng.integers(-1, images, n)  # cells of an image need not lie together


def one_by_one(x: np.ndarray, image: np.ndarray) -> list[float]:
    return [cdist(x[image == i], x[image == j]).mean() for i, j in zip(A, B, strict=True)]


@pytest.mark.parametrize(("block", "task"), [(1024, 8), (20, 1), (1, 2), (9, 100)])
def test_mean_distances_are_scipys(block: int, task: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_distances, "_BLOCK", block)  # several blocks an image, or several images a task
    monkeypatch.setattr(image_distances, "_TASK", task)
    x, image = made_up()
    np.testing.assert_allclose(mean_distances(x, image, A, B), one_by_one(x, image), rtol=1e-5)  # float32 squares are subtracted


def test_cells_that_count_nowhere_change_nothing() -> None:
    x, image = made_up()
    wanted = mean_distances(x, image, A, B)
    x[image < 0] = 1e6
    np.testing.assert_array_equal(mean_distances(x, image, A, B), wanted)


def test_one_thread_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_distances, "_TASK", 1)
    x, image = made_up(400, 40)
    a = np.arange(39)
    wanted = mean_distances(x, image, a, a + 1)
    monkeypatch.setattr(image_distances.joblib, "cpu_count", lambda: 1)
    np.testing.assert_array_equal(mean_distances(x, image, a, a + 1), wanted)


def test_equal_cells_lie_at_0() -> None:
    x = np.full((6, 3), 0.1, np.float32)  # what is subtracted may be below 0 by rounding; its root would be NaN
    assert mean_distances(x, np.repeat([0, 1], 3), np.array([0]), np.array([1])) == pytest.approx(0, abs=1e-3)  # sqrt of float32 rounding
