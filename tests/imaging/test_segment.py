"""Segmentation on made-up fields whose cells are known, and on real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage as ndi
from skimage.filters import threshold_otsu
from skimage.measure import label as connected

from pci_core import recipe as recipes
from pci_core.errors import ImageError, RecipeError, UnknownNameError
from pci_core.imaging.read import read_pixels
from pci_core.imaging.segment import fill_small_holes, read_labels, segment_field, segment_nuclei, tidy
from pci_core.imaging.segment_yeast import METHODS, segment_yeast

Disk = tuple[float, float, float]  # y, x, radius
APART: list[Disk] = [(30, 30, 10), (30, 80, 12), (75, 40, 9), (85, 95, 11)]
TOUCHING: list[Disk] = [(40, 40, 14), (40, 68, 14), (67, 54, 14), (110, 100, 14), (110, 128, 14)]

CLUMPS: list[Disk] = [(40, 40, 14), (40, 65, 14), (110, 80, 13), (110, 103, 13), (110, 126, 13)]


def draw(disks: list[Disk], side: int = 150, rim: float = 0.0, noise: float = 4.0) -> np.ndarray:
    """Blurred bright disks on a grey ground; `rim` > 0: only their outline."""
    yy, xx = np.mgrid[:side, :side]
    image = np.zeros((side, side))
    for y, x, r in disks:
        d = np.hypot(yy - y, xx - x)
        image = np.maximum(image, np.abs(d - r) < rim if rim else d < r)
    blurred = ndi.gaussian_filter(image, 1.2) * 1000 + 200
    return (blurred + np.random.default_rng(0).normal(0, noise, image.shape)).astype(np.float32)


def found(labels: np.ndarray, disks: list[Disk]) -> list[bool]:
    """Say for each disk whether exactly one object overlaps it with IoU > 0.6."""
    yy, xx = np.mgrid[: labels.shape[0], : labels.shape[1]]
    out = []
    for y, x, r in disks:
        disk = np.hypot(yy - y, xx - x) < r
        numbers, overlap = np.unique(labels[disk & (labels > 0)], return_counts=True)
        best = max((o / ((labels == n) | disk).sum() for n, o in zip(numbers, overlap, strict=True)), default=0)
        out.append(best > 0.6)
    return out


def test_all_nuclei_are_found_the_last_one_too() -> None:
    labels = segment_nuclei(draw(APART), sigma=1.0, min_area=100, fill_holes=50)
    assert labels.dtype == np.int32
    assert sorted(np.unique(labels)) == [0, 1, 2, 3, 4]
    assert found(labels, APART) == [True] * 4


def test_small_objects_and_those_at_the_border_are_dropped() -> None:
    image = draw([*APART, (0, 120, 12), (120, 120, 4)])
    assert segment_nuclei(image, sigma=1.0, min_area=100, fill_holes=0).max() == 4
    assert segment_nuclei(image, sigma=1.0, min_area=100, fill_holes=0, clear_border=False).max() == 5
    assert segment_nuclei(image, sigma=1.0, min_area=10, fill_holes=0, clear_border=False).max() == 6


def test_threshold_is_otsu_of_the_unsmoothed_channel() -> None:
    image = draw(APART, noise=80)
    smooth = ndi.gaussian_filter(image, 3.0, mode="nearest")
    right, other = smooth > threshold_otsu(image), smooth > threshold_otsu(smooth)
    got = segment_nuclei(image, sigma=3.0, min_area=1, fill_holes=0, clear_border=False) > 0
    assert (right != other).any()  # or the test would say nothing
    np.testing.assert_array_equal(got, right)


def test_holes_below_the_limit_are_filled() -> None:
    mask = np.ones((30, 30), bool)
    mask[5:8, 5:8] = mask[15:20, 15:20] = False  # 9 and 25 px
    filled = fill_small_holes(mask, 25)
    assert filled[6, 6] and not filled[17, 17]
    assert fill_small_holes(mask, 26).all()
    np.testing.assert_array_equal(fill_small_holes(mask, 0), mask)


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_channel_has_no_cells(value: int) -> None:
    image = np.full((64, 64), value, np.uint8)
    assert segment_nuclei(image, sigma=2.0, min_area=10, fill_holes=10).max() == 0
    assert segment_nuclei(image, sigma=2.0, min_area=10, fill_holes=10, split=True).max() == 0
    for method in METHODS:
        assert segment_yeast(image, method, sigma=1.5, min_area=50).max() == 0


def test_touching_nuclei_stay_together_as_in_the_paper_unless_split() -> None:
    image = draw(CLUMPS)
    assert segment_nuclei(image, sigma=1.0, min_area=60, fill_holes=0).max() == 2
    labels = segment_nuclei(image, sigma=1.0, min_area=60, fill_holes=0, split=True)
    assert labels.max() == 5 and found(labels, CLUMPS) == [True] * 5


def test_debris_hides_nuclei_from_the_papers_threshold_not_from_the_split_one() -> None:
    image = draw(APART, side=300)
    image[200:212, 200:212] = 20000
    assert sum(found(segment_nuclei(image, sigma=1.0, min_area=60, fill_holes=0), APART)) == 0
    assert sum(found(segment_nuclei(image, sigma=1.0, min_area=60, fill_holes=0, split=True), APART)) == 4


def test_yeast_touching_cells_are_cut_apart() -> None:
    labels = segment_yeast(draw(TOUCHING), "yeast", sigma=1.0, min_area=60)
    assert labels.max() == 5 and found(labels, TOUCHING) == [True] * 5


def test_yeast_bud_stays_with_its_mother() -> None:
    image = draw([(60, 60, 16), (60, 80, 8), (120, 120, 15)])  # a wide, bright neck
    labels = segment_yeast(image, "yeast", sigma=1.0, min_area=60)
    assert labels.max() == 2 and labels[60, 60] == labels[60, 82] != 0


def test_yeast_vacuole_is_part_of_the_cell() -> None:
    yy, xx = np.mgrid[:150, :150]
    image = draw([(60, 60, 16), (110, 110, 15)])
    image[np.hypot(yy - 62, xx - 60) < 6] = 300
    labels = segment_yeast(image, "yeast", sigma=1.0, min_area=60)
    assert labels[62, 60] == labels[60, 72] != 0


@pytest.mark.parametrize("sign", [1, -1])
def test_yeast_brightfield_outlines_bright_or_dark(sign: int) -> None:
    disks = [(40.0, 40.0, 15.0), (40.0, 100.0, 16.0), (105.0, 60.0, 15.0)]
    image = 5000 + sign * (draw(disks, rim=1.5, noise=20) - 200)
    labels = segment_yeast(image, "yeast-brightfield", sigma=1.5, min_area=100)
    assert labels.max() == 3 and found(labels, disks) == [True] * 3


def test_yeast_ring_finds_the_cell_not_only_its_nucleus() -> None:
    disks = [(40.0, 40.0, 16.0), (40.0, 100.0, 17.0), (105.0, 60.0, 15.0)]
    body, rings = draw(disks) - 200, draw([(y, x + 3, 5) for y, x, _ in disks], rim=1.5) - 200
    labels = segment_yeast(200 + 0.15 * body + 2 * rings, "yeast-ring", sigma=1.5, min_area=100)
    assert labels.max() == 3 and found(labels, disks) == [True] * 3


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_field_of_noise_has_no_yeast(method: str) -> None:
    noise = np.random.default_rng(0).poisson(200, (256, 256))
    assert segment_yeast(noise, method, sigma=1.5, min_area=100).max() == 0


def test_unknown_yeast_method() -> None:
    with pytest.raises(UnknownNameError, match="yeast-ring"):
        segment_yeast(np.eye(30), "yeast-rings", sigma=1, min_area=10)


def test_tidy_keeps_another_tools_numbers() -> None:
    labels = np.zeros((20, 20), np.int64)
    labels[5:10, 5:10] = 2_000_000_000
    labels[12, 12] = 3
    got = tidy(labels, min_area=5, clear_border=True, renumber=False)
    assert sorted(np.unique(got)) == [0, 2_000_000_000] and got.dtype == np.int32


def make_recipe(**segmentation: object) -> recipes.Recipe:
    channels = [{"name": "protein", "role": "protein"}, {"name": "nucleus", "role": "structural"}]
    source = {"kind": "table", "path": "fields.csv"}
    content = {"name": "made-up", "title": "t", "channels": channels, "source": source, "segmentation": segmentation}
    return recipes.parse(content, "made-up")


def test_segment_field_uses_the_named_channel(tmp_path: Path) -> None:
    image = draw(CLUMPS)
    field = np.stack([np.zeros_like(image), image])
    common = {"channel": "nucleus", "sigma": 1.0, "min_area": 60}
    assert segment_field(field, make_recipe(method="nuclei", **common)).max() == 2
    assert segment_field(field, make_recipe(method="nuclei-split", **common)).max() == 5
    yeast = segment_field(np.stack([image, draw(TOUCHING)]), make_recipe(method="yeast", **common))
    assert found(yeast, TOUCHING) == [True] * 5
    with pytest.raises(RecipeError, match="nucleus"):
        segment_field(field, make_recipe(method="nuclei", channel="nuclues"))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_label_images_of_other_tools(tmp_path: Path, suffix: str) -> None:
    labels = np.zeros((20, 30), np.uint16)
    labels[3:9, 3:9] = 700
    labels[12:15, 20:26] = 2
    path = tmp_path / f"l{suffix}"
    if suffix == ".png":
        Image.fromarray(labels).save(path)
    elif suffix == ".tif":
        tifffile.imwrite(path, labels)
    else:
        np.save(path, labels)
    got = read_labels(path, (20, 30))
    np.testing.assert_array_equal(got, labels)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(read_labels(path, (10, 15), 2), labels[1::2, 1::2])
    with pytest.raises(ImageError, match="20x30 px, the field 30x20"):
        read_labels(path, (30, 20))
    field = np.zeros((2, 20, 30), np.uint8)
    taken = segment_field(field, make_recipe(method="labels", min_area=20), {"field": "f", "labels": path.name}, tmp_path)
    assert np.unique(taken).tolist() == [0, 700]
    with pytest.raises(ImageError, match="field 'f' has no label image"):
        segment_field(field, make_recipe(method="labels"), {"field": "f", "labels": ""}, tmp_path)


def test_unusable_label_images(tmp_path: Path) -> None:
    np.save(tmp_path / "float.npy", np.full((5, 5), 0.5))
    np.save(tmp_path / "pickle.npy", np.array([{"masks": 1}]), allow_pickle=True)
    np.save(tmp_path / "negative.npy", np.full((5, 5), -1))
    (tmp_path / "empty.png").touch()
    for name, what in (("float", "no label image"), ("pickle", "save its masks as PNG or TIFF"), ("negative", "no label image")):
        with pytest.raises(ImageError, match=rf"{name}\.npy.*{what}"):
            read_labels(tmp_path / f"{name}.npy", (5, 5))
    with pytest.raises(ImageError, match=r"empty\.png is empty"):
        read_labels(tmp_path / "empty.png", (5, 5))


def test_label_images_of_other_types(tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.int64)
    labels[3:9, 3:9], labels[12:15, 20:26] = 1, 70_000
    for dtype in ("int32", "uint32", "float32", ">i4"):
        tifffile.imwrite(tmp_path / "l.tif", labels.astype(dtype), photometric="minisblack")
        np.testing.assert_array_equal(read_labels(tmp_path / "l.tif", (20, 30)), labels)
    small = np.minimum(labels, 7).astype(np.uint8)
    for colours in (3, 4):
        Image.fromarray(np.stack([small] * colours, -1)).save(tmp_path / "l.png")
        np.testing.assert_array_equal(read_labels(tmp_path / "l.png", (20, 30)), small)


def test_a_mask_without_numbers_is_no_label_image(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[3:9, 3:9] = 255
    Image.fromarray(mask).save(tmp_path / "one.png")
    assert read_labels(tmp_path / "one.png", (20, 30)).max() == 255  # a single cell is one in any case
    mask[12:15, 20:26] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    with pytest.raises(ImageError, match=r"mask\.png is a mask of 2 pieces that all bear the number 255"):
        read_labels(tmp_path / "mask.png", (20, 30))


def test_real_label_images_of_yeast_and_a_mask_of_the_atlas(test_data: Path) -> None:
    for name, n in (("r01c01f01p01", 432), ("r01c01f02p01", 157), ("r02c01f01p01", 12)):  # int16; the numbers have gaps
        labels = read_labels(test_data / "yeast-fields" / f"{name}_labeled.tiff", (1080, 1080))
        assert labels.dtype == np.int32 and len(np.unique(labels)) - 1 == n
    assert len(np.unique(read_labels(test_data / "hpa-fields" / "383_D2_1_mask.png", (2048, 2048)))) == 21


def test_real_nuclei(test_data: Path) -> None:
    folder = test_data / "nuclei-u2os"
    channel = read_pixels(folder / "dna" / "dna-20.png")[..., 0]
    true = read_labels(folder / "labels" / "dna-20.png", (1024, 1344))
    labels = segment_nuclei(channel, sigma=2.0, min_area=600, fill_holes=1200, clear_border=False)
    centres = np.rint(ndi.center_of_mass(labels > 0, labels, np.arange(1, labels.max() + 1))).astype(int)
    hit = set(true[tuple(centres.T)].tolist()) - {0}
    assert len(hit) >= 0.95 * true.max()  # 43 of 43 when written; a field without debris


def test_real_empty_yeast_field_has_no_cells(test_data: Path) -> None:
    channel = read_pixels(test_data / "yeast-fields" / "r02c01f01p01-ch3sk1fk1fl1.tiff")[:540, :540]
    assert segment_yeast(channel, "yeast", sigma=1.0, min_area=100).max() == 0


def test_real_yeast_cells_are_apart(test_data: Path) -> None:
    folder = test_data / "yeast-fields"
    channel = read_pixels(folder / "r01c01f02p01-ch3sk1fk1fl1.tiff")[540:, 540:]
    labels = segment_yeast(channel, "yeast", sigma=1.0, min_area=100)
    # plain thresholding leaves the clumps whole; by eye this quarter has about 100 cells in about 30 clumps
    clumps = connected(ndi.gaussian_filter(channel, 1) > 600).max()
    assert 70 <= labels.max() <= 130 and clumps < 60
    areas = np.bincount(labels.ravel())[1:]
    assert np.median(areas) == pytest.approx(400, rel=0.3)  # px, cells about 22 px across by eye
