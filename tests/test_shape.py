"""Descriptors of drawn ellipses, whose angle and axes are known, and what flips do to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pci_core import shape
from pci_core.cells import CellDataset, CellWriter, Channel
from pci_core.errors import SamplingError
from pci_core.shape import NAMES, describe, shapes

SIDE = 64


def ellipse(a: float, b: float, degrees: float, y: float = 31.5, x: float = 31.5) -> np.ndarray:
    """Draw a filled ellipse of half axes a and b, px; the angle is counted from the rows upwards, as on paper."""
    yy, xx = np.mgrid[:SIDE, :SIDE]
    up, right, t = -(yy - y), xx - x, np.deg2rad(degrees)
    long, short = right * np.cos(t) + up * np.sin(t), up * np.cos(t) - right * np.sin(t)
    return ((long / a) ** 2 + (short / b) ** 2 <= 1).astype(np.float32)


def of(*pictures: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(NAMES, describe(np.stack(pictures)[:, None]).T, strict=True))


@pytest.mark.parametrize("degrees", [0, 20, 45, 90, 135, 170])
@pytest.mark.parametrize(("a", "b"), [(20, 10), (24, 18), (12, 4)])
def test_axes_and_angle_of_an_ellipse(a: float, b: float, degrees: float) -> None:
    found = of(ellipse(a, b, degrees))
    # the moments of a drawn ellipse are those of its formula within its ragged edge, which is worst for the narrow one of 4 px
    near = 0.03
    assert found["size"][0] == pytest.approx(np.pi * a * b / SIDE**2, rel=0.05)  # of 151 px, a third lie at its edge
    assert found["elongation"][0] == pytest.approx((a**2 - b**2) / (a**2 + b**2), abs=near)
    assert found["along"][0] == pytest.approx(found["elongation"][0] * np.cos(np.deg2rad(2 * degrees)), abs=near)
    assert found["across"][0] == pytest.approx(found["elongation"][0] * np.sin(np.deg2rad(2 * degrees)), abs=near)


def test_a_disc_has_no_orientation_wherever_it_lies() -> None:
    found = of(ellipse(15, 15, 0), ellipse(15, 15, 70, 24.5, 38.5))
    for name in ("elongation", "along", "across"):
        np.testing.assert_allclose(found[name], 0, atol=0.01)  # the edge again
    np.testing.assert_allclose(found["radius"], 2 / 3 * 15 / 32, rtol=0.01)  # of a disc: 2/3 of its radius
    np.testing.assert_allclose(found["border"], 0, atol=1e-6)


def test_flips_change_the_sign_of_across_alone() -> None:
    picture = ellipse(20, 8, 30, 25.5, 38.5)
    found = of(picture, picture[::-1], picture[:, ::-1], picture[::-1, ::-1])
    for name in set(NAMES) - {"across"}:
        np.testing.assert_allclose(found[name], found[name][0], rtol=1e-4)  # sums in another order
    np.testing.assert_allclose(found["across"], found["across"][0] * np.array([1, -1, -1, 1]), rtol=1e-4)


def test_neighbours_count_at_the_border() -> None:
    alone, with_one = ellipse(12, 12, 0), np.maximum(ellipse(12, 12, 0), ellipse(9, 9, 0, 62.5, 31.5))
    found = of(alone, with_one)
    frame = np.ones((SIDE, SIDE), bool)
    frame[8:-8, 8:-8] = False
    assert found["border"][0] == 0 and found["border"][1] == pytest.approx(with_one[frame].sum() / with_one.sum(), rel=1e-5)


def test_brightness_and_its_offset_do_not_count_nor_does_one_hot_pixel() -> None:
    picture = ellipse(20, 10, 20)
    hot = picture.copy()
    hot[3, 60] = 50
    found = describe(np.stack([picture, picture * 700 + 90, hot])[:, None])
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    np.testing.assert_allclose(found[2], found[0], atol=0.03)  # it is one bright pixel of 629, far away


def test_a_blank_channel_is_zeros_and_channels_stand_side_by_side() -> None:
    one, two = ellipse(20, 10, 20), ellipse(9, 9, 0)
    found = describe(np.stack([np.stack([one, np.full_like(one, 7), two])]).astype(np.uint16) * 100)
    assert found.shape == (1, 18) and found.dtype == np.float32 and not found[:, 6:12].any()
    np.testing.assert_allclose(found[0, 12:], describe(two[None, None])[0], atol=1e-6)


def test_of_a_dataset_each_column_is_on_one_scale(make_cells: Callable[..., CellDataset], monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_cells(images=3, cells=5)
    rows = np.array([1, 2, 3, 7, 8, 14])
    found = shapes(dataset, rows)
    assert found.shape == (15, 6) and found.dtype == np.float32 and not np.delete(found, rows, 0).any()
    raw = describe(np.asarray(dataset.crops)[rows][:, 1:]).astype(np.float64)
    np.testing.assert_allclose(found[rows], (raw - raw.mean(0)) / raw.std(0), atol=1e-5)
    monkeypatch.setattr(shape, "_BLOCK", 2 * 4 * dataset.crops[0].size)  # blocks of two cells
    np.testing.assert_array_equal(shapes(dataset, rows), found)


def test_cells_of_one_shape_are_refused(tmp_path: Path) -> None:
    def write(name: str, channels: tuple[Channel, ...]) -> CellDataset:
        crops = np.zeros((4, len(channels), 16, 16), np.uint8)
        crops[:, :, 4:9, 5:12] = 200
        with CellWriter(tmp_path / name, channels, None) as writer:
            writer.add(crops, pd.DataFrame({"cell_id": list("abcd"), "image": "i"}))
        return CellDataset(tmp_path / name)

    alike = write("alike", (Channel("green", "protein"), Channel("blue", "structural")))
    with pytest.raises(SamplingError, match=r"all 4 are alike in the structural channels \(blue\)"):
        shapes(alike, np.arange(4))
    with pytest.raises(SamplingError, match="the cells have none"):
        shapes(write("one", (Channel("green", "protein"),)), np.arange(4))
