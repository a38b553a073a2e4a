"""The field table: a CSV with one row a field of view, the way in for a user's own images.

Columns: ``image`` (the cells that may be paired: same protein, cell line and antibody, or the same
well), ``path`` or one ``path_<channel>`` a channel, optionally ``field`` (a unique name), ``labels`` (a
label image made by another tool) and anything that is known of the field (protein, location, plate ...),
which is copied to each of its cells.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from pci_core.errors import CellTableError
from pci_core.imaging.check import check_images
from pci_core.imaging.ngff import is_zarr
from pci_core.reading import is_file, read_csv, refusing
from pci_core.recipe import Recipe

__all__ = ["check_field_table", "check_images", "field_name", "path_columns", "read_field_table"]

_SHOWN = 5

_CHANNEL_SUFFIX = re.compile(r"(?:[_\-](?:red|green|blue|yellow))+$", re.IGNORECASE)


def path_columns(recipe: Recipe) -> list[str]:
    """Return the columns that name files: ``path`` or one ``path_<channel>`` each, and ``labels`` where the recipe uses it."""
    columns = [f"path_{c.name}" for c in recipe.channels] if recipe.fields.format == "separate" else ["path"]
    return columns + (["labels"] if recipe.segmentation.method == "labels" else [])


def field_name(path: str, channel: str = "") -> str:
    """Return a field's name from its file: no folder, suffix or channel, as in HPA's ``<plate>_<well>_<n>_blue_red_green.jpg``.

    A field within a Zarr plate is named by its whole place: ``plate.zarr/A/1/0`` gives ``plate_A_1_0``.
    """
    parts = Path(path).parts or ("",)
    outer = next((i for i, part in enumerate(parts) if part.lower().endswith(".zarr")), len(parts) - 1)
    stem = "_".join([re.sub(r"\.ome$", "", Path(parts[outer]).stem, flags=re.IGNORECASE), *parts[outer + 1 :]])
    if channel:
        stem = re.sub(rf"[_\-]{re.escape(channel)}$", "", stem, flags=re.IGNORECASE)
    return _CHANNEL_SUFFIX.sub("", stem) or stem


def read_field_table(path: str | os.PathLike[str], recipe: Recipe) -> tuple[pd.DataFrame, Path]:
    """Read and check the field table of a recipe.

    Parameters
    ----------
    path : path-like
        CSV, UTF-8. Relative paths in it start at its own folder.
    recipe : Recipe
        Its field format and channels say which columns must be there.

    Returns
    -------
    fields : DataFrame
        One row a field, all columns text, ``field`` and ``image`` first, in the order of the file.
    root : Path
        Folder that relative paths start from.

    Raises
    ------
    CellTableError
        The table cannot be read, a column is missing or empty, a ``field`` is doubled, or files are not there.
    """
    path = Path(path)
    if not path.is_file():
        raise CellTableError(f"field table {path} is not there. Make it with 'pci init' or correct 'path' in [source] of the recipe.")
    with refusing(path, CellTableError, "cannot be read as a comma-separated table in UTF-8", "Save it as CSV again."):
        table = read_csv(path, dtype=str, keep_default_na=False)
    root = path.resolve().parent
    return check_field_table(table, recipe, root, str(path)), root


def check_field_table(table: pd.DataFrame, recipe: Recipe, root: str | os.PathLike[str], where: str) -> pd.DataFrame:
    """Check a field table that is already in memory; see `read_field_table`."""
    table = table.rename(columns=lambda c: str(c).strip()).map(lambda v: "" if pd.isna(v) else str(v).strip())
    files = path_columns(recipe)
    missing = [c for c in ["image", *files] if c not in table]
    if missing:
        raise CellTableError(
            f"{where}: missing columns {', '.join(missing)} (found: {', '.join(table.columns)}). Recipe '{recipe.name}' with format "
            f"'{recipe.fields.format}' needs image, {', '.join(files)}."
        )
    if table.empty:
        raise CellTableError(f"{where} has a header but no row. Add one row a field of view.")
    if "field" not in table:
        channel = files[0].removeprefix("path_") if files[0] != "path" else ""
        table.insert(0, "field", [field_name(p, channel) for p in table[files[0]]])
    for column in ("field", "image"):
        empty = _rows(table[column] == "")
        if empty:
            raise CellTableError(f"{where}: column '{column}' is empty in rows {empty}. Fill it for every field.")
    double = table["field"][table["field"].duplicated()].unique().tolist()
    if double:
        raise CellTableError(
            f"{where}: {len(double)} values of 'field' occur more than once, e.g. {double[:3]}. Give each field its own name."
        )
    _check_files(table, files, Path(root), where)
    first = ["field", "image"]
    return table[first + [c for c in table.columns if c not in first]].reset_index(drop=True)


def _check_files(table: pd.DataFrame, columns: list[str], root: Path, where: str) -> None:
    """Raise one error that lists what is empty or not there in all columns of files."""
    wrong = []
    remedies = []
    for column in columns:
        lacking = table["field"][table[column] == ""].tolist()
        if lacking:
            what = f"channel '{column.removeprefix('path_')}'" if column.startswith("path_") else f"'{column}'"
            wrong.append(f"{len(lacking)} of {len(table)} fields have no file for {what}, e.g. {', '.join(lacking[:_SHOWN])}.")
            remedies.append("Leave these fields out, or use a recipe without that channel.")
    for column in columns:
        named = [p for p in table[column] if p]
        gone = [p for p in named if not _is_there(root / p)]
        if gone:
            wrong.append(f"{len(gone)} of {len(named)} files of column '{column}' are not there, e.g. {', '.join(gone[:_SHOWN])}.")
            remedies.append(f"Correct the paths (relative ones start at {root}) or leave these fields out.")
    if wrong:
        between = " " if len(wrong) == 1 else "\n  "
        raise CellTableError(f"{where}: " + between.join([*wrong, *dict.fromkeys(remedies)]))


def _is_there(path: Path) -> bool:
    return is_file(path) or is_zarr(path)


def _rows(mask: pd.Series) -> list[int]:
    return [int(i) + 2 for i in mask.to_numpy().nonzero()[0][:5]]  # +2: as a spreadsheet counts, with the header
