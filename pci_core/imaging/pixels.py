"""Image files to arrays as they are stored, each whole or refused."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tifffile
from PIL import Image

from pci_core.cells import DTYPES
from pci_core.errors import ImageError
from pci_core.imaging.layout import REPAIR, TIFF_SUFFIXES, Layout, check_size, one_plane, plain_tiff_layout
from pci_core.imaging.ngff import is_zarr, read_zarr, zarr_layout
from pci_core.imaging.ome import is_ome_tiff, ome_tiff_layout
from pci_core.reading import refusing
from pci_core.unpacking import DEFLATE, FREE, check_stream

_DEFLATE = (tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE)
_LZMA = 8000  # bytes that one byte of LZMA may become
_T = TypeVar("_T")


def read_layout(path: Path) -> Layout:
    """Return what the header says of an image file or OME-Zarr folder; no pixel is read.

    Raises
    ------
    ImageError
        Missing, empty, damaged, no image, or with metadata that contradict the file.
    """
    return _careful(path, zarr_layout, _tiff_layout, _picture_layout)


def read_array(path: Path) -> tuple[np.ndarray, Layout]:
    """Read an image with its layout; the axes of the array are those of the layout, those of length 1 may be left out.

    Raises
    ------
    ImageError
        As `read_layout`, or pixels are missing or damaged.
    """
    return _careful(path, read_zarr, _read_tiff, _read_picture)


def read_pixels(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image as it is: (H, W), (H, W, colours) or, for TIFF and OME-Zarr, all axes longer than 1, channels before height.

    Raises
    ------
    ImageError
        Missing, empty, truncated or no image.
    """
    return read_array(Path(path))[0]


def read_pages(path: Path, first: int, n: int) -> np.ndarray:
    """Read some pages of a TIFF that holds several fields of view one after the other: (n, H, W).

    Raises
    ------
    ImageError
        As `read_layout`, or it is no TIFF, has fewer pages, or the pages differ in size.
    """

    def other(path: Path) -> np.ndarray:
        raise ImageError(f"{path} is no TIFF (suffix {' '.join(TIFF_SUFFIXES)}), but several fields are expected in one file.")

    def pages(path: Path) -> np.ndarray:
        with tifffile.TiffFile(path) as tiff:
            if first + n > len(tiff.pages):
                raise ImageError(f"{path}: pages {first + 1} to {first + n} are needed, it has {len(tiff.pages)}. {REPAIR}")
            planes = []
            for page in (tiff.pages[i] for i in range(first, first + n)):
                check_size(Layout("YX", tuple(page.shape), page.dtype.name if page.dtype is not None else "uint16"), path)
                _check_whole(page, path)
                planes.append(page.asarray())
        if len({p.shape for p in planes}) > 1 or planes[0].ndim != 2:
            raise ImageError(f"{path}: pages {first + 1} to {first + n} are {', '.join(str(p.shape) for p in planes)}. {REPAIR}")
        return np.stack(planes)

    return _careful(path, other, pages, other)


def usable_dtype(pixels: np.ndarray, path: Path) -> np.ndarray:
    """Return pixels as uint8, uint16 or float32 without a change of value (float64 is rounded to float32), or refuse."""
    pixels = np.asarray(pixels, dtype=pixels.dtype.newbyteorder("="))
    if pixels.dtype.name in DTYPES:
        return pixels
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32)  # microscopes give 16 bits at most; float32 holds 24
    if pixels.dtype.kind in "iu" and pixels.min() >= 0 and pixels.max() <= 65535:
        return pixels.astype(np.uint16)
    raise ImageError(
        f"{path}: pixels are {pixels.dtype}{'' if pixels.dtype.kind == 'b' else f' from {pixels.min()} to {pixels.max()}'}, "
        "which fits none of uint8, uint16, float32. Export intensities as one of these."
    )


def _careful(path: Path, folder: Callable[[Path], _T], tiff: Callable[[Path], _T], picture: Callable[[Path], _T]) -> _T:
    if path.is_dir():
        if not is_zarr(path):
            raise ImageError(f"{path} is a folder, and no OME-Zarr. Name an image file in it, or the .zarr folder.")
        return folder(path)
    if not path.is_file():
        raise ImageError(f"{path} is not there. Correct the path in the field table.")
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes). {REPAIR}")
    with refusing(path, ImageError, "cannot be read as an image, it is damaged, cut short or of another kind", REPAIR):
        try:
            return tiff(path) if path.suffix.lower() in TIFF_SUFFIXES else picture(path)
        except ValueError as error:
            if "imagecodecs" in str(error):
                raise ImageError(f"{path}: {error}. Run 'pip install imagecodecs', or save the file without that compression.") from error
            raise


def _tiff_layout(path: Path) -> Layout:
    with tifffile.TiffFile(path) as tiff:
        return ome_tiff_layout(tiff, path) if is_ome_tiff(tiff) else plain_tiff_layout(tiff, path)


def _read_tiff(path: Path) -> tuple[np.ndarray, Layout]:
    with tifffile.TiffFile(path) as tiff:
        if not is_ome_tiff(tiff):
            layout = one_plane(plain_tiff_layout(tiff, path), path)
            for every in tiff.pages:
                _check_whole(every, path)
            return np.asarray(tiff.series[0].asarray()).reshape(layout.shape), layout
        layout = one_plane(ome_tiff_layout(tiff, path), path)
        others = {file: tifffile.TiffFile(file) for file, _ in layout.pages if file != path}
        try:
            planes = []
            for file, number in layout.pages:
                page: Any = others.get(file, tiff).pages[number]
                _check_whole(page, file)
                planes.append(page.asarray())
        finally:
            for other in others.values():
                other.close()
        pixels = np.stack(planes)
        if layout.axes.endswith("S") and pixels.shape[1:] != layout.shape[3:]:
            pixels = np.moveaxis(pixels, 1, -1)  # samples stored as planes of their own
        return np.squeeze(pixels.reshape(layout.shape), axis=tuple(i for i in range(3) if layout.shape[i] == 1)), layout


def _check_whole(page: Any, path: Path) -> None:
    size = path.stat().st_size
    ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if ends and max(ends) > size:  # some writers' files would else be read with zeros in place of what is missing
        raise ImageError(f"{path} is cut short: {max(ends)} bytes are needed, it has {size}. {REPAIR}")
    strips = page.chunked  # how many strips or tiles there are, along each axis
    if len(page.databytecounts) != math.prod(strips) and len(page.databytecounts) != 1:
        raise ImageError(
            f"{path} is damaged: {math.prod(strips)} strips or tiles are needed, {len(page.databytecounts)} are listed. {REPAIR}"
        )
    if page.compression == 1 and page.bitspersample == 8 * page.dtype.itemsize:  # pixels of 1 or 12 bits are packed
        # unpacked pixels have a length that is known: with a damaged width or number of bits the image would be read shifted
        held, needed = sum(page.databytecounts), page.nbytes
        padded = math.prod(strips) * math.prod(page.chunks) * page.dtype.itemsize  # the last strip or tile may be filled up
        if not needed <= held <= padded:
            raise ImageError(
                f"{path} is damaged: an image of {page.shape} {page.dtype} has {needed} bytes, its header says {held}. {REPAIR}"
            )
    if page.compression in _DEFLATE:
        _check_strips(page, path)
    elif page.compression == tifffile.COMPRESSION.LZMA and max(page.databytecounts, default=0) * _LZMA > FREE:
        raise ImageError(f"{path} is compressed by LZMA in pieces too large to be opened with care. Save it without compression. {REPAIR}")


def _check_strips(page: Any, path: Path) -> None:
    """Refuse a strip or tile that unpacks to more than it should: tifffile unpacks it whole, whatever comes out."""
    size = math.prod(page.chunks) * max(1, page.dtype.itemsize if page.dtype is not None else 1)
    handle = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if count * DEFLATE > FREE:
            handle.seek(offset)
            check_stream(handle.read(count), size, "a strip")


def _picture_layout(path: Path) -> Layout:
    with Image.open(path) as picture:
        return _layout_of(picture, path)


def _layout_of(picture: Image.Image, path: Path) -> Layout:
    mode = picture.mode
    if mode in ("CMYK", "YCbCr", "LAB", "HSV", "1"):
        raise ImageError(f"{path}: colour mode {mode} cannot be taken as channel intensities. Export it as grey or RGB.")
    dtype = "uint16" if mode.startswith("I;16") else {"I": "int32", "F": "float32"}.get(mode, "uint8")
    size = (picture.height, picture.width)
    if mode in ("RGB", "RGBA", "RGBX", "P", "PA"):
        return check_size(Layout("YXS", (*size, 3), dtype), path)
    return check_size(Layout("YX", size, dtype), path)


def _read_picture(path: Path) -> tuple[np.ndarray, Layout]:
    with Image.open(path) as picture:
        layout = _layout_of(picture, path)
        if picture.format == "PNG":
            with Image.open(path) as checked:
                checked.verify()  # every check sum of the file; loading looks at none of the pixels'
        if picture.mode in ("P", "PA"):
            picture.load()
            return np.asarray(picture.convert("RGB")), layout
        pixels = np.asarray(picture)
    if pixels.ndim == 3:
        pixels = pixels[..., :3] if layout.axes == "YXS" else pixels[..., 0]
    return pixels, layout
