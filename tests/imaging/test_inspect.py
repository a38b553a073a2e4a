"""What headers say of images, the guess of label images, and the check of all images of a table before the work starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from ome_files import NAMES, make_recipe, planes, write_ome_tiff, write_zarr
from PIL import Image

from pci_core.errors import ImageError
from pci_core.imaging import check
from pci_core.imaging.check import check_images
from pci_core.imaging.inspect import describe_image, is_image, is_label_image
from pci_core.recipe import Recipe

ORDER = list(NAMES)


def test_facts_of_plain_files(tmp_path: Path) -> None:
    grey, rgb = planes(1)[0], np.moveaxis(planes(3, "uint8"), 0, -1)
    Image.fromarray(grey).save(tmp_path / "g16.png")
    Image.fromarray(rgb).save(tmp_path / "c.png")
    Image.fromarray(rgb).convert("RGBA").save(tmp_path / "a.png")
    Image.fromarray(rgb).convert("P").save(tmp_path / "p.png")
    Image.fromarray(rgb).save(tmp_path / "c.jpg")
    tifffile.imwrite(tmp_path / "c.tif", rgb, photometric="rgb")
    tifffile.imwrite(tmp_path / "s.tif", planes(4), photometric="minisblack")
    tifffile.imwrite(tmp_path / "last.tif", np.moveaxis(planes(4), 0, -1), photometric="minisblack")
    tifffile.imwrite(tmp_path / "big.tif", grey.astype(">u2"), byteorder=">")
    tifffile.imwrite(tmp_path / "f.tif", grey.astype(np.float32))
    expected = {
        "g16.png": ("grey", 1, "uint16"), "c.png": ("rgb", 3, "uint8"), "a.png": ("rgb", 3, "uint8"), "p.png": ("rgb", 3, "uint8"),
        "c.jpg": ("rgb", 3, "uint8"), "c.tif": ("rgb", 3, "uint8"), "s.tif": ("stack", 4, "uint16"), "last.tif": ("stack", 4, "uint16"),
        "big.tif": ("grey", 1, "uint16"), "f.tif": ("grey", 1, "float32"),
    }  # fmt: skip
    for name, facts in expected.items():
        got = describe_image(tmp_path / name)
        assert (got.kind, got.channels, got.dtype) == facts, name
        assert (got.height, got.width, got.z, got.t, got.names, got.um_per_px, got.ome) == (20, 30, 1, 1, (), 0.0, False), name


def test_images_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.ome.zarr").mkdir()
    (tmp_path / "b.tif").mkdir()
    for name, image in {
        "a.ome.zarr": True, "b.tif": False, "c.TIFF": True, "d.ome.tif": True, "e.PNG": True, "f.jpeg": True, "g.csv": False,
        "h.zarr": False, "i.npy": False,
    }.items():  # fmt: skip
        assert is_image(tmp_path / name) is image, name


@pytest.mark.parametrize(("content", "what"), [(b"", "is empty"), (b"no image", "cannot be read"), (None, "is not there")])
def test_no_image(tmp_path: Path, content: bytes | None, what: str) -> None:
    for name in ("a.png", "a.tif"):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=rf"a\.\w+ {what}"):
            describe_image(tmp_path / name)


def test_guess_of_label_images(tmp_path: Path) -> None:
    labels = np.zeros((60, 80), np.uint16)
    for n, (y, x) in enumerate([(5, 5), (5, 40), (35, 5), (35, 40)], 1):
        labels[y : y + 20, x : x + 25] = n
    rng = np.random.default_rng(2)
    noise = rng.poisson(3, (60, 80)).astype(np.uint8)  # few values, none missing, 0 is not the most common
    dark = rng.poisson(0.5, (60, 80)).astype(np.uint16)  # photon counts: 0 most common, few values, but speckled
    cases = {
        "labels": (labels, True), "float": (labels.astype(np.float32), True), "gaps": (np.where(labels == 2, 300, labels), True),
        "noise": (noise, False), "dark": (dark, False), "mask": ((labels > 0).astype(np.uint8) * 255, False), "half": (labels / 2.0, False),
        "empty": (labels * 0, False), "no background": (labels + 1, False),
    }  # fmt: skip
    for name, (pixels, is_label) in cases.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels)
        assert is_label_image(tmp_path / f"{name}.tif") is is_label, name


def test_guess_on_real_files(test_data: Path) -> None:
    yes = [*sorted((test_data / "yeast-fields").glob("*_labeled.tiff")), *sorted((test_data / "nuclei-u2os" / "labels").glob("*.png"))[:6]]
    no = [
        *sorted((test_data / "yeast-fields").glob("*-ch?sk1fk1fl1.tiff"))[:3],
        *sorted((test_data / "nuclei-u2os" / "dna").glob("*.png"))[:3],
        *sorted((test_data / "hpa-fields").glob("*_F11_1_*.png")),
        *sorted((test_data / "hpa-dictionary" / "images").glob("*.jpg"))[:3],
    ]
    assert [p.name for p in yes if not is_label_image(p)] == []
    assert [p.name for p in no if is_label_image(p)] == []


# --- all images of a table at once


def table(*paths: str, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"field": [f"f{i}" for i in range(len(paths))], "image": "i", "path": list(paths), **columns})


def stacks(folder: Path, **kinds: np.ndarray) -> pd.DataFrame:
    for name, pixels in kinds.items():
        tifffile.imwrite(folder / f"{name}.tif", pixels, photometric="minisblack")
    return table(*(f"{n}.tif" for n in kinds))


def stack_recipe(method: str = "nuclei", **fields: Any) -> Recipe:
    return make_recipe("stack", order=ORDER, **fields).replace(segmentation={"method": method, "channel": "nucleus"})


def test_what_fits_passes_and_sizes_may_differ_with_a_note(tmp_path: Path) -> None:
    same = stacks(tmp_path, a=planes(), b=planes())
    assert check_images(same, stack_recipe(), tmp_path) == []
    note = check_images(stacks(tmp_path, a=planes(), b=planes()[:, :10], c=planes()), stack_recipe(), tmp_path)
    assert len(note) == 1 and "2 sizes: 2 of 20x30 px (e.g. f0); 1 of 10x30 px (e.g. f1)" in note[0]


def test_mixed_depths_channel_counts_and_bad_files_are_listed_at_once(tmp_path: Path) -> None:
    fields = stacks(tmp_path, a=planes(), b=planes(), c=planes(dtype="uint8"), d=planes(2), e=planes())
    (tmp_path / "e.tif").write_bytes(b"")
    with pytest.raises(ImageError) as raised:
        check_images(fields, stack_recipe(), tmp_path)
    text = str(raised.value)
    for part in (
        "5 fields were looked at", "differ in bit depth: 3 uint16 (e.g. f0); 1 uint8 (e.g. f2)",
        "1 have 2 channels, [fields] order names 3: d.tif", "1 files cannot be used:", "e.tif is empty",
    ):  # fmt: skip
        assert part in text, text


def test_types_that_are_read_alike_are_one_depth(tmp_path: Path) -> None:
    fields = stacks(tmp_path, a=planes(), b=planes(dtype="int32"), c=planes().astype(">u2"))
    assert check_images(fields, stack_recipe(), tmp_path) == []


def test_masks_of_another_size_are_all_listed(tmp_path: Path) -> None:
    fields = stacks(tmp_path, a=planes(), b=planes(), c=planes(), d=planes())
    np.save(tmp_path / "a.npy", np.zeros((20, 30), int))
    np.save(tmp_path / "b.npy", np.zeros((30, 20), int))
    tifffile.imwrite(tmp_path / "c_l.tif", np.zeros((20, 31), np.int32))
    write_zarr(tmp_path / "d.zarr", np.zeros((10, 15), np.int32), "yx", names=None)
    fields["labels"] = ["a.npy", "b.npy", "c_l.tif", "d.zarr"]
    with pytest.raises(ImageError, match=r"3 have a mask of another size.*f1 \(20x30 px, mask 30x20\), f2 \(.*f3 \("):
        check_images(fields, stack_recipe("labels"), tmp_path)
    # masks of the reduced field and of the full one both fit a recipe that reduces
    assert check_images(fields.iloc[[0, 3]], stack_recipe("labels", downscale=2), tmp_path) == []


def test_separate_files_of_a_field_are_held_against_each_other(tmp_path: Path) -> None:
    rows = []
    for f in range(3):
        for n, plane in zip(NAMES, planes(), strict=True):
            small, deep = f == 1 and n == "nucleus", f == 2 and n == "tubules"
            tifffile.imwrite(tmp_path / f"{f}_{n}.tif", plane[: 10 if small else 20].astype("uint8" if deep else "uint16"))
        rows.append({"field": f"f{f}", "image": "i", **{f"path_{n}": f"{f}_{n}.tif" for n in NAMES}})
    with pytest.raises(ImageError) as raised:
        check_images(pd.DataFrame(rows), make_recipe("separate"), tmp_path)
    assert "have channels of different sizes: f1 (20x30 px, 10x30 px)" in str(raised.value)
    assert "have channels of different bit depths: f2 (uint16, uint8)" in str(raised.value)


def test_names_pixel_sizes_and_z_planes(tmp_path: Path) -> None:
    size = {"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2}
    write_ome_tiff(tmp_path / "a.ome.tif", planes(), metadata=size)
    write_ome_tiff(tmp_path / "b.ome.tif", planes(), names=("x", "nucleus", "tubules"), metadata=size)
    write_ome_tiff(tmp_path / "c.ome.tif", np.ones((5, 3, 20, 30), np.uint16), "ZCYX", metadata=size)
    with pytest.raises(ImageError) as raised:
        check_images(table("a.ome.tif", "b.ome.tif", "c.ome.tif"), make_recipe(um_per_px=0.1), tmp_path)
    text = str(raised.value)
    assert "3 files have another pixel size than the recipe" in text and "say 0.2 µm per px" in text
    assert "1 lack channel 'protein'" in text and "'x', 'nucleus', 'tubules'" in text and "b.ome.tif" in text
    assert "have 5 z planes and 1 time points; project z and split time first: c.ome.tif" in text
    (note,) = check_images(table("a.ome.tif"), make_recipe(), tmp_path)
    assert "write um_per_px = 0.2 into [fields]" in note
    write_ome_tiff(tmp_path / "d.ome.tif", planes(), metadata={"PhysicalSizeX": 0.4, "PhysicalSizeY": 0.4})
    (note,) = check_images(table("a.ome.tif", "d.ome.tif"), make_recipe(), tmp_path)
    assert "pixel sizes from 0.2 to 0.4 µm" in note


def test_of_very_many_files_some_are_looked_at_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MOST", 4)
    fields = stacks(tmp_path, **{f"s{i}": planes() for i in range(10)})
    (tmp_path / "s1.tif").write_bytes(b"")  # not among each third
    (note,) = check_images(fields, stack_recipe(), tmp_path)
    assert "headers of 4 of 10 fields were looked at" in note


def test_a_composite_recipe_on_grey_files(tmp_path: Path) -> None:
    Image.fromarray(planes(1, "uint8")[0]).save(tmp_path / "g.png")
    with pytest.raises(ImageError, match=r"1 are no colour composites but have 1 channels \(uint8\): g\.png"):
        check_images(table("g.png"), make_recipe("composite", order=ORDER), tmp_path)


def test_all_real_composites_pass(test_data: Path) -> None:
    files = sorted((test_data / "hpa-dictionary" / "images").glob("*.jpg"))
    recipe = make_recipe("composite", order=["tubules", "protein", "nucleus"])
    notes = check_images(table(*(str(f) for f in files)), recipe, "")
    assert len(files) == 82 and notes == []
