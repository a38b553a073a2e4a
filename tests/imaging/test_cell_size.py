from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.draw import disk

from pci_core.errors import ImageError
from pci_core.imaging import cell_size
from pci_core.imaging.read import read_pixels


def field(radius: float, side: int = 400, n: int = 40, seed: int = 0, level: float = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Disks that do not touch, radius within 10 %, on noise: picture and labels."""
    rng = np.random.default_rng(seed)
    picture, labels = rng.normal(100, 10, (side, side)), np.zeros((side, side), np.int32)
    centres: list[np.ndarray] = []
    for _ in range(4000):
        at = rng.uniform(radius + 2, side - radius - 2, 2)
        if len(centres) < n and all(np.hypot(*(at - c)) > 2.6 * radius for c in centres):
            centres.append(at)
            where = disk(tuple(at), radius * rng.uniform(0.9, 1.1), shape=picture.shape)
            picture[where] += level
            labels[where] = len(centres)
    return picture.clip(0).astype(np.uint16), labels


@pytest.mark.parametrize("radius", [6, 14, 40])
@pytest.mark.parametrize("method", ["nuclei-split", "yeast"])
def test_diameter_is_found_without_a_hint(radius: int, method: str) -> None:
    made = [field(radius, side=max(200, 12 * radius), seed=s) for s in (0, 1)]
    found = cell_size.estimate([plane for plane, _ in made], method)
    true = cell_size.summarise([labels for _, labels in made], "labels").diameter
    # smoothing and the threshold move an outline by about a pixel, and cells at the border are not counted
    assert abs(found.diameter - true) < 1.5 + 0.05 * true
    assert found.low <= found.diameter <= found.high and found.score > 0.8
    assert min(found.counts) > 3 and min(found.trust) > cell_size.CellSize.unsure


def test_an_empty_field_gives_no_cells_or_no_trust() -> None:
    cells, noise = field(14)[0], np.random.default_rng(1).normal(100, 10, (400, 400)).astype(np.uint16)
    found = cell_size.estimate([cells, noise], "nuclei-split")
    assert found.trust[0] > 0.9 and found.trust[1] < cell_size.CellSize.unsure
    assert abs(found.diameter - 28) < 3, "the empty field has no say"
    assert cell_size.estimate([noise], "yeast").counts == (0,)
    constant = cell_size.estimate([np.zeros((64, 64), np.uint8)], "nuclei-split")
    assert math.isnan(constant.diameter) and constant.score == 0
    with pytest.raises(ImageError, match="no field"):
        cell_size.estimate([], "yeast")


def test_masks_are_measured_and_not_judged() -> None:
    labels = field(10)[1]
    found = cell_size.summarise([labels, np.zeros_like(labels)], "labels")
    assert abs(found.diameter - 20) < 1.5 and found.counts == (labels.max(), 0) and found.trust == (1.0, 0.0)


def test_fill_tells_a_cytosolic_from_a_nuclear_marker() -> None:
    picture, labels = field(14)
    spots = np.full(picture.shape, 100.0) + np.random.default_rng(0).normal(0, 5, picture.shape)
    for n in range(1, labels.max() + 1):
        ys, xs = np.nonzero(labels == n)
        spots[disk((ys.mean(), xs.mean()), 4, shape=spots.shape)] += 2000
    even, clear = cell_size.fill(picture, labels)
    part, _ = cell_size.fill(spots, labels)
    assert even > 0.8 > 0.4 > part and clear > 50  # 1000 over a noise of 10
    assert cell_size.fill(picture, np.zeros_like(labels)) == (0.0, 0.0)


def test_nuclei_are_told_from_whole_cells_by_the_light_around_them() -> None:
    picture, labels = field(12)
    large = field(12, level=0)[0].astype(float)
    for n in range(1, labels.max() + 1):
        ys, xs = np.nonzero(labels == n)
        large[disk((ys.mean(), xs.mean()), 26, shape=large.shape)] += 800
    assert cell_size.is_nuclear(np.stack([picture, large.astype(np.uint16)]), labels, 24) is True
    assert cell_size.is_nuclear(picture[None], labels, 24) is False
    assert cell_size.is_nuclear(np.full((1, 400, 400), 7, np.uint16), labels, 24) is None


def test_crops_follow_the_paper() -> None:
    # HPA: 0.08 µm/px, nuclei of about 14 µm = 175 px, crop of 512 px reduced by 4; yeast of 40 px, crop of 64 px
    size, factor = cell_size.propose_crop(175, whole=False, field=2048)
    assert factor == 4 and abs(size * factor - 512) < 0.06 * 512
    assert cell_size.propose_crop(40, whole=True, field=1344) == (64, 1)
    assert cell_size.propose_crop(300, whole=False, field=820)[0] * cell_size.propose_crop(300, whole=False, field=820)[1] <= 412
    assert all(cell_size.propose_crop(d, True, 2000)[0] % 4 == 0 for d in range(5, 500, 7))


def test_settings_grow_with_the_cell() -> None:
    small, large = cell_size.settings_for("nuclei-split", 10), cell_size.settings_for("nuclei-split", 20)
    assert large.sigma == 2 * small.sigma and abs(large.min_area - 4 * small.min_area) <= 3 and small.fill_holes > 0
    assert cell_size.settings_for("yeast", 10).fill_holes == 0


@pytest.mark.slow
def test_real_yeast(test_data: Path) -> None:
    planes = [tifffile.imread(p) for p in sorted((test_data / "yeast-fields").glob("*ch3sk*"))]
    found = cell_size.estimate(planes, "yeast")
    # by eye 17 to 23 px; the network's labels, which run together mother and bud and a rim, have a median of 27
    assert 17 < found.diameter < 27 and found.counts[2] == 0, "r02c01f01 holds no cells"


@pytest.mark.slow
def test_real_nuclei(test_data: Path) -> None:
    names = [f"dna-{i}.png" for i in (0, 10, 20)]
    planes = [read_pixels(test_data / "nuclei-u2os" / "dna" / n)[..., 0] for n in names]
    hand = [read_pixels(test_data / "nuclei-u2os" / "labels" / n) for n in names]
    true = cell_size.summarise([(h[..., 0] if h.ndim == 3 else h).astype(np.int32) for h in hand], "labels").diameter
    assert abs(cell_size.estimate(planes, "nuclei-split").diameter / true - 1) < 0.15  # 7 % on all 25 fields
