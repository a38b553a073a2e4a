"""OME-Zarr (NGFF 0.1 to 0.5, Zarr format 2 and 3): the layout of an image folder, its pixels, and its label images.

Nothing of a folder is trusted: only numeric arrays, only known compressors (one of Zarr's runs pickles), no path that leaves it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pci_core.errors import ImageError
from pci_core.imaging.layout import REPAIR, Layout, check_size, in_um, one_plane, square
from pci_core.reading import is_dir, refusing
from pci_core.unpacking import DEFLATE, FREE, check_stream

_METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zarray", ".zmetadata")
_FRAME = 4096  # bytes that a compressor, a shard's index or a check sum may add
_MARKS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
_CODECS = {
    "blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd", "bytes", "crc32", "crc32c", "adler32", "fletcher32", "sharding_indexed",
    "transpose", "shuffle", "bitround", "delta", "fixedscaleoffset", "quantize",
}  # fmt: skip


def is_zarr(path: Path) -> bool:
    """Tell whether a path is a folder of Zarr's making (an image, or a field or label image within a larger one)."""
    return is_dir(path) and any((path / mark).is_file() for mark in _MARKS)


def zarr_layout(path: Path) -> Layout:
    """Read the layout of an OME-Zarr image: level 0 of its first multiscale, or a bare array of two or three axes.

    Parameters
    ----------
    path : Path
        Folder of the image; with several images or a plate, the folder of one of them (``plate.zarr/A/1/0``).

    Returns
    -------
    Layout
        ``names`` from ``omero``, ``um_per_px`` from ``coordinateTransformations`` and the units of the axes.

    Raises
    ------
    ImageError
        No image, several, a plate, no or impossible metadata, an array of another shape than its axes, an unknown compressor.
    """
    group, array, attributes = _open(path)
    where = str(array.path)
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "iufb":
        raise ImageError(f"{path}: its array '{where}' holds {dtype}, no pixels. {REPAIR}")
    shape = tuple(int(n) for n in array.shape)
    if group is None:
        if len(shape) not in (2, 3):
            raise ImageError(f"{path} is a Zarr array of shape {shape} without OME metadata. Save it as OME-Zarr, which names its axes.")
        return check_size(Layout("QYX"[3 - len(shape) :], shape, dtype.name, inner=where), path)
    multiscale = attributes["multiscales"][0]
    axes, units = _axes(multiscale, len(shape), path)
    scale = _scale(multiscale, len(shape), path)
    y, x = (in_um(scale[axes.index(a)], units[axes.index(a)]) if scale else 0.0 for a in "YX")
    order = "".join(a for a in "TZCYX" if a in axes)
    names = _names(attributes, shape[axes.index("C")] if "C" in axes else 1, path)
    return check_size(
        Layout(
            order, tuple(shape[axes.index(a)] for a in order), dtype.name, names, square(y, x, path), True, "image-label" in attributes,
            inner=where, stored=tuple(axes.index(a) for a in order),
        ),
        path,
    )  # fmt: skip


def read_zarr(path: Path) -> tuple[np.ndarray, Layout]:
    """Read all pixels of an OME-Zarr image at its full size; axes as in its layout: T, Z, C, Y, X, those it has.

    Raises
    ------
    ImageError
        As `zarr_layout`; a chunk cannot be decoded; or none is there (Zarr itself would give zeros). That some chunks are not
        there is no error: writers leave out those of a single value. A channel that is constant for it is listed by `build_cells`.
    """
    layout = one_plane(zarr_layout(path), path)
    _, array, _ = _open(path)
    with refusing(path, ImageError, f"cannot be read: a chunk of its array '{layout.inner}' is damaged", REPAIR):
        _check_pieces(array, path)
        there = int(array.nchunks_initialized)
        if not there:
            raise ImageError(f"{path}: none of the {array.nchunks} chunks of array '{layout.inner}' is there. {REPAIR}")
        pixels = np.asarray(array[...])
        return np.transpose(pixels, layout.stored or None), layout


def _check_pieces(array: Any, path: Path) -> None:
    """Refuse a piece that unpacks to more than it should: Zarr unpacks it whole, whatever comes out."""
    size = math.prod(array.shards or array.chunks) * np.dtype(array.dtype).itemsize
    if size > FREE:
        raise ImageError(
            f"{path}: its array '{array.path}' is stored in pieces of {size / 1e6:,.0f} MB. Write it in smaller ones. {REPAIR}"
        )
    for file in (path / array.path).rglob("*"):
        if file.name in _METADATA or not file.is_file():
            continue
        stored = file.stat().st_size
        if stored > size + size // 8 + _FRAME:  # no compressor adds more to what it cannot shrink
            raise ImageError(f"{path}: the piece {file.name} has {stored:,} bytes, {size:,} unpacked are expected. {REPAIR}")
        if stored * DEFLATE > FREE:
            with open(file, "rb") as handle:
                packed = handle.read()
            if packed[:2] == b"\x1f\x8b" or (packed[0] & 15 == 8 and int.from_bytes(packed[:2]) % 31 == 0):  # gzip, zlib
                check_stream(packed, size, f"its piece {file.name}")


def label_folder(path: Path) -> Path:
    """Return the label image of an OME-Zarr: the folder itself, or the only one under its ``labels``.

    Raises
    ------
    ImageError
        It has several, which are named.
    """
    if not (path / "labels").is_dir():
        return path
    listed = sorted(p.name for p in (path / "labels").iterdir() if is_zarr(p))
    if len(listed) != 1:
        raise ImageError(
            f"{path} has {len(listed)} label images ({', '.join(listed) or 'none'}); name one in column 'labels', e.g. "
            f"{path.name}/labels/{listed[0] if listed else 'cells'}."
        )
    return path / "labels" / listed[0]


def _open(path: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Return group (None for a bare array), array of level 0 and the OME attributes."""
    import zarr  # half a second: only where there is such a file

    with refusing(path, ImageError, "cannot be read as OME-Zarr", REPAIR):
        node: Any = zarr.open(store=str(path), mode="r")
        if isinstance(node, zarr.Array):
            _check_codecs(node, path)
            return None, node, {}
        attributes = dict(node.attrs)
        attributes = attributes["ome"] if isinstance(attributes.get("ome"), dict) else attributes  # since 0.5
        if not isinstance(attributes.get("multiscales"), list) or not attributes["multiscales"]:
            return _open(_only_image(path, attributes))
        inner = _inner(attributes["multiscales"][0], path)
        array = node[inner]
        if not isinstance(array, zarr.Array):
            raise ImageError(f"{path}: '{inner}', its image of full size, is no array. {REPAIR}")
        _check_codecs(array, path)
        return node, array, attributes


def _only_image(path: Path, attributes: dict[str, Any]) -> Path:
    if "plate" in attributes or "well" in attributes:
        raise ImageError(f"{path} is a plate or well of many fields. Give each field a row, e.g. {path.name}/A/1/0.")
    images = sorted(p.name for p in path.iterdir() if p.name.isdigit() and is_zarr(p))
    if len(images) != 1 or "bioformats2raw.layout" not in attributes:
        raise ImageError(
            f"{path} holds no image that calls itself one ('multiscales' is missing)"
            + (f", but {len(images)} within. Name one, e.g. {path.name}/{images[0]}." if images else f". {REPAIR}")
        )
    return path / images[0]


def _inner(multiscale: Any, path: Path) -> str:
    try:
        inner = str(multiscale["datasets"][0]["path"])
    except (KeyError, IndexError, TypeError) as error:
        raise ImageError(f"{path}: its 'multiscales' metadata name no array (datasets). {REPAIR}") from error
    if not inner or inner.startswith("/") or "\\" in inner or {"..", "."} & set(inner.split("/")):
        raise ImageError(f"{path}: its metadata name the array '{inner}', which is not inside the folder. {REPAIR}")
    return inner


def _axes(multiscale: dict[str, Any], n: int, path: Path) -> tuple[str, list[str]]:
    listed = multiscale.get("axes", list("tczyx")[5 - n :] if n != 5 else list("tczyx"))  # before 0.3: always these five
    entries = [a if isinstance(a, dict) else {"name": a} for a in listed]
    axes = "".join(str(a.get("name", "?")).upper() for a in entries)
    if len(axes) != n or len(set(axes)) != n or set(axes) - set("TCZYX") or not {"Y", "X"} <= set(axes):
        raise ImageError(
            f"{path}: its metadata contradict the file: axes {[a.get('name') for a in entries]} for an array of {n} axes. {REPAIR}"
        )
    return axes, [str(a.get("unit") or "") for a in entries]


def _scale(multiscale: dict[str, Any], n: int, path: Path) -> list[float]:
    """Return the scale of each axis of level 0, its own times that of all levels; empty where none is told."""
    total: list[float] = []
    for place in (multiscale["datasets"][0], multiscale):
        for step in place.get("coordinateTransformations") or ():
            if step.get("type") != "scale":
                continue
            values = step.get("scale")
            if not isinstance(values, list) or len(values) != n or not all(isinstance(v, (int, float)) and v > 0 for v in values):
                raise ImageError(f"{path}: its metadata give the scale {values} for {n} axes. {REPAIR}")
            total = [a * b for a, b in zip(total or [1.0] * n, values, strict=True)]
    return total


def _names(attributes: dict[str, Any], n: int, path: Path) -> tuple[str, ...]:
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list) or not channels:
        return ()
    if len(channels) != n:
        raise ImageError(f"{path}: its metadata contradict the file: {len(channels)} channels are named, {n} are there. {REPAIR}")
    names = tuple(str(c.get("label") or "").strip() for c in channels)
    return names if any(names) else ()


def _check_codecs(array: Any, path: Path) -> None:
    used = set(_codec_names(json.loads(json.dumps(array.metadata.to_dict(), default=_codec_config))))
    unknown = {u for u in used if u.removeprefix("numcodecs.") not in _CODECS}
    if unknown:
        raise ImageError(
            f"{path}: its array '{array.path}' is packed by {', '.join(sorted(unknown))}, which is not opened. "
            "Write it again with a usual compressor (blosc, zstd, gzip)."
        )


def _codec_config(value: Any) -> Any:
    return value.get_config() if hasattr(value, "get_config") else str(value)


def _codec_names(metadata: dict[str, Any]) -> Iterator[str]:
    """Yield the names of all codecs of an array, those within a shard too."""
    for key in ("compressor", "filters", "codecs", "index_codecs"):
        value = metadata.get(key)
        for codec in value if isinstance(value, list) else [value] if value else []:
            if isinstance(codec, dict):
                yield str(codec.get("id") or codec.get("name"))
                if isinstance(codec.get("configuration"), dict):
                    yield from _codec_names(codec["configuration"])
            else:
                yield str(codec)
