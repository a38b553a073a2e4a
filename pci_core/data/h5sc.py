"""scPortrait's single-cell files (``.h5sc``): ready crops with masks, channel names and a table, in HDF5.

Layout since scPortrait 1.3: an AnnData file with the pixels at ``obsm/single_cell_images``, (N, C, H, W), floats in [0, 1];
masks first, then image channels. Their names and kinds stand in the attributes of that array, again in ``uns`` and ``var`` (there
cut to 15 characters by some versions); ``obs`` holds ``scportrait_cell_id`` and whatever else is known. scPortrait has masked each
channel and scaled it already. Read with h5py alone: no code in the file is run, and nothing outside the file is opened.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from pci_core.cells import NUMBER_COLUMNS, CellDataset
from pci_core.data.exchange import image_columns, images_of, recipe_text, shown, write_crops
from pci_core.errors import CellTableError, ImageError, RecipeError
from pci_core.hdf5 import check_hdf5
from pci_core.reading import refusing
from pci_core.recipe import Recipe
from pci_core.unpacking import check_arrays

IMAGES, CELL_ID = "obsm/single_cell_images", "scportrait_cell_id"
_MASK, _CHANNEL = "mask", "image_channel"
_CHUNK = 256 << 20  # bytes of a chunk: what is unpacked at once
_ROWS = 1 << 20  # entries of a column beyond one a cell: categories
_FLOATS = ("float16", "float32", "float64")
_REPAIR = "Run the extraction of scPortrait again, or copy the file again."


@dataclass(frozen=True)
class _Cells:
    """An open file that was found harmless and whole."""

    path: Path
    images: h5py.Dataset
    names: list[str]
    masks: list[bool]
    table: pd.DataFrame

    @property
    def channels(self) -> list[str]:
        return [n for n, mask in zip(self.names, self.masks, strict=True) if not mask]


def h5sc_cells(recipe: Recipe, out: str | os.PathLike[str], *, progress: bool = True) -> CellDataset:
    """Make a CellDataset of a ``.h5sc`` file.

    Parameters
    ----------
    recipe : Recipe
        ``source.path``: the file. ``source.channels``: its names of the recipe's channels, in the recipe's order; empty = the
        same names. ``source.names``: columns of obs, with commas, whose values together are the image; empty = ``image``, or
        ``plate`` and ``well``; ``"*"`` = all cells are of one image. ``crop.size``: side of the file's crops; ``crop.resize``: of
        the stored ones.
    out : path-like
        Folder of the dataset; an older one is replaced at the end.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    CellDataset
        (N, C, H, W) float32 (uint8 and uint16 stay as they are). ``cell_id`` is obs's own column of that name, else
        ``scportrait_cell_id``, with the image in front where it is unique only within one. All columns of numbers or text go along.

    Raises
    ------
    ImageError
        No ``.h5sc``, damaged, not written to the end, pixels that are NaN, or parts outside the file.
    CellTableError
        obs does not say which cells are of one image, or gives two cells one name.
    RecipeError
        Channels or side of the crops are not those of the file.
    """
    with _open(recipe.source_path) as cells:
        planes = _planes(cells, recipe)
        table = _table(cells, recipe)
        info = {
            "source": {
                "kind": "h5sc",
                "file": cells.path.name,
                "channels": [cells.names[i] for i in planes],
                "masks": [n for n, mask in zip(cells.names, cells.masks, strict=True) if mask],
            }
        }

        def read(rows: np.ndarray) -> np.ndarray:
            with _readable(cells.path):
                crops = _read(cells, rows, planes)
            bad = ~np.isfinite(crops).all(axis=(1, 2, 3))
            if bad.any():
                names = table["cell_id"].iloc[rows[bad]].tolist()
                raise ImageError(f"{cells.path}: NaN or infinite pixels in cells {shown(names)}. Take them out of the file or repair them.")
            return crops

        return write_crops(recipe, out, table, read, info, progress=progress)


def h5sc_size(recipe: Recipe) -> tuple[int, int]:
    """Return how many cells and images the file of a recipe holds, before any filter; see `h5sc_cells` for errors."""
    with _open(recipe.source_path) as cells:
        return len(cells.table), int(images_of(cells.table, recipe, str(cells.path)).nunique())


def init_recipe(path: str | os.PathLike[str]) -> str:
    """Return a recipe for a ``.h5sc`` file, to be stored beside it and checked by a person.

    Raises
    ------
    ImageError, RecipeError
        See `h5sc_cells`; also a file with a single image channel.
    """
    with _open(Path(path)) as cells:
        n, _, side, _ = cells.images.shape
        masks = [name for name, mask in zip(cells.names, cells.masks, strict=True) if mask]
        columns = [str(c) for c in cells.table.columns if c != CELL_ID]
        by = image_columns(columns)
        images = f" of {cells.table[by].drop_duplicates().shape[0]:,} images" if by else ""
        notes = [
            f"{n:,} cells{images}; image channels {', '.join(cells.channels)}; masks (not read) {', '.join(masks) or 'none'}.",
            "scPortrait has masked each crop and scaled its channels to [0, 1].",
        ]
        doubled = sorted({c for c in cells.channels if cells.channels.count(c) > 1})
        if doubled:
            raise RecipeError(f"{cells.path}: several channels are called {', '.join(doubled)}. Give each its own name in the file.")
        return recipe_text(cells.path, "h5sc", cells.channels, side, columns, notes)


@contextmanager
def _open(path: Path) -> Iterator[_Cells]:
    if not path.is_file():
        raise ImageError(f"{path} is not there. Correct 'path' in [source] of the recipe, or name the file with --data.")
    check_hdf5(path, ImageError, _REPAIR)
    with ExitStack() as stack:
        with _readable(path):
            file = stack.enter_context(h5py.File(path, "r", rdcc_nbytes=64 << 20))
            _check_inside(file, path)
            check_arrays(file)
            images = _images(file, path)
            names, masks = _channels(file, images, path)
            cells = _Cells(path, images, names, masks, _obs(file, len(images), path))
        yield cells


def _readable(path: Path) -> AbstractContextManager[None]:
    return refusing(path, ImageError, "is damaged, cut short or no .h5sc file", _REPAIR)


def _check_inside(file: h5py.File, path: Path) -> None:
    """Refuse whatever lies outside the file or is not plain numbers and text."""

    def link(name: str, found: Any) -> str | None:
        return f"'{name}' is a link to another file ({found.filename})" if isinstance(found, h5py.ExternalLink) else None

    def item(name: str, found: Any) -> str | None:
        return f"'{name}' lies in another file" if isinstance(found, h5py.Dataset) and (found.is_virtual or found.external) else None

    wrong = file.visititems_links(link) or file.visititems(item)  # the first that is not None; h5py wants no error raised inside
    if wrong:
        raise ImageError(f"{path}: {wrong}. Copy the data into one file first.")


def _images(file: h5py.File, path: Path) -> h5py.Dataset:
    images = file.get(IMAGES)
    if not isinstance(images, h5py.Dataset):
        old = " It has the layout of scPortrait before 1.3: extract the cells again with a newer one." if "single_cell_data" in file else ""
        raise ImageError(f"{path} holds no {IMAGES} (found: {shown(list(file)) or 'nothing'}), so it is no .h5sc file.{old}")
    shape, kind = images.shape, images.dtype
    if len(shape) != 4 or 0 in shape or shape[2] != shape[3]:
        raise ImageError(f"{path}: {IMAGES} has shape {shape}, expected (cells, channels, side, side).")
    if kind.name not in (*_FLOATS, "uint8", "uint16"):
        raise ImageError(f"{path}: pixels are {kind}, expected float16 or float32 (or uint8, uint16).")
    if images.chunks is None:
        written, needed = images.id.get_storage_size(), math.prod(shape) * kind.itemsize
    else:
        if math.prod(images.chunks) * kind.itemsize > _CHUNK:
            raise ImageError(f"{path}: {IMAGES} is stored in pieces of {images.chunks}, too large to read. Write it with one piece a cell.")
        written = images.id.get_num_chunks()
        needed = math.prod(-(-n // c) for n, c in zip(shape, images.chunks, strict=True))
    if written < needed:
        raise ImageError(f"{path}: {IMAGES} was not written to its end ({written:,} of {needed:,} pieces are there). {_REPAIR}")
    return images


def _channels(file: h5py.File, images: h5py.Dataset, path: Path) -> tuple[list[str], list[bool]]:
    def entry(key: str, column: str) -> list[str] | None:
        if key in images.attrs:
            return [_text(v) for v in np.ravel(images.attrs[key])]
        for place in (f"uns/single_cell_images/{key}", f"var/{column}"):
            if place in file:
                return [_text(v) for v in _column(file[place], images.shape[1], path)]
        return None

    names, kinds = entry("channel_names", "channels"), entry("channel_mapping", "channel_mapping")
    n = images.shape[1]
    if kinds is None and "n_masks" in images.attrs:
        first = int(images.attrs["n_masks"])
        kinds = [_MASK] * first + [_CHANNEL] * (n - first)
    if names is None or kinds is None or len(names) != n or len(kinds) != n or set(kinds) - {_MASK, _CHANNEL}:
        raise ImageError(
            f"{path}: {n} channels, but their names are {names} and their kinds {kinds}; expected one name and 'mask' or 'image_channel' "
            f"for each, as attributes of {IMAGES}."
        )
    return names, [k == _MASK for k in kinds]


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _obs(file: h5py.File, n: int, path: Path) -> pd.DataFrame:
    obs = file.get("obs")
    if not isinstance(obs, h5py.Group):
        raise ImageError(f"{path} has no table of cells (obs). {_REPAIR}")
    names = [_text(v) for v in np.ravel(obs.attrs.get("column-order", []))]
    columns = {name: _column(obs[name], n, path) for name in names}
    wrong = {name: len(values) for name, values in columns.items() if len(values) != n}
    if wrong:
        raise CellTableError(f"{path}: {n} crops, but columns of obs have other lengths: {wrong}. {_REPAIR}")
    return pd.DataFrame(columns, index=pd.RangeIndex(n))


def _column(item: Any, n: int, path: Path) -> np.ndarray:
    """Read one column of an AnnData table: numbers, truth values or text; a category or a missing value becomes text or NaN."""
    if isinstance(item, h5py.Group):
        if {"codes", "categories"} <= set(item):
            codes, words = _column(item["codes"], n, path), _column(item["categories"], n, path)
            if len(codes) and (codes.max() >= len(words) or codes.min() < -1):
                raise CellTableError(f"{path}: column {item.name} names categories that it does not have. {_REPAIR}")
            out: np.ndarray = np.append(words.astype(object), "")[codes]
            return out
        if {"values", "mask"} <= set(item):
            values = pd.Series(_column(item["values"], n, path))
            out = values.mask(_column(item["mask"], n, path).astype(bool)).to_numpy()
            return out
        raise CellTableError(f"{path}: {item.name} is no column of a kind that can be read. Take it out of obs.")
    if item.size > max(n, _ROWS):
        raise CellTableError(f"{path}: {item.name} has {item.size:,} entries for {n:,} cells. Take it out of obs.")
    if h5py.check_string_dtype(item.dtype) is not None:
        return np.asarray(item.asstr()[()], dtype=object)
    if item.dtype.kind not in "iufb":
        raise CellTableError(f"{path}: {item.name} is {item.dtype}, neither numbers nor text. Take it out of obs.")
    values = np.asarray(item[()])
    return values.astype(np.float64) if values.dtype.kind == "f" and values.itemsize not in (4, 8) else values


def _planes(cells: _Cells, recipe: Recipe) -> list[int]:
    """Return the file's planes in the recipe's order of channels."""
    names, found = list(recipe.source.channels) or [c.name for c in recipe.channels], cells.channels
    if len(names) != len(recipe.channels) or len(set(names)) != len(names):
        raise RecipeError(
            f"{recipe.name}: [source] channels must give the file's name of each of the {len(recipe.channels)} channels once: {names}."
        )
    wrong = [n for n in names if found.count(n) != 1]
    if wrong:
        what = "are there more than once" if wrong[0] in found else "are not among its image channels"
        raise RecipeError(
            f"{cells.path}: channels {', '.join(wrong)} of recipe '{recipe.name}' {what} ({', '.join(found)}). Write the file's names, in "
            "the order of the recipe's channels, as [source] channels = [...]."
        )
    side = cells.images.shape[2]
    if side != recipe.crop.size:
        raise RecipeError(f"{cells.path} holds crops of {side} px, the recipe says {recipe.crop.size}. Set [crop] size = {side}.")
    return [next(i for i, n in enumerate(cells.names) if n == name and not cells.masks[i]) for name in names]


def _table(cells: _Cells, recipe: Recipe) -> pd.DataFrame:
    table = cells.table.copy()
    for column in set(NUMBER_COLUMNS) & set(table):
        if table[column].dtype.kind not in "iuf":
            raise CellTableError(f"{cells.path}: column '{column}' of obs must be numbers (px), found text. Rename it or take it out.")
    table["image"] = images_of(cells.table, recipe, str(cells.path)).to_numpy()
    names = table.get("cell_id", table.get(CELL_ID))
    if names is None:
        raise CellTableError(f"{cells.path}: obs has neither {CELL_ID} nor cell_id (found: {shown(list(table)) or 'no column'}).")
    names = names.astype(str)
    table["cell_id"] = names if names.is_unique else table["image"] + "_" + names
    return table


def _read(cells: _Cells, rows: np.ndarray, planes: list[int]) -> np.ndarray:
    first, last = int(rows[0]), int(rows[-1])
    block = cells.images[first : last + 1] if last - first + 1 == len(rows) else np.stack([cells.images[int(r)] for r in rows])
    crops = block[:, planes]
    return crops.astype(np.float32) if crops.dtype.kind == "f" else crops
