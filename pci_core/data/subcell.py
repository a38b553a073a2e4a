"""SubCell's ``path_list.csv``: ready crops, one row a cell with one image file a channel.

As SubCellPortable reads it: ``r_image`` (microtubules), ``y_image`` (endoplasmic reticulum), ``b_image`` (nucleus), ``g_image``
(protein), ``output_prefix``; older lists have ``output_folder`` before it, newer ones may have more proteins as further
``…_image`` columns. A line that begins with ``#`` is skipped, except a header; old lists have none. Paths start at the list's folder.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pci_core.cells import CellDataset
from pci_core.data.exchange import image_columns, images_of, recipe_text, shown, write_crops
from pci_core.errors import CellTableError, ImageError, RecipeError
from pci_core.imaging.read import read_field, read_pixels
from pci_core.reading import is_file, refusing
from pci_core.recipe import Recipe

LIST = "path_list.csv"
CHANNELS = {"r_image": "microtubules", "y_image": "er", "b_image": "nucleus", "g_image": "protein"}
PREFIX, FOLDER = "output_prefix", "output_folder"
PREFIX_RULE = "the folder of output_prefix, or what stands before its last number (plate_well_field_7, plate_well_field_cell7)"
_BARE = {5: [*CHANNELS, PREFIX], 6: [*CHANNELS, FOLDER, PREFIX]}  # lists without a header, by their number of columns
_NUMBERED = re.compile(r"(?P<image>.+?)[_\-](?:cell[_\-]?|crop[_\-]?)?\d+")
_NO_NAMES = {"cell", "crop", "image", "img", "sample"}  # cell_1, sample_2: numbers alone, no image
_LOOKED_AT = 100  # crops whose size `init_recipe` looks at


def subcell_cells(recipe: Recipe, out: str | os.PathLike[str], *, progress: bool = True) -> CellDataset:
    """Make a CellDataset of the cells that SubCell's ``path_list.csv`` lists.

    Parameters
    ----------
    recipe : Recipe
        ``source.path``: the list, or its folder. ``source.channels``: its columns in the order of the recipe's channels; empty =
        the recipe's channels are called as the columns, with or without ``_image``. ``source.names``: columns, with commas,
        whose values together are the image; empty = ``image``, or ``plate`` and ``well``, else from ``output_prefix``: its
        folder, or what stands before its last number. ``crop.size``: side of every crop; ``crop.resize``: of the stored ones.
    out : path-like
        Folder of the dataset; an older one is replaced at the end.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    CellDataset
        (N, C, H, W) uint8, uint16 or float32 as in the files. ``cell_id`` is ``output_prefix`` without ``_`` at its end (the old
        ``output_folder`` in front where that alone is not unique); columns that are no paths go along as text.

    Raises
    ------
    CellTableError
        The list cannot be read, lacks columns, values or files (all are listed at once), or does not tell images.
    ImageError
        A file is damaged, or a crop is not square, not of the recipe's side, or of another type than the one before.
    RecipeError
        The recipe's channels are not columns of the list.
    """
    table, root = _read_list(recipe.source_path)
    columns = _columns(table, recipe)
    _check_files(table, columns, root, recipe)
    cells = _cells(table, recipe)
    spec = recipe.replace(fields={"format": "separate"})
    paths = [
        {"field": name, **{f"path_{c.name}": p for c, p in zip(recipe.channels, row, strict=True)}}
        for name, row in zip(cells["cell_id"], table[columns].itertuples(index=False), strict=True)
    ]
    size = recipe.crop.size
    kept_type: list[np.dtype[Any]] = []

    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="crops") as readers:

        def read(rows: np.ndarray) -> np.ndarray:
            crops = list(readers.map(lambda i: read_field(paths[i], spec, root), rows.tolist()))
            wrong = [
                f"{paths[i]['field']} ({c.shape[1]}x{c.shape[2]} px)"
                for i, c in zip(rows, crops, strict=True)
                if c.shape[1:] != (size, size)
            ]
            if wrong:
                raise ImageError(
                    f"{recipe.name}: {len(wrong)} of {len(rows)} crops looked at are not {size}x{size} px: {shown(wrong)}. Set "
                    "[crop] size to the side of the files; cut crops of several sizes to one first, scaling would change their pixels."
                )
            kept_type.append(crops[0].dtype)
            other = [f"{paths[i]['field']} ({c.dtype})" for i, c in zip(rows, crops, strict=True) if c.dtype != kept_type[0]]
            if other:
                raise ImageError(f"{recipe.name}: crops of other types than {kept_type[0]}: {shown(other)}. Export all with one bit depth.")
            return np.stack(crops)

        info = {"source": {"kind": "subcell", "file": _file(recipe.source_path).name, "channels": columns}}
        return write_crops(recipe, out, cells, read, info, progress=progress)


def subcell_size(recipe: Recipe) -> tuple[int, int]:
    """Return how many cells and images the list of a recipe holds, before any filter; see `subcell_cells` for errors."""
    table, _ = _read_list(recipe.source_path)
    return len(table), int(_cells(table, recipe)["image"].nunique())


def init_recipe(path: str | os.PathLike[str]) -> str:
    """Return a recipe for a ``path_list.csv``, to be stored beside it and checked by a person.

    Raises
    ------
    CellTableError, ImageError, RecipeError
        See `subcell_cells`; also a list with fewer than two channels for every cell.
    """
    table, root = _read_list(Path(path))
    filled = {c: int((table[c] != "").sum()) for c in table if c.endswith("_image")}
    columns = [c for c, n in filled.items() if n == len(table)]
    partly = [f"{c} ({n:,})" for c, n in filled.items() if 0 < n < len(table)]
    notes = [f"{len(table):,} cells; channels of every cell: {', '.join(columns) or 'none'}."]
    if partly:
        notes.append(f"CHECK: not read, since not every cell has them: {', '.join(partly)}.")
    size = 0
    if columns:
        picked = table[columns[0]].iloc[np.unique(np.linspace(0, len(table) - 1, min(_LOOKED_AT, len(table))).astype(int))]
        sizes = Counter(read_pixels(root / p).shape[:2] for p in picked)
        size = max(sizes.most_common(1)[0][0])
        if len(sizes) > 1 or len(set(next(iter(sizes)))) > 1:
            found = ", ".join(f"{h}x{w} px ({n})" for (h, w), n in sizes.most_common(5))
            notes.append(f"CHECK: crops must be squares of one side, found {found} in {len(picked)} looked at; cut them to one first.")
    notes.append("SubCell itself was trained on crops of 640 px at 0.0800885 µm.")
    extra = _extra(table)
    known = image_columns(extra) or _by_prefix(table[PREFIX]) is not None
    names = [CHANNELS.get(c, c.removesuffix("_image")) for c in columns]
    grouped = PREFIX_RULE if known else ""
    file = _file(Path(path))
    more = {"grouped": grouped, "name": file.resolve().parent.name}  # every list is called path_list.csv
    return recipe_text(file, "subcell", names, size, extra, notes, file_channels=columns, **more)


def _file(path: Path) -> Path:
    return path / LIST if path.is_dir() else path


def _lines(handle: Iterator[str]) -> Iterator[str]:
    first = True
    for line in handle:
        head = first and PREFIX in line
        if head or (line.strip() and not line.startswith("#")):
            yield line.lstrip("#") if head else line
            first = False


def _read_list(path: Path) -> tuple[pd.DataFrame, Path]:
    """Return the list with one text column each, and the folder that its paths start from."""
    path = _file(path)
    if not path.is_file():
        raise CellTableError(f"{path} is not there. Correct 'path' in [source] of the recipe, or name the list with --data.")
    unreadable = refusing(path, CellTableError, "cannot be read as a comma-separated table in UTF-8", "Save it as CSV again.")
    with unreadable, open(path, encoding="utf-8-sig", newline="") as handle:
        rows = [[v.strip() for v in row] for row in csv.reader(_lines(handle), strict=True)]
    header = rows.pop(0) if rows and PREFIX in rows[0] else _BARE.get(len(rows[0]) if rows else 0)
    if header is None or len(set(header)) != len(header):
        raise CellTableError(
            f"{path} is no list of SubCell: its first row is {rows[0] if rows else header}. Expected the columns "
            f"{', '.join(CHANNELS)}, {PREFIX}."
        )
    if not rows:
        raise CellTableError(f"{path} lists no cell: every line is empty or begins with #.")
    uneven = [i + 1 for i, row in enumerate(rows) if len(row) != len(header)]
    if uneven:
        raise CellTableError(f"{path}: {len(uneven)} cells have more or fewer than the {len(header)} columns: numbers {shown(uneven)}.")
    table = pd.DataFrame(rows, columns=header, dtype=object)
    empty = (table.index[table[PREFIX] == ""] + 1).tolist()
    if empty:
        raise CellTableError(f"{path}: {len(empty)} cells have no {PREFIX}, which names them: numbers {shown(empty)}.")
    return table, path.resolve().parent


def _columns(table: pd.DataFrame, recipe: Recipe) -> list[str]:
    """Return the column of each of the recipe's channels."""
    names = [c.name for c in recipe.channels]
    said = list(recipe.source.channels) or [n if n in table else f"{n}_image" for n in names]
    found = [c for c in table if c.endswith("_image")]
    wrong = [c for c in said if c not in found]
    if wrong or len(said) != len(names) or len(set(said)) != len(said):
        raise RecipeError(
            f"{recipe.name}: the channels {', '.join(names)} are looked for in the columns {', '.join(said)}; the list has "
            f'{", ".join(found) or "none"}. Write one column for each channel as [source] channels, e.g. ["g_image", "b_image"].'
        )
    return said


def _check_files(table: pd.DataFrame, columns: list[str], root: Path, recipe: Recipe) -> None:
    lines = []
    for column in columns:
        paths = table[column]
        far = paths.str.contains("://", regex=False)
        empty = table[PREFIX][paths == ""].tolist()
        gone = [p for p in paths[(paths != "") & ~far] if not is_file(root / p)]
        lines += [f"{len(empty)} cells have no {column}: {shown(empty)}"] if empty else []
        lines += [f"{far.sum()} of {column} are addresses, to be downloaded first: {shown(paths[far].tolist())}"] if far.any() else []
        lines += [f"{len(gone)} files of {column} are not there: {shown(gone)}"] if gone else []
    if lines:
        raise CellTableError(
            f"{_file(recipe.source_path)}: of {len(table)} cells "
            + "; ".join(lines)
            + f". Relative paths start at {root}. Correct the paths, "
            "leave these cells out (# in front of the line), or use a recipe without that channel."
        )


def _extra(table: pd.DataFrame) -> list[str]:
    return [c for c in table if c not in (PREFIX, FOLDER) and not c.endswith("_image")]


def _cells(table: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    where = str(_file(recipe.source_path))
    cells = table[_extra(table)].copy()
    names = table[PREFIX].str.strip("/").str.rstrip("_")
    if not names.is_unique and FOLDER in table:
        names = table[FOLDER].str.rstrip("/") + "/" + names
    images = None if recipe.source.names or image_columns(list(cells)) else _by_prefix(table[PREFIX])
    cells["image"] = images if images is not None else images_of(cells, recipe, where)
    double = names[names.duplicated()].unique().tolist()
    if double:
        raise CellTableError(f"{where}: {len(double)} values of {PREFIX} occur more than once: {shown(double)}. Give each cell its own.")
    cells["cell_id"] = names
    return cells


def _by_prefix(prefixes: pd.Series) -> pd.Series | None:
    """Return the image that each prefix tells, or None where one of them tells none; see `PREFIX_RULE`."""
    names = prefixes.str.strip("/").str.rstrip("_")
    if names.str.contains("/").all():
        return names.str.rpartition("/")[0]
    if names.str.contains("/").any():
        return None
    images = names.map(lambda n: m["image"] if (m := _NUMBERED.fullmatch(n)) else "")
    return None if images.str.lower().isin(["", *_NO_NAMES]).any() else images
