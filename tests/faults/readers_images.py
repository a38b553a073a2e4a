"""Readers of images and label images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from ome_files import make_recipe, planes, write_ome_tiff, write_zarr, write_zarr_by_hand
from PIL import Image
from readers import Reader, alike, exact

from pci_core.data.hpa import check_jpeg
from pci_core.data.manifest import Manifest
from pci_core.imaging.inspect import describe_image
from pci_core.imaging.labels import read_labels
from pci_core.imaging.read import read_field

SHAPE = (20, 30)


def _field(name: str, format: str = "named", **more: Any) -> Any:
    recipe = make_recipe(format, **more)
    return lambda folder: read_field({"field": "f", "path": name}, recipe, folder)


def _stack(folder: Path, **how: Any) -> list[Path]:
    tifffile.imwrite(folder / "f.tif", planes(), photometric="minisblack", **how)
    return [folder / "f.tif"]


def _pages(folder: Path) -> list[Path]:
    with tifffile.TiffWriter(folder / "f.tif") as writer:
        for plane in planes():
            writer.write(plane, photometric="minisblack", metadata=None, contiguous=False, rowsperstrip=6)
    return [folder / "f.tif"]


def _packbits(folder: Path) -> list[Path]:
    every = [Image.fromarray(p.astype(np.uint8)) for p in planes()]
    every[0].save(folder / "f.tif", compression="packbits", save_all=True, append_images=every[1:])
    return [folder / "f.tif"]


def _zarr(folder: Path, zarr_format: int) -> list[Path]:
    path = write_zarr(folder / "f.zarr", planes(), zarr_format=zarr_format)
    return sorted(p for p in path.rglob("*") if p.is_file())


def _zarr_by_hand(folder: Path) -> list[Path]:
    return sorted(p for p in write_zarr_by_hand(folder / "f.zarr", planes()).rglob("*") if p.is_file())


def _separate(folder: Path, suffix: str, dtype: str) -> list[Path]:
    made = []
    for name, plane in zip(("protein", "nucleus", "tubules"), planes(dtype=dtype), strict=True):
        made.append(folder / f"{name}{suffix}")
        Image.fromarray(plane).save(made[-1])
    return made[:1]


def _read_separate(suffix: str) -> Any:
    row = {"field": "f", **{f"path_{n}": f"{n}{suffix}" for n in ("protein", "nucleus", "tubules")}}
    recipe = make_recipe("separate")
    return lambda folder: read_field(row, recipe, folder)


def _jpeg(folder: Path) -> list[Path]:
    yy, xx = np.mgrid[:40, :48]
    rgb = np.stack([yy * 5, xx * 5, (yy + xx) * 2], -1).astype(np.uint8)
    Image.fromarray(rgb).save(folder / "f.jpg", quality=90)
    return [folder / "f.jpg"]


def _downloaded(folder: Path) -> bool:
    """A file of the atlas that the journal does not know is taken in where it is whole, else fetched again."""
    found = Manifest(folder).has("f.jpg", check_jpeg)
    assert found in (True, False)
    return True


def _labels(folder: Path, suffix: str) -> list[Path]:
    labels = np.zeros(SHAPE, np.uint16)
    labels[2:8, 3:9], labels[10:18, 12:20] = 1, 2
    path = folder / f"f{suffix}"
    if suffix == ".npy":
        np.save(path, labels)
    elif suffix == ".tif":
        tifffile.imwrite(path, labels)
    else:
        Image.fromarray(labels).save(path)
    return [path]


def _read_labels(suffix: str) -> Any:
    return lambda folder: read_labels(folder / f"f{suffix}", SHAPE)


def whole_field(good: np.ndarray, found: np.ndarray, path: Path) -> str:
    """Pixels without a check sum: three finite planes of the size; a changed pixel, or sign or kind of number, cannot be told."""
    if found.dtype.name not in ("uint8", "uint16", "float32"):
        return f"pixels of type {found.dtype}"
    return alike(good, found, path)


def described(good: Any, found: Any, path: Path) -> str:
    return "" if isinstance(found, type(good)) else "no description"


_ORDER = ["protein", "nucleus", "tubules"]
READERS = [
    Reader("tiff, one stack", _stack, _field("f.tif", "stack", order=_ORDER), whole_field),
    Reader("tiff, pages and strips", _pages, _field("f.tif", "stack", order=_ORDER), whole_field),
    Reader("tiff, imagej", lambda f: _stack(f, imagej=True), _field("f.tif", "stack", order=_ORDER), whole_field),
    Reader(
        "tiff, deflate", lambda f: _stack(f, compression="zlib", tile=(16, 16)),
        _field("f.tif", "stack", order=_ORDER), whole_field,
    ),
    Reader("tiff, packbits", _packbits, _field("f.tif", "stack", order=_ORDER), whole_field),
    Reader("ome-tiff", lambda f: [write_ome_tiff(f / "f.ome.tif", planes())], _field("f.ome.tif"), whole_field),
    Reader(
        "ome-tiff, deflate", lambda f: [write_ome_tiff(f / "f.ome.tif", planes(), compression="zlib")], _field("f.ome.tif"), whole_field
    ),
    Reader("ome-tiff, described", lambda f: [write_ome_tiff(f / "f.ome.tif", planes())],
           lambda f: describe_image(f / "f.ome.tif"), described),
    Reader("ome-zarr 2", lambda f: _zarr(f, 2), _field("f.zarr"), whole_field, named="f.zarr"),
    Reader("ome-zarr 3", lambda f: _zarr(f, 3), _field("f.zarr"), whole_field, named="f.zarr"),
    Reader("ome-zarr, uncompressed", _zarr_by_hand, _field("f.zarr"), whole_field, named="f.zarr"),
    Reader("png, 8 bit", lambda f: _separate(f, ".png", "uint8"), _read_separate(".png"), exact),
    Reader("png, 16 bit", lambda f: _separate(f, ".png", "uint16"), _read_separate(".png"), exact),
    Reader("jpeg, composite", _jpeg, _field("f.jpg", "composite", order=_ORDER), whole_field),
    Reader("jpeg, downloaded", _jpeg, _downloaded, exact),
    Reader("labels, png", lambda f: _labels(f, ".png"), _read_labels(".png"), exact),
    Reader("labels, tiff", lambda f: _labels(f, ".tif"), _read_labels(".tif"), alike),
    Reader("labels, npy", lambda f: _labels(f, ".npy"), _read_labels(".npy"), alike),
]  # fmt: skip
