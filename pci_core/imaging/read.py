"""Fields of view from image files to arrays, in the recipe's channel order and at their own bit depth.

Whatever is wrong with a file is said with its name and what to do; nothing is filled in or guessed.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from skimage.transform import downscale_local_mean

from pci_core.cells import DTYPES
from pci_core.errors import ImageError, RecipeError
from pci_core.recipe import Recipe

TIFF_SUFFIXES = (".tif", ".tiff")
COLOURS = {"red": 0, "green": 1, "blue": 2, "yellow": 0}  # HPA paints its ER marker yellow: red and green alike
_NAMED_COLOUR = re.compile(r"(?:^|[_\-. ])(red|green|blue|yellow)(?=$|[_\-. ])", re.IGNORECASE)
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, SyntaxError, zlib.error, Image.DecompressionBombError)
_REPAIR = "Fetch or export the file again, or take this field out of the field table."


def read_field(row: Mapping[str, Any], recipe: Recipe, root: str | os.PathLike[str] = ".") -> np.ndarray:
    """Read one field of view as the recipe says, reduced by ``fields.downscale``.

    Parameters
    ----------
    row : mapping
        One row of a field table: ``path`` (formats ``composite``, ``stack``) or one ``path_<channel>`` a
        channel (``separate``); ``field`` is used in messages.
    recipe : Recipe
        Says the channels, their order in the file, the format and the reduction.
    root : path-like
        Folder that relative paths start from.

    Returns
    -------
    ndarray
        (C, H, W) in the order of ``recipe.channels``; uint8, uint16 or float32, intensities as stored.

    Raises
    ------
    ImageError
        A file is missing, unreadable, truncated or empty; a channel is missing; channels differ in size
        or type; a pixel is NaN or infinite.
    RecipeError
        ``fields.order`` does not name every channel.
    """
    names = [c.name for c in recipe.channels]
    if recipe.fields.format == "separate":
        files = [_resolve(row, f"path_{n}", n, root) for n in names]
        planes = [_grey(_read(f), f, n) for f, n in zip(files, names, strict=True)]
    else:
        file = _resolve(row, "path", ", ".join(names), root)
        files = [file] * len(names)
        order = field_order(recipe)
        planes = _composite(_read(file), file) if recipe.fields.format == "composite" else _stack(file, len(order))
        planes = [planes[order.index(n)] for n in names]
    shapes = {p.shape for p in planes}
    if len(shapes) > 1:
        found = "; ".join(f"{n} {p.shape[0]}x{p.shape[1]} px ({f.name})" for n, p, f in zip(names, planes, files, strict=True))
        raise ImageError(
            f"{_name(row)}: channels of different sizes: {found}. All channels of a field must show the same pixels. {_REPAIR}"
        )
    typed = [usable_dtype(p, f) for p, f in zip(planes, files, strict=True)]
    if len({p.dtype for p in typed}) > 1:
        found = "; ".join(f"{n} {p.dtype} ({f.name})" for n, p, f in zip(names, typed, files, strict=True))
        raise ImageError(f"{_name(row)}: channels of different types: {found}. Export all channels of a field with one bit depth.")
    field = np.stack(typed)
    if field.dtype.kind == "f":
        for plane, name, file in zip(field, names, files, strict=True):
            bad = int((~np.isfinite(plane)).sum())
            if bad:
                raise ImageError(f"{file}: channel '{name}' has {bad} NaN or infinite pixels. {_REPAIR}")
    return downscale(field, recipe.fields.downscale)


def downscale(field: np.ndarray, factor: int) -> np.ndarray:
    """Reduce a field by a whole factor: local mean, integers rounded half to even.

    Parameters
    ----------
    field : ndarray
        (C, H, W).
    factor : int
        Side of the square that becomes one pixel. Rows and columns left over at the end are cut off,
        so that every pixel is a mean of ``factor**2`` true ones.

    Returns
    -------
    ndarray
        (C, H // factor, W // factor), the same dtype.
    """
    if factor == 1:
        return field
    h, w = (s // factor * factor for s in field.shape[1:])
    if not h or not w:
        raise ImageError(f"a field of {field.shape[1]}x{field.shape[2]} px cannot be reduced by {factor}; lower 'downscale' in [fields].")
    return as_dtype(downscale_local_mean(field[:, :h, :w], (1, factor, factor)), field.dtype)


def as_dtype(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Cast means of pixels back to the stored type: integers are rounded half to even."""
    return (np.rint(values) if dtype.kind in "ui" else values).astype(dtype)


def field_order(recipe: Recipe) -> list[str]:
    """Return what each plane of the file holds, e.g. ``["microtubules", "protein", "nucleus"]``; empty names are skipped planes.

    Raises
    ------
    RecipeError
        A channel of the recipe is not in ``fields.order``, or a composite has more than three planes.
    """
    order = list(recipe.fields.order)
    missing = [c.name for c in recipe.channels if c.name not in order]
    if missing or (recipe.fields.format == "composite" and len(order) > 3):
        raise RecipeError(
            f"{recipe.name}: [fields] order = {order} must name each channel once ({', '.join(c.name for c in recipe.channels)})"
            + (", in the order red, green, blue." if recipe.fields.format == "composite" else ", in the order of the file's planes.")
        )
    return order


def read_pixels(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image file as it is: (H, W), (H, W, colours) or, for TIFF, the shape of its first series.

    Raises
    ------
    ImageError
        Missing, empty, truncated or no image.
    """
    return _read(Path(path))


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


def _name(row: Mapping[str, Any]) -> str:
    return f"field '{row.get('field', '?')}'"


def _resolve(row: Mapping[str, Any], column: str, channel: str, root: str | os.PathLike[str]) -> Path:
    value = row.get(column)
    text = "" if value is None or value != value else str(value).strip()
    remedy = f"Leave the field out of the field table, or use a recipe without '{channel}'."
    if not text:
        raise ImageError(f"{_name(row)} has no file for channel '{channel}' (column '{column}' is empty). {remedy}")
    path = Path(root) / text
    if not path.is_file():
        raise ImageError(f"{_name(row)}: the file {path} for channel '{channel}' is not there. Correct '{column}'. {remedy}")
    return path


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ImageError(f"{path} is not there. Correct the path in the field table.")
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes). {_REPAIR}")
    try:
        pixels = _read_tiff(path) if path.suffix.lower() in TIFF_SUFFIXES else _read_picture(path)
    except ImageError:
        raise
    except _UNREADABLE as error:
        if "imagecodecs" in str(error):
            raise ImageError(f"{path}: {error}. Run 'pip install imagecodecs', or save the file without that compression.") from error
        raise ImageError(f"{path} cannot be read as an image, it is damaged, cut short or of another kind ({error}). {_REPAIR}") from error
    if pixels.size == 0:
        raise ImageError(f"{path} holds no pixels (shape {pixels.shape}). {_REPAIR}")
    return pixels


def _read_tiff(path: Path) -> np.ndarray:
    with tifffile.TiffFile(path) as tiff:
        size = path.stat().st_size
        for page in tiff.pages:
            ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if ends and max(ends) > size:  # some writers' files would else be read with zeros in place of what is missing
                raise ImageError(f"{path} is cut short: {max(ends)} bytes are needed, it has {size}. {_REPAIR}")
        return np.asarray(tiff.series[0].asarray())


def _read_picture(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        mode = picture.mode
        if mode in ("P", "PA"):
            picture.load()
            return np.asarray(picture.convert("RGB"))
        if mode in ("CMYK", "YCbCr", "LAB", "HSV", "1"):
            raise ImageError(f"{path}: colour mode {mode} cannot be taken as channel intensities. Export it as grey or RGB.")
        pixels = np.asarray(picture)
    return pixels[..., 0] if mode == "LA" else pixels[..., :3] if mode == "RGBA" else pixels


def _composite(pixels: np.ndarray, path: Path) -> list[np.ndarray]:
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise ImageError(
            f"{path} is no colour composite: shape {pixels.shape}, expected (height, width, 3). "
            "Use [fields] format = 'separate' or 'stack' for such files, or leave the field out."
        )
    return [pixels[..., i] for i in range(3)]


def _stack(path: Path, n: int) -> list[np.ndarray]:
    pixels = np.squeeze(_read(path))
    if pixels.ndim == 3:
        # channels first is what OME-TIFF and ImageJ write; channels last only where it alone fits
        for axis in (0, 2):
            if pixels.shape[axis] == n:
                return list(np.moveaxis(pixels, axis, 0))
    raise ImageError(
        f"{path}: expected {n} channel planes as [fields] order says, found shape {pixels.shape}. A channel is missing, the file is cut "
        "short, or it has z planes or time points: project them first, correct 'order', or leave the field out."
    )


def _grey(pixels: np.ndarray, path: Path, channel: str) -> np.ndarray:
    pixels = np.squeeze(pixels)
    if pixels.ndim == 2:
        return pixels
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        colours = pixels[..., :3]
        if (colours == colours[..., :1]).all():
            return colours[..., 0]
        named = _NAMED_COLOUR.findall(path.stem) or _NAMED_COLOUR.findall(channel)
        if named:  # as in HPA's own <plate>_<well>_<n>_blue.jpg
            return colours[..., COLOURS[named[-1].lower()]]
    raise ImageError(
        f"{path}: expected one grey channel '{channel}', found shape {pixels.shape} with differing planes and no colour (_red, _green, "
        "_blue) in its name. Export it as grey, name its colour, or use [fields] format = 'composite' or 'stack'."
    )
