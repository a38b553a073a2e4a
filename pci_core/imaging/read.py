"""Fields of view from image files to arrays, in the recipe's channel order and at their own bit depth.

Whatever is wrong with a file is said with its name and what to do; nothing is filled in or guessed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from skimage.transform import downscale_local_mean

from pci_core.errors import ImageError, RecipeError
from pci_core.imaging.layout import REPAIR, UNEQUAL, Layout
from pci_core.imaging.pixels import read_array, read_pages, read_pixels, usable_dtype
from pci_core.reading import is_dir, is_file
from pci_core.recipe import Recipe

__all__ = ["as_dtype", "channel_names", "check_scale", "downscale", "field_order", "read_field", "read_pixels", "usable_dtype"]

COLOURS = {"red": 0, "green": 1, "blue": 2, "yellow": 0}  # HPA paints its ER marker yellow: red and green alike
_NAMED_COLOUR = re.compile(r"(?:^|[_\-. ])(red|green|blue|yellow)(?=$|[_\-. ])", re.IGNORECASE)


def read_field(row: Mapping[str, Any], recipe: Recipe, root: str | os.PathLike[str] = ".") -> np.ndarray:
    """Read one field of view as the recipe says, reduced by ``fields.downscale``.

    Parameters
    ----------
    row : mapping
        One row of a field table: ``path`` (formats ``composite``, ``stack``, ``named``) or one ``path_<channel>`` a
        channel (``separate``); ``page``, where files hold several fields: the first page, from 0; ``field`` is used in messages.
    recipe : Recipe
        Says the channels, their order or names in the file, the format and the reduction.
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
        or type; there are z planes or time points; a pixel is NaN or infinite; the file gives another
        pixel size than the recipe.
    RecipeError
        ``fields.order`` does not name every channel.
    """
    names = [c.name for c in recipe.channels]
    how = recipe.fields.format
    if how == "separate":
        files = [_resolve(row, f"path_{n}", n, root) for n in names]
        planes = []
        for file, name in zip(files, names, strict=True):
            pixels, layout = read_array(file)
            check_scale(layout.um_per_px, recipe, file)
            planes.append(_grey(pixels, file, name))
    else:
        file = _resolve(row, "path", ", ".join(names), root)
        files = [file] * len(names)
        order = [] if how == "named" else field_order(recipe)
        if recipe.source.kind == "folder" and recipe.source.fields_per_file > 1:
            pixels, layout = read_pages(file, int(row["page"]), len(order)), Layout("", (), "")
        else:
            pixels, layout = read_array(file)
        check_scale(layout.um_per_px, recipe, file)
        if how == "named":
            planes = _named(pixels, layout, file, channel_names(recipe))
        else:
            planes = _composite(pixels, file) if how == "composite" else _stack(pixels, layout, file, len(order))
            planes = [planes[order.index(n)] for n in names]
    shapes = {p.shape for p in planes}
    if len(shapes) > 1:
        found = "; ".join(f"{n} {p.shape[0]}x{p.shape[1]} px ({f.name})" for n, p, f in zip(names, planes, files, strict=True))
        raise ImageError(f"{_name(row)}: channels of different sizes: {found}. All channels of a field must show the same pixels. {REPAIR}")
    typed = [usable_dtype(p, f) for p, f in zip(planes, files, strict=True)]
    if len({p.dtype for p in typed}) > 1:
        found = "; ".join(f"{n} {p.dtype} ({f.name})" for n, p, f in zip(names, typed, files, strict=True))
        raise ImageError(f"{_name(row)}: channels of different types: {found}. Export all channels of a field with one bit depth.")
    field = np.stack(typed)
    if field.dtype.kind == "f":
        for plane, name, file in zip(field, names, files, strict=True):
            bad = int((~np.isfinite(plane)).sum())
            if bad:
                raise ImageError(f"{file}: channel '{name}' has {bad} NaN or infinite pixels. {REPAIR}")
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


def channel_names(recipe: Recipe) -> tuple[str, ...]:
    """Return what the file calls each channel of the recipe, for format ``named``."""
    return recipe.fields.file_channels or tuple(c.name for c in recipe.channels)


def check_scale(um_per_px: float, recipe: Recipe, path: Path) -> None:
    """Refuse a file whose pixel size (µm, unreduced; 0 = not told) is not the recipe's; one of the two must then be wrong.

    Raises
    ------
    ImageError
        Both are told and differ by more than 1 %.
    """
    expected = recipe.fields.um_per_px
    if um_per_px and expected and abs(um_per_px - expected) > UNEQUAL * expected:
        raise ImageError(
            f"{path}: its metadata say {um_per_px:.4g} µm per px, [fields] um_per_px of the recipe says {expected:g} (px as stored, before "
            "'downscale'). Correct the recipe, or set it to 0 if the file is wrong: then no size in µm is known."
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
    if not is_file(path) and not is_dir(path):
        raise ImageError(f"{_name(row)}: the file {path} for channel '{channel}' is not there. Correct '{column}'. {remedy}")
    return path


def _named(pixels: np.ndarray, layout: Layout, path: Path, wanted: tuple[str, ...]) -> list[np.ndarray]:
    found = [n.strip().lower() for n in layout.names]
    listed = ", ".join(f"'{n}'" for n in layout.names) or "none"
    missing = [w for w in wanted if found.count(w.strip().lower()) != 1]
    if missing:
        twice = [w for w in missing if w.strip().lower() in found]
        raise ImageError(
            f"{path}: channel {', '.join(repr(m) for m in missing)} {'is there more than once' if twice else 'is not in the file'}; its "
            f"channels are {listed}. Write the file's own names into [fields] file_channels, use format = 'stack' with 'order', or leave "
            "the field out."
        )
    planes = pixels.reshape((-1, layout.size("Y"), layout.size("X")))
    return [planes[found.index(w.strip().lower())] for w in wanted]


def _composite(pixels: np.ndarray, path: Path) -> list[np.ndarray]:
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise ImageError(
            f"{path} is no colour composite: shape {pixels.shape}, expected (height, width, 3). "
            "Use [fields] format = 'separate' or 'stack' for such files, or leave the field out."
        )
    return [pixels[..., i] for i in range(3)]


def _stack(pixels: np.ndarray, layout: Layout, path: Path, n: int) -> list[np.ndarray]:
    pixels = np.squeeze(pixels)
    if pixels.ndim == 2 and n == 1:
        return [pixels]
    if pixels.ndim == 3:
        # channels first is what OME-TIFF and ImageJ write; channels last only where it alone fits and the file does not say otherwise
        for axis in (0,) if layout.size("C") > 1 else (0, 2):
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
        "_blue) in its name. Export it as grey, name its colour, or use [fields] format = 'composite', 'stack' or 'named'."
    )
