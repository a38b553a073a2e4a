"""Labelled yeast cells as DeepLoc's HDF5 files hand them out (Chong et al. 2015; Kraus et al. 2017).

A file holds ``data1`` (cells, 2·64·64), the GFP and then the RFP image of each cell in one row, ``Index1`` (cells, classes),
one 1 in each row, and perhaps ``Info1`` (cells, columns): CellProfiler's measurements and where the cell came from. The names of
columns are arrays, or attributes of the file: ``Index1_columns`` and ``Info1_columns``.

- Spindle and spindle pole are one class, as in the paper; ``location_in_source`` keeps the file's own name.
- ``image`` (cells that may be paired) is the well where ``Info1`` tells one, else the protein, else the field of view. Where it
  tells none of these, each cell is an image of its own: no file says then which cells share a well, and pairs across proteins
  would teach a network the wrong thing. Such cells can be described and scored, but not trained on.
- The other numbers of ``Info1`` are kept beside the cells and are the feature set ``provided``.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from tqdm import tqdm

import pci_core
from pci_core.cells import CellDataset, CellWriter
from pci_core.data.deeploc_file import SIDE, Part, images, open_file, read_parts
from pci_core.data.measured import Columns, pack, sort_columns, write_provided
from pci_core.errors import DatasetError, RecipeError
from pci_core.recipe import Recipe

logger = logging.getLogger(__name__)

_BLOCK = 1024  # cells read at once: 64 MB of float64
_SUFFIXES = (".hdf5", ".h5")
_SPLITS = ("train", "valid", "test")
_KINDS = {"well": "well", "protein": "protein", "orf": "protein", "site": "field of view", "": "cell: the files do not tell more"}


def deeploc_cells(recipe: Recipe, out: str | os.PathLike[str], *, progress: bool = True) -> CellDataset:
    """Make a CellDataset of labelled yeast cells.

    Parameters
    ----------
    recipe : Recipe
        Two channels, the protein first; ``crop`` 64 px. ``source.path``: the folder of the HDF5 files, or one file.
    out : path-like
        Folder of the dataset; an older one is replaced at the end.
    progress : bool
        Show cells per second.

    Returns
    -------
    CellDataset
        Crops (N, 2, 64, 64): uint8 or uint16 where all pixels are whole numbers of that range, else float32. ``location`` is the
        class, ``split`` the set that the file's name tells (train, valid, test); ``protein``, ``orf``, ``plate``, ``well``,
        ``y``, ``x`` (px of the source's field) where the files tell them. ``info["left_out"]`` counts what was left out and why;
        ``info["provided"]`` says what is known of the measurements beside the cells, or why there are none.

    Raises
    ------
    DatasetError
        A file is missing, damaged or of another layout, holds objects, names other classes than the others, or no cell is left.
    RecipeError
        The recipe asks for other channels or another size.
    """
    _check_recipe(recipe)
    parts = _read(recipe)
    info, columns, why = _join_info(parts)
    table = _table(parts, info, columns)
    with ExitStack() as stack:
        stored = [images(stack.enter_context(open_file(p.path)), p.number, p.path) for p in parts]
        bad, dtype = _look(stored, progress)
        left = {
            "cells_without_class": int((table["_class"] == -1).sum()),
            "cells_of_several_classes": int((table["_class"] == -2).sum()),
            "cells_with_nan_or_infinite_pixels": int(bad.sum()),
            "cells_without_protein": int((table["protein"] == "").sum()),
            "info_columns_that_are_no_features": columns.others,
        }
        keep = np.flatnonzero((table["_class"] >= 0) & ~bad)
        if not len(keep):
            raise DatasetError(f"{recipe.source_path}: none of {len(table)} cells has one class and whole pixels ({left}).")
        order = keep[np.argsort(pd.factorize(table["image"].to_numpy()[keep])[0], kind="stable")]  # the cells of an image together
        content: bytes | None = None
        provided: str | dict[str, Any] = why
        if columns.features and info is not None:
            measured = info.loc[order, columns.features].astype("float32").reset_index(drop=True)
            measured.insert(0, "cell_id", table["cell_id"].to_numpy()[order])
            content, provided = pack(measured)
        more = {
            "recipe": recipe.name, "simulated": recipe.simulated, "left_out": left, "provided": provided,
            "source": {"kind": "deeploc", "files": [p.name for p in dict.fromkeys(p.path for p in parts)], "terms": recipe.licence},
            "channels_in_source": parts[0].channels, "merged_classes": _merges(parts[0].classes), "image_is": _KINDS[_grouping(columns)],
            "versions": {"pci_core": pci_core.__version__, "h5py": version("h5py"), "numpy": np.__version__},
        }  # fmt: skip
        starts = np.concatenate([[0], np.cumsum([len(p.label) for p in parts])])
        shown = table.drop(columns="_class")
        with (
            CellWriter(out, recipe.channels, recipe.fields.um_per_px or None, rule=recipe.crop.rule, **more) as writer,
            tqdm(total=len(order), desc=recipe.name, unit=" cells", disable=not progress) as bar,
        ):
            for rows in np.array_split(order, -(-len(order) // _BLOCK)):
                writer.add(_crops(stored, starts, rows).astype(dtype), shown.iloc[rows])
                bar.update(len(rows))
    if content is not None:
        write_provided(Path(out), content)
    for what, n in left.items():
        if isinstance(n, int) and n:
            logger.warning("%s: %d %s", recipe.name, n, what.replace("_", " "))
    return CellDataset(out)


def deeploc_size(recipe: Recipe) -> tuple[int, int]:
    """Return how many cells and images the files hold, before any is left out; for errors see `deeploc_cells`."""
    parts = _read(recipe)
    info, columns, _ = _join_info(parts)
    table = _table(parts, info, columns)
    return len(table), table["image"].nunique()


def _check_recipe(recipe: Recipe) -> None:
    if [c.role for c in recipe.channels] != ["protein", "structural"]:
        raise RecipeError(
            f"{recipe.name}: DeepLoc's cells have a protein and one structural channel, not {[c.name for c in recipe.channels]}."
        )
    if not recipe.crop.size == recipe.crop.resize == SIDE:
        raise RecipeError(f"{recipe.name}: DeepLoc's cells are crops of {SIDE} px; set size and resize in [crop] to {SIDE}.")


def _read(recipe: Recipe) -> list[Part]:
    path = recipe.source_path
    files = [path] if path.is_file() else sorted(p for p in path.glob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    files = [p for p in files if p.name.lower().startswith("chong")] or files  # the archive holds sets of other screens too
    if not files:
        raise DatasetError(
            f"{path} {'has no HDF5 file (.hdf5, .h5)' if path.is_dir() else 'is not there'}. {recipe.name} reads files that you put there, "
            f"see 'pci info {recipe.name}'; --data names another folder."
        )
    parts = [part for p in files for part in read_parts(p)]
    for part in parts[1:]:
        if differ := sorted(set(part.classes) ^ set(parts[0].classes)):
            raise DatasetError(
                f"{part.path} has other classes than {parts[0].path.name}: {', '.join(differ[:10])}. Read them as two data sets."
            )
    return parts


def _join_info(parts: list[Part]) -> tuple[pd.DataFrame | None, Columns, str]:
    """Put the measurements of all parts together, if all have the same; else say why not."""
    if why := next((p.why for p in parts if p.info is None), ""):
        return None, Columns(), why
    tables = [p.info for p in parts if p.info is not None]
    names = list(tables[0])
    for part, table in zip(parts, tables, strict=True):
        if differ := sorted(set(table) ^ set(names)):
            return None, Columns(), f"{part.path.name} has other columns of 'Info1' than {parts[0].path.name}: {', '.join(differ[:10])}"
    text = set().union(*(p.text for p in parts))
    columns = sort_columns(names, text)
    return pd.concat(tables, ignore_index=True), columns, "" if columns.features else "'Info1' has no column of measurements"


def _merges(classes: list[str]) -> dict[str, list[str]]:
    """Return which classes are counted as one: spindle and spindle pole, however written."""
    same = [c for c in classes if re.sub(r"[^a-z]", "", c.lower()) in ("spindle", "spindles", "spindlepole", "spindlepoles")]
    return {min(same, key=len): same} if len(same) > 1 else {}


def _grouping(columns: Columns) -> str:
    """Return what makes cells one image."""
    return next((role for role in ("well", "protein", "orf", "site") if role in columns.told), "")


def _table(parts: list[Part], info: pd.DataFrame | None, columns: Columns) -> pd.DataFrame:
    rows: dict[str, list[Any]] = {"cell_id": [], "location_in_source": [], "split": [], "_class": []}
    done: Counter[Path] = Counter()
    for part in parts:
        first, n = done[part.path], len(part.label)
        done[part.path] += n
        rows["cell_id"] += [f"{part.path.stem}_{first + i:05d}" for i in range(n)]
        rows["location_in_source"] += [part.classes[c] if c >= 0 else "" for c in part.label]
        rows["split"] += [next((s for s in _SPLITS if s in part.path.stem.lower()), "")] * n
        rows["_class"] += part.label.tolist()
    table = pd.DataFrame(rows)
    other = {c: name for name, merged in _merges(parts[0].classes).items() for c in merged}
    table["location"] = table["location_in_source"].replace(other)
    told = {role: _texts(info[name]) for role, name in columns.told.items()} if info is not None else {}
    for role in ("orf", "screen", "plate", "well"):
        if role in told:
            table[role] = told[role]
    table["protein"] = told.get("protein", told.get("orf", pd.Series("", index=table.index)))
    for role in ("x", "y"):
        if info is not None and role in columns.told and pd.api.types.is_numeric_dtype(info[columns.told[role]]):
            table[role] = info[columns.told[role]]
    by = _grouping(columns)
    image = told[by] if by else pd.Series("", index=table.index)
    for role in ("plate", "screen") if by in ("well", "site") else ("screen",):
        if by and role in told:
            image = told[role].where(image == "", told[role] + "_" + image)
    table["image"] = image.where(image != "", table["cell_id"])  # where nothing is told, a cell stands alone
    return table


def _texts(values: pd.Series) -> pd.Series:
    """Return values as texts, numbers without '.0', gaps empty."""
    if pd.api.types.is_numeric_dtype(values):
        return values.map(lambda v: "" if not np.isfinite(v) else f"{v:.0f}" if float(v).is_integer() else f"{v:g}").astype(object)
    return values.fillna("").astype(str).astype(object)


def _blocks(data: h5py.Dataset) -> Iterator[np.ndarray]:
    for start in range(0, len(data), _BLOCK):
        yield data[start : start + _BLOCK]


def _look(stored: list[h5py.Dataset], progress: bool) -> tuple[np.ndarray, str]:
    """Read all pixels once: which cells hold NaN or infinite ones, (n,) bool, and the type that holds the others."""
    bad, whole, low, high = [], True, np.inf, -np.inf
    with tqdm(total=sum(map(len, stored)), desc="checking", unit=" cells", disable=not progress) as bar:
        for data in stored:
            for block in _blocks(data):
                hurt = ~np.isfinite(block).all(1) if block.dtype.kind == "f" else np.zeros(len(block), bool)
                bad.append(hurt)
                good = block[~hurt]
                if len(good):
                    low, high = min(low, float(good.min())), max(high, float(good.max()))
                    whole = whole and (block.dtype.kind != "f" or bool((good == np.rint(good)).all()))
                bar.update(len(block))
    small = all(d.dtype == np.uint8 for d in stored)
    fits = whole and low >= 0 and high <= 65535
    return np.concatenate(bad), "uint8" if small else "uint16" if fits else "float32"


def _crops(stored: list[h5py.Dataset], starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Read cells by their number over all parts: (n, 2, 64, 64), in the order asked for."""
    out: np.ndarray | None = None
    which = np.searchsorted(starts, rows, side="right") - 1
    for part in np.unique(which):
        at = np.flatnonzero(which == part)
        local = rows[at] - starts[part]
        ordered = np.sort(local)  # h5py wants rising rows; a range of them is read in one go
        one = ordered[-1] - ordered[0] + 1 == len(ordered)
        block = stored[part][ordered[0] : ordered[-1] + 1] if one else stored[part][ordered]
        if out is None:
            out = np.empty((len(rows), block.shape[1]), np.float64 if len(np.unique(which)) > 1 else block.dtype)
        out[at] = block[np.searchsorted(ordered, local)]
    assert out is not None
    return out.reshape(-1, 2, SIDE, SIDE)
