"""OME-Zarr: images of several writers by name and place, metadata that contradict them, nothing unsafe opened, label images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from ome_files import NAMES, make_recipe, planes, write_ome_tiff, write_zarr, write_zarr_by_hand

from pci_core.errors import ImageError
from pci_core.imaging.inspect import describe_image
from pci_core.imaging.labels import read_labels
from pci_core.imaging.read import read_field


def read(path: Path, recipe: Any = None) -> np.ndarray:
    return read_field({"field": "f", "path": path.name}, recipe or make_recipe(), path.parent)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(("axes", "shape"), [("cyx", (3, 20, 30)), ("tczyx", (1, 3, 1, 20, 30)), ("czyx", (3, 1, 20, 30))])
def test_ome_zarr_is_read_by_its_names(tmp_path: Path, zarr_format: int, axes: str, shape: tuple[int, ...]) -> None:
    path = write_zarr(tmp_path / "a.ome.zarr", planes().reshape(shape), axes, zarr_format, names=("Nucleus", "tubules", "PROTEIN"))
    np.testing.assert_array_equal(read(path), planes()[[2, 0, 1]])
    np.testing.assert_array_equal(read(path, make_recipe("stack", order=["nucleus", "tubules", "protein"])), planes()[[2, 0, 1]])
    facts = describe_image(path)
    assert (facts.kind, facts.channels, facts.um_per_px, facts.ome) == ("named", 3, 0.25, True)


def test_ome_zarr_of_other_writers(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(write_zarr_by_hand(tmp_path / "hand.zarr", planes())), planes())
    sharded = write_zarr(tmp_path / "shards.zarr", planes(), chunks=(1, 10, 10), shards=(1, 20, 30))
    np.testing.assert_array_equal(read(sharded), planes())

    def old(attributes: dict[str, Any]) -> None:  # NGFF 0.1: no axes, no transformations, always t c z y x
        attributes["multiscales"][0].pop("axes")
        attributes["multiscales"][0]["datasets"] = [{"path": "0"}]

    first = write_zarr(tmp_path / "old.zarr", planes()[None, :, None], "tczyx", 2, change=old)
    np.testing.assert_array_equal(read(first), planes())
    assert describe_image(first).um_per_px == 0.0
    swapped = write_zarr(tmp_path / "swapped.zarr", np.transpose(planes(), (0, 2, 1)), "cxy")
    np.testing.assert_array_equal(read(swapped), planes())
    inside = tmp_path / "series.zarr"
    zarr.open_group(str(inside), mode="w", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    write_zarr(inside / "0", planes(), zarr_format=2)
    np.testing.assert_array_equal(read(inside), planes())
    write_zarr(inside / "1", planes(), zarr_format=2)
    with pytest.raises(ImageError, match=r"2 within\. Name one, e\.g\. series\.zarr/0"):
        read(inside)


@pytest.mark.parametrize(
    ("unit", "um"), [("nanometer", 0.00025), ("angstrom", 0.000025), ("millimeter", 250.0), ("micrometer", 0.25), (None, 0.0)]
)
def test_units_and_nested_scales_of_ome_zarr(tmp_path: Path, unit: str | None, um: float) -> None:
    def change(attributes: dict[str, Any]) -> None:
        for axis in attributes["multiscales"][0]["axes"]:
            axis["unit"] = unit
        attributes["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [1, 2, 2]}]

    path = write_zarr(tmp_path / "a.zarr", planes(), change=change)
    assert describe_image(path).um_per_px == pytest.approx(2 * um)


def drop(*keys: Any) -> Any:
    def change(attributes: dict[str, Any]) -> None:
        place: Any = attributes
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return change


def put(value: Any, *keys: Any) -> Any:
    def change(attributes: dict[str, Any]) -> None:
        place: Any = attributes
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("omero", "channels", 2), "2 channels are named, 3 are there"),
        (drop("multiscales", 0, "axes", 0), r"axes \['y', 'x'\] for an array of 3 axes"),
        (put("q", "multiscales", 0, "axes", 0, "name"), "for an array of 3 axes"),
        (put([1, 1], "multiscales", 0, "datasets", 0, "coordinateTransformations", 0, "scale"), r"scale \[1, 1\] for 3 axes"),
        (put([1, 1, 2], "multiscales", 0, "datasets", 0, "coordinateTransformations", 0, "scale"), "1 µm high and 2 µm wide"),
        (put("../other.zarr/0", "multiscales", 0, "datasets", 0, "path"), "not inside the folder"),
        (put("7", "multiscales", 0, "datasets", 0, "path"), "cannot be read as OME-Zarr"),
        (put([], "multiscales", 0, "datasets"), r"name no array \(datasets\)"),
        (drop("multiscales"), "holds no image that calls itself one"),
    ],
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_ome_zarr_that_contradicts_itself(tmp_path: Path, change: Any, message: str, zarr_format: int) -> None:
    write_zarr(tmp_path / "other.zarr", planes())
    path = write_zarr(tmp_path / "a.zarr", planes(), zarr_format=zarr_format, change=change)
    with pytest.raises(ImageError, match=message):
        describe_image(path)
    with pytest.raises(ImageError, match=message):
        read(path)


def test_a_plate_an_empty_folder_and_damaged_chunks(tmp_path: Path) -> None:
    zarr.open_group(str(tmp_path / "plate.zarr"), mode="w", zarr_format=2).attrs["plate"] = {"rows": []}
    with pytest.raises(ImageError, match="plate or well of many fields"):
        describe_image(tmp_path / "plate.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(ImageError, match="is a folder, and no OME-Zarr"):
        describe_image(tmp_path / "empty.zarr")
    path = write_zarr(tmp_path / "a.zarr", planes(), zarr_format=2)
    chunk = next(p for p in (path / "0").rglob("*") if p.is_file() and p.name[0] != ".")
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(ImageError, match="a chunk of its array '0' is damaged"):
        read(path)
    for file in [p for p in (path / "0").rglob("*") if p.is_file() and p.name[0] != "."]:
        file.unlink()
    with pytest.raises(ImageError, match="none of the .* chunks of array '0' is there"):
        read(path)
    (path / "0" / ".zarray").write_text("{")
    with pytest.raises(ImageError, match="cannot be read as OME-Zarr"):
        describe_image(path)


@pytest.mark.parametrize("place", ["filters", "compressor"])
def test_no_pickle_is_opened(tmp_path: Path, place: str) -> None:
    path = write_zarr_by_hand(tmp_path / "a.zarr", planes())
    header = json.loads((path / "0" / ".zarray").read_text())
    header[place] = [{"id": "pickle", "protocol": 5}] if place == "filters" else {"id": "pickle", "protocol": 5}
    (path / "0" / ".zarray").write_text(json.dumps(header))
    with pytest.raises(ImageError, match="pickle"):
        read(path)
    header |= {"dtype": "|O", place: None, "filters": [{"id": "vlen-utf8"}], "fill_value": ""}
    (path / "0" / ".zarray").write_text(json.dumps(header))
    with pytest.raises(ImageError, match="vlen-utf8|no pixels"):
        read(path)


def test_an_impossible_size_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    path = write_zarr_by_hand(tmp_path / "a.zarr", planes())
    header = json.loads((path / "0" / ".zarray").read_text()) | {"shape": [3, 10**6, 10**6]}
    (path / "0" / ".zarray").write_text(json.dumps(header))
    with pytest.raises(ImageError, match="more than 4,000,000,000 values"):
        read(path)


def test_label_images_of_an_ome_zarr(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.zarr", planes())
    labels = np.zeros((20, 30), np.int32)
    labels[2:8, 2:8], labels[10:15, 10:15] = 1, 2
    with pytest.raises(ImageError, match="no label image|differing|shape"):
        read_labels(path, (20, 30))
    write_zarr(path / "labels" / "cells", labels, "yx", names=None, change=put({"version": "0.5"}, "image-label"))
    for name in (path, path / "labels" / "cells"):
        np.testing.assert_array_equal(read_labels(name, (20, 30)), labels)
    assert describe_image(path / "labels" / "cells").kind == "labels"
    write_zarr(path / "labels" / "nuclei", labels, "yx", names=None)
    with pytest.raises(ImageError, match=r"2 label images \(cells, nuclei\); name one.*a\.zarr/labels/cells"):
        read_labels(path, (20, 30))


def test_a_real_field_is_the_same_in_every_form(tmp_path: Path, test_data: Path) -> None:
    files = {f"path_{n}": f"yeast-fields/r01c01f01p01-ch{i}sk1fk1fl1.tiff" for i, n in enumerate(NAMES, 1)}
    first = read_field({"field": "f", **files}, make_recipe("separate"), test_data)
    shuffled = first[[2, 0, 1]]
    write_ome_tiff(tmp_path / "a.ome.tif", shuffled, names=("Tubules", "protein", "nucleus"), compression="zlib")
    for zarr_format in (2, 3):
        write_zarr(tmp_path / f"{zarr_format}.zarr", shuffled, "cyx", zarr_format, ("Tubules", "protein", "nucleus"), chunks=(1, 256, 256))
    labels = test_data / "yeast-fields" / "r01c01f01p01_labeled.tiff"
    write_zarr(tmp_path / "3.zarr" / "labels" / "cells", tifffile.imread(labels), "yx", names=None, chunks=(256, 256))
    for name in ("a.ome.tif", "2.zarr", "3.zarr"):
        np.testing.assert_array_equal(read(tmp_path / name), first)
    np.testing.assert_array_equal(read_labels(tmp_path / "3.zarr", (1080, 1080)), read_labels(labels, (1080, 1080)))
