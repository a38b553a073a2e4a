from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pci_core.cells import Channel
from pci_core.errors import DatasetError
from pci_core.imaging.masks import cell_masks, channel_kind

YEAST = (Channel("gfp", "protein"), Channel("rfp", "structural"))
HUMAN = (Channel("protein", "protein"), Channel("nucleus", "structural"), Channel("microtubules", "structural"))


def disk(radius: float, y: float = 31.5, x: float = 31.5, side: int = 64) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return np.hypot(rows - y, columns - x) <= radius


def noisy(light: np.ndarray, dtype: str = "uint8", scale: float = 200.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.clip(10 + light * scale + rng.normal(0, 0.02 * scale, light.shape), 0, None).astype(dtype)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("name", ["nucleus", "DAPI", "blue", "ch1_dna"])
def test_nuclear_names(name: str) -> None:
    assert channel_kind(name) == "nucleus"


@pytest.mark.parametrize(
    ("name", "kind"), [("nup49", "ring"), ("nuclear_envelope", "ring"), ("Brightfield", "brightfield"), ("red", "body"), ("rfp", "body")]
)
def test_other_names(name: str, kind: str) -> None:
    assert channel_kind(name) == kind


@pytest.mark.parametrize(("dtype", "scale"), [("uint8", 200.0), ("uint16", 20000.0), ("float32", 0.5)])
def test_yeast_cell_apart_from_a_touching_brighter_neighbour(dtype: str, scale: float) -> None:
    own, neighbour = disk(14), disk(14, x=60.5)
    marker = noisy(0.5 * own + 0.9 * (neighbour & ~own), dtype, scale)
    masks = cell_masks(np.stack([np.zeros_like(marker), marker])[None], YEAST)
    assert masks.cell.shape == (1, 64, 64) and masks.cell.dtype == bool and masks.nucleus is None and masks.found.all()
    assert overlap(masks.cell[0], own) > 0.85  # a blurred edge may lie a pixel off: 0.87 at radius 14
    assert (masks.cell[0] & disk(11, x=60.5)).sum() == 0


def test_bud_belongs_to_its_mother_when_the_crop_is_centred_on_both() -> None:
    mother, bud = disk(13, x=26), disk(8, x=46)
    both = mother | bud
    shift = int(round(31.5 - np.nonzero(both)[1].mean()))
    mother, bud, both = (np.roll(m, shift, 1) for m in (mother, bud, both))
    marker = noisy(0.8 * both)
    assert overlap(cell_masks(np.stack([marker, marker])[None], YEAST).cell[0], both) > 0.85


def test_human_cell_ends_half_way_to_the_next_nucleus() -> None:
    own, other = disk(8), disk(8, x=58)
    body = disk(26) | disk(26, x=58)
    crop = np.stack([noisy(body * 0.1), noisy(0.9 * (own | other)), noisy(0.6 * body)])
    masks = cell_masks(crop[None], HUMAN)
    assert masks.nucleus is not None and overlap(masks.nucleus[0], own) > 0.8
    columns = np.nonzero(masks.cell[0])[1]
    assert masks.found.all() and abs(columns.max() - 45) <= 2 and columns.min() <= 8  # (31.5 + 58) / 2, and the body's left end
    assert (masks.nucleus[0] & ~masks.cell[0]).sum() == 0


def test_a_nucleus_alone_may_lie_off_the_middle() -> None:
    own = disk(6, y=14, x=12)
    crop = np.stack([noisy(own * 0.0), noisy(0.9 * own), noisy(0.6 * disk(11, y=14, x=12))])
    masks = cell_masks(crop[None], HUMAN)
    assert masks.found.all() and overlap(masks.cell[0], disk(11, y=14, x=12)) > 0.75


def test_protein_has_no_say() -> None:
    rng = np.random.default_rng(1)
    crop = np.stack([noisy(disk(26) * 0.1), noisy(0.9 * disk(8)), noisy(0.6 * disk(20))])
    other = crop.copy()
    other[0] = rng.integers(0, 255, (64, 64))
    a, b = cell_masks(crop[None], HUMAN), cell_masks(other[None], HUMAN)
    assert (a.cell == b.cell).all() and a.nucleus is not None and b.nucleus is not None and (a.nucleus == b.nucleus).all()


def test_a_cell_does_not_depend_on_the_others() -> None:
    crops = np.stack([[noisy(disk(r)), noisy(disk(r) * 0.5)] for r in (8, 12, 16)])
    assert (cell_masks(crops, YEAST).cell[1] == cell_masks(crops[1:2], YEAST).cell[0]).all()


@pytest.mark.parametrize("channels", [YEAST, HUMAN, (YEAST[0], Channel("brightfield", "structural"))])
def test_without_contrast_the_disk_stands_in_and_is_counted(channels: tuple[Channel, ...]) -> None:
    masks = cell_masks(np.full((2, len(channels), 64, 64), 7, np.uint8), channels)
    assert not masks.found.any()
    assert abs(masks.cell.sum((1, 2)) - np.pi * (64 / 3) ** 2).max() < 40  # a disk on a grid
    if masks.nucleus is not None:
        assert (masks.nucleus & ~masks.cell).sum() == 0 and masks.nucleus.any()


def test_nucleus_without_body_is_grown_and_counted() -> None:
    crop = np.stack([noisy(disk(5)), noisy(0.9 * disk(8)), np.full((64, 64), 3, np.uint8)])
    masks = cell_masks(crop[None], HUMAN)
    assert not masks.found.any() and overlap(masks.cell[0], disk(16)) > 0.8


def test_refusals() -> None:
    with pytest.raises(DatasetError, match="do not fit 2 channels"):
        cell_masks(np.zeros((1, 3, 8, 8), np.uint8), YEAST)
    with pytest.raises(DatasetError, match="no structural channel"):
        cell_masks(np.zeros((1, 1, 8, 8), np.uint8), YEAST[:1])


def test_real_cut_out_cells(test_data: Path) -> None:
    tiles = np.load(test_data / "hpa-duloc" / "tiles_128.npz", allow_pickle=False)["crops"][::40, :3]
    masks = cell_masks(tiles, HUMAN)
    # one cell on black in each tile: all that shines is the cell
    lit = (tiles[:, 1:].max(1) > 25).sum((1, 2))
    inside = ((tiles[:, 1:].max(1) > 25) & masks.cell).sum((1, 2)) / np.maximum(lit, 1)
    assert masks.found.all() and np.median(inside) > 0.95 and np.mean(inside > 0.8) > 0.85
