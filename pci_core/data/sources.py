"""Where a recipe's cells come from: one door to every kind of source."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from pci_core.cells import CellDataset
from pci_core.errors import CellTableError, RecipeError, unknown_name
from pci_core.reading import refusing
from pci_core.recipe import NEED_PATH, Recipe
from pci_core.storage import content_hash, write_text

READY = ("authors", "duloc", "deeploc", "h5sc", "subcell")  # crops ready made: there are no fields of view
TABLES = ("table", "folder")  # fields of view of the user's, listed in a field table
CODE = {  # raise one when what such a source gives changes
    "simulate": 2, "table": 1, "authors": 2, "duloc": 1, "folder": 1, "deeploc": 1, "h5sc": 1, "subcell": 1,
}  # fmt: skip


def with_path(recipe: Recipe, path: str | os.PathLike[str]) -> Recipe:
    """Return the recipe with its source's files at `path`.

    Raises
    ------
    RecipeError
        The source has no files of the user's.
    """
    if recipe.source.kind not in (*NEED_PATH, "duloc"):
        raise RecipeError(f"{recipe.name}: its cells are simulated or downloaded; it reads no folder of yours, so leave the path out.")
    return recipe.replace(source={"path": str(Path(path).resolve())})


def located(recipe: Recipe, data: str | os.PathLike[str] | None, place: Path) -> Recipe:
    """Return the recipe with its files where they are.

    Parameters
    ----------
    recipe : Recipe
    data : path-like, optional
        Where the user says they are.
    place : Path
        What `remember` wrote for this run: used for embedded recipes whose own ``path`` is not there.
    """
    if data is not None:
        return with_path(recipe, data)
    if recipe.folder is None and recipe.source.kind in NEED_PATH and not recipe.source_path.exists() and place.is_file():
        remedy = "Name the folder with --data."
        with refusing(place, RecipeError, "does not tell where the data lie", remedy):
            path = Path(place.read_text(encoding="utf-8").strip()).resolve()
        return with_path(recipe, path)
    return recipe


def remember(recipe: Recipe, place: Path) -> None:
    """Write down where the files of a run lie, so that later commands and notebooks need not be told again."""
    if recipe.folder is None and recipe.source.kind in NEED_PATH:
        write_text(place, f"{recipe.source_path.resolve()}\n")


def field_table(recipe: Recipe) -> tuple[pd.DataFrame, Path]:
    """Return the fields of view of a source of `TABLES`, one row each, and the folder their paths start from.

    Raises
    ------
    CellTableError
        The table or folder is not there or not as the recipe says.
    """
    if recipe.source.kind == "folder":
        from pci_core.data.folder import folder_fields

        return folder_fields(recipe)
    from pci_core.data.table import read_field_table

    path = recipe.source_path / "fields.csv" if recipe.source_path.is_dir() else recipe.source_path
    if recipe.source.note and not path.is_file():
        raise CellTableError(
            f"{recipe.name}: {path} is not there. Expected, here or in the folder given with --data: {recipe.source.note.strip()}"
        )
    return read_field_table(path, recipe)


def ready_cells(recipe: Recipe, out: str | os.PathLike[str], progress: bool = True) -> CellDataset:
    """Make the CellDataset of a source of `READY` in the folder `out`; see the module of each kind for its errors."""
    kind = recipe.source.kind
    if kind == "authors":
        from pci_core.data.authors import toy_cells

        return toy_cells(recipe.source.subset, recipe, out, progress=progress)
    if kind == "duloc":
        from pci_core.data.duloc import duloc_cells

        return duloc_cells(recipe, out, progress=progress)
    if kind == "deeploc":
        from pci_core.data.deeploc import deeploc_cells

        return deeploc_cells(recipe, out, progress=progress)
    if kind == "h5sc":
        from pci_core.data.h5sc import h5sc_cells

        return h5sc_cells(recipe, out, progress=progress)
    if kind == "subcell":
        from pci_core.data.subcell import subcell_cells

        return subcell_cells(recipe, out, progress=progress)
    raise unknown_name("source of ready crops", kind, READY)


def files_seen(recipe: Recipe) -> list[list[Any]]:
    """Return name, size and time of the files that ready crops of the user's are read from; empty where there are none.

    Of SubCell's crops it is the list alone, since a look at a million small files would cost minutes at every command.
    """
    if recipe.source.kind not in READY or not recipe.source.path:
        return []
    path = recipe.source_path
    if recipe.source.kind == "duloc":
        return []  # as before: its ready tiles are checked by content when they are read
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path] if path.is_file() else []
    return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]


def ready_size(recipe: Recipe) -> tuple[int, int]:
    """Return how many cells and images a source of ready crops of the user's holds, before any filter."""
    if recipe.source.kind == "deeploc":
        from pci_core.data.deeploc import deeploc_size

        return deeploc_size(recipe)
    if recipe.source.kind == "h5sc":
        from pci_core.data.h5sc import h5sc_size

        return h5sc_size(recipe)
    from pci_core.data.subcell import subcell_size

    return subcell_size(recipe)


def expected_files(recipe: Recipe) -> list[str]:
    """Return lines that say which files a source of the user's expects, and what of it is there."""
    lines = [f"  files         {recipe.source_path}{'' if recipe.source_path.exists() else ' (NOT THERE)'}"]
    lines += [f"                {line}" for line in recipe.source.note.strip().splitlines()]
    if recipe.source.kind == "folder":
        from pci_core.data.folder import describe_layout

        lines += [f"                {line}" for line in describe_layout(recipe)]
    return lines


def inputs(recipe: Recipe) -> tuple[dict[str, Any], tuple[pd.DataFrame, Path] | None]:
    """Return what the cells of a recipe are made from as it is now, and its fields of view where it lists them (see `field_table`)."""
    out: dict[str, Any] = {
        "recipe": recipe.section_hash("channels", "source", "fields", "segmentation", "crop"),
        "code": CODE[recipe.source.kind],
    }
    fields = field_table(recipe) if recipe.source.kind in TABLES else None
    if fields is not None:
        out["fields"] = _table_hash(*fields)
    elif seen := files_seen(recipe):
        out["files"] = seen
    return out, fields


def _table_hash(table: pd.DataFrame, root: Path) -> str:
    files = []
    for column in (c for c in table if c == "path" or c == "labels" or c.startswith("path_")):
        for name in table[column]:
            if name:
                stat = (root / name).stat()
                files.append([name, stat.st_size, stat.st_mtime_ns])
    return content_hash([table.to_dict("list"), files])
