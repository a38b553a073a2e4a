"""The authors' toy sets: a made-up archive with every kind of fault, and the real one where it is at hand."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pci_core import recipe as recipes
from pci_core.data import authors
from pci_core.data.download import git_blob_sha1
from pci_core.errors import DatasetError, DownloadError, ImageError, RecipeError, UnknownNameError

YEAST = "yeast_model/toy_dataset/images"
HUMAN = "human_model/toy_dataset"
SMALL_YEAST = recipes.load("authors-toy-yeast").replace(crop={"size": 8, "resize": 8, "min_cells": 2})
SMALL_HUMAN = recipes.load("authors-toy-human").replace(crop={"size": 16, "resize": 8, "min_cells": 1})
DATA = os.environ.get("PCI_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="PCI_TEST_DATA names no folder with the authors' archive")


def tiff(plane: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, plane)
    return buffer.getvalue()


class Archive:
    """A small archive of the authors' form, its registry, and the mirror it lies in."""

    def __init__(self, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(0)
        self.path = mirror / authors.ARCHIVE.removeprefix("https://")
        self.planes: dict[str, np.ndarray] = {}
        for protein, cells in (("AAC10", 3), ("AAC2", 12), ("AAH1", 1)):
            for i in range(1, cells + 1):
                for channel in ("gfp", "rfp"):
                    self.planes[f"{YEAST}/{protein}/{protein}_1_rfp_{i}_{channel}.tif"] = rng.random((8, 8), np.float32)
        for folder, field in (("A1CF_762_F2", "762_F2_1"), ("A4GALT_1645_H1_6", "1645_H1_6_cr57b5683c9a8ca")):
            for channel in ("blue", "green", "red"):
                self.planes[f"{HUMAN}/{folder}/{field}_7_{channel}.tif"] = rng.random((16, 16), np.float32)
        self.files = {path: tiff(plane) for path, plane in self.planes.items()}
        self.registry = {path: git_blob_sha1(content) for path, content in self.files.items()}
        monkeypatch.setattr(authors, "registry", lambda: self.registry)
        monkeypatch.setenv("PCI_MIRROR", str(mirror))
        self.write()

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(self.path, "w") as archive:
            for path, content in sorted(self.files.items(), reverse=True):
                archive.writestr(f"paired_cell_inpainting-{authors.COMMIT}/{path}", content)

    def replace(self, path: str, content: bytes) -> None:
        """Put another content under `path`, as if the authors had published it."""
        self.files[path], self.registry[path] = content, git_blob_sha1(content)
        self.write()


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    return Archive(tmp_path / "mirror", monkeypatch)


def test_yeast(archive: Archive, tmp_path: Path) -> None:
    cells = authors.toy_cells("yeast", SMALL_YEAST, tmp_path / "out")
    cells.verify()
    assert cells.crops.shape == (15, 2, 8, 8) and cells.crops.dtype == np.float32
    # AAC2 before AAC10, cell 2 before cell 10: natural order
    assert cells.table["image"].unique().tolist() == ["AAC2", "AAC10"]
    assert cells.table["cell_id"].tolist()[:12] == [f"AAC2_1_rfp_{i}" for i in range(1, 13)]
    assert set(cells.table["location"]) == {""}  # known for the five real proteins only
    assert set(cells.table["field"]) == {"AAC2_1", "AAC10_1"} and cells.table["protein"].equals(cells.table["image"])
    for row in (0, 11, 14):
        stem = f"{YEAST}/{cells.table['image'][row]}/{cells.table['cell_id'][row]}"
        np.testing.assert_array_equal(cells.crops[row, 0], archive.planes[f"{stem}_gfp.tif"])
        np.testing.assert_array_equal(cells.crops[row, 1], archive.planes[f"{stem}_rfp.tif"])
    assert cells.info["left_out"] == {"images_below_min_cells": {"AAH1": 1}, "cells": 1}
    assert cells.info["source"]["commit"] == authors.COMMIT and cells.um_per_px is None


def test_human(archive: Archive, tmp_path: Path) -> None:
    cells = authors.toy_cells("human", SMALL_HUMAN, tmp_path / "out")
    assert [(c.name, c.role) for c in cells.channels] == [("green", "protein"), ("blue", "structural"), ("red", "structural")]
    assert cells.table[["protein", "plate", "well", "field"]].to_numpy().tolist() == [
        ["A1CF", "762", "F2", "762_F2_1"],
        ["A4GALT", "1645", "H1", "1645_H1_6_cr57b5683c9a8ca"],
    ]
    assert cells.um_per_px == pytest.approx(0.64)  # 0.32 µm/px, halved
    assert "proteinatlas.org" in cells.info["source"]["terms"]
    blue = archive.planes[f"{HUMAN}/A1CF_762_F2/762_F2_1_7_blue.tif"]
    expected = (blue[0::2, 0::2] + blue[1::2, 0::2] + blue[0::2, 1::2] + blue[1::2, 1::2]) / 4
    # Means of four float32: one rounding here, three there, each at most 6e-8 of values up to 1.
    np.testing.assert_allclose(cells.crops[0, 1], expected, atol=3e-7)


def test_same_archive_same_dataset(archive: Archive, tmp_path: Path) -> None:
    first = authors.toy_cells("yeast", SMALL_YEAST, tmp_path / "a").sha256
    assert authors.toy_cells("yeast", SMALL_YEAST, tmp_path / "b").sha256 == first


def test_wrong_hash_names_the_file_and_keeps_what_was_there(archive: Archive, tmp_path: Path) -> None:
    before = authors.toy_cells("yeast", SMALL_YEAST, tmp_path / "out").sha256
    archive.files[f"{YEAST}/AAC2/AAC2_1_rfp_3_rfp.tif"] = tiff(np.zeros((8, 8), np.float32))
    archive.write()
    with pytest.raises(DownloadError, match=r"AAC2_1_rfp_3_rfp\.tif.*git blob hash"):
        authors.toy_cells("yeast", SMALL_YEAST, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["sha256"] == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mirror", "out"]  # no partial folder


def test_file_missing_in_the_archive(archive: Archive, tmp_path: Path) -> None:
    del archive.files[f"{YEAST}/AAC2/AAC2_1_rfp_3_gfp.tif"]
    archive.write()
    with pytest.raises(DownloadError, match=r"AAC2_1_rfp_3_gfp\.tif is not in the authors' archive"):
        authors.toy_cells("yeast", SMALL_YEAST, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_partner_channel(archive: Archive, tmp_path: Path) -> None:
    del archive.registry[f"{HUMAN}/A1CF_762_F2/762_F2_1_7_red.tif"]
    with pytest.raises(ImageError, match=r"762_F2_1_7_red\.tif"):
        authors.toy_cells("human", SMALL_HUMAN, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (tiff(np.zeros((8, 9), np.float32)), r"expected float32 \(8, 8\)"),
        (tiff(np.zeros((8, 8), np.uint16)), "uint16"),
        (b"II*\0 no tiff", "cannot be read as TIFF"),
        (b"", "cannot be read as TIFF"),
    ],
)
def test_unusable_image(content: bytes, says: str, archive: Archive, tmp_path: Path) -> None:
    archive.replace(f"{YEAST}/AAC2/AAC2_1_rfp_3_rfp.tif", content)
    with pytest.raises(ImageError, match=r"AAC2_1_rfp_3_rfp\.tif.*" + says):
        authors.toy_cells("yeast", SMALL_YEAST, tmp_path / "out")


def test_not_finite(archive: Archive, tmp_path: Path) -> None:
    archive.replace(f"{YEAST}/AAC2/AAC2_1_rfp_1_rfp.tif", tiff(np.full((8, 8), np.nan, np.float32)))
    with pytest.raises(DatasetError, match="NaN"):
        authors.toy_cells("yeast", SMALL_YEAST, tmp_path / "out")


def test_recipes_that_do_not_fit(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="yeast"):
        authors.toy_cells("yeats", SMALL_YEAST, tmp_path / "out")
    with pytest.raises(RecipeError, match="gfp"):
        authors.toy_cells("human", SMALL_YEAST, tmp_path / "out")
    with pytest.raises(RecipeError, match="divide"):
        authors.toy_cells("yeast", SMALL_YEAST.replace(crop={"size": 20, "resize": 8}), tmp_path / "out")
    with pytest.raises(DatasetError, match="min_cells"):
        authors.toy_cells("yeast", SMALL_YEAST.replace(crop={"min_cells": 13}), tmp_path / "out")


def test_damaged_archive_leaves_the_cache(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong file outside a mirror is dropped, so that the next attempt downloads it again."""
    cached = tmp_path / "cached.zip"
    cached.write_bytes(archive.path.read_bytes()[:2000])
    monkeypatch.delenv("PCI_MIRROR")
    monkeypatch.setattr(authors, "fetch", lambda url, **options: cached)
    with pytest.raises(DownloadError, match="truncated"):
        authors.toy_cells("yeast", SMALL_YEAST, tmp_path / "out")
    assert not cached.exists()


def test_pretrained_weights_are_verified(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="human-filtered"):
        authors.pretrained("human-filter")
    archive.registry[authors.WEIGHTS["yeast"]] = git_blob_sha1(b"weights")
    place = tmp_path / "mirror" / authors.RAW.removeprefix("https://") / authors.WEIGHTS["yeast"]
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    assert authors.pretrained("yeast") == place
    place.write_bytes(b"other weights")
    with pytest.raises(DownloadError, match="git blob hash"):
        authors.pretrained("yeast")


def test_registry_holds_what_is_used() -> None:
    registry = authors.registry()
    assert set(authors.WEIGHTS.values()) <= set(registry)
    assert all(len(digest) == 40 and set(digest) <= set("0123456789abcdef") for digest in registry.values())
    counts = {s: {i: len(c) for i, c in authors._images(s, list(authors.SUBSETS[s].channels)).items()} for s in authors.SUBSETS}
    assert counts == {
        "yeast": {"AAC1": 366, "AAC3": 416, "AAH1": 203, "AAP1": 308, "AAR2": 349},
        "human": {"A1CF_762_F2": 34, "A4GALT_1645_H1_6": 6, "AAAS_413_A12": 22},
    }


@needs_data
@pytest.mark.parametrize(("subset", "shape"), [("yeast", (1642, 2, 64, 64)), ("human", (62, 3, 64, 64))])
def test_real_toy_sets(subset: str, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCI_MIRROR", str(Path(DATA or "") / "mirror"))
    cells = authors.toy_cells(subset, recipes.load(f"authors-toy-{subset}"), tmp_path / "out")
    assert cells.crops.shape == shape and not cells.info["left_out"]["images_below_min_cells"]
    assert cells.crops.min() >= 0 and 0.9 < cells.crops.max() <= 1  # stored as a share of the full range
    assert (np.ptp(cells.crops.reshape(-1, 64 * 64), axis=1) > 0).all()  # no constant channel
