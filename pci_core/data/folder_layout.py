"""The parts of a folder recipe: patterns of paths, words for channels, wells, and the table of names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pci_core.errors import CellTableError, RecipeError
from pci_core.reading import read_csv, refusing
from pci_core.recipe import Recipe

OWN = ("image", "path", "labels", "page", "cell_id", "y", "x", "area")  # columns that no file name and no table may set
_WELL = re.compile(r"([a-zA-Z]{1,2})0*(\d+)")


def patterns(recipe: Recipe) -> list[re.Pattern[str]]:
    """Compile ``[source] layout`` and check it against the rest of the recipe.

    Raises
    ------
    RecipeError
        A pattern is no regular expression, tells no well and no protein, or does not fit the field format; an example
        does not fit its pattern.
    """
    spec, where, separate = recipe.source, f"{recipe.name} [source]", recipe.fields.format == "separate"
    if not spec.layout:
        raise RecipeError(f"{where}: kind = 'folder' needs 'layout': regular expressions of the paths, with named groups.")
    if spec.fields_per_file < 1 or (spec.fields_per_file > 1 and recipe.fields.format != "stack"):
        raise RecipeError(f"{where}: fields_per_file is at least 1, more needs [fields] format = 'stack'; found {spec.fields_per_file}.")
    compiled = []
    for text in spec.layout:
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise RecipeError(f"{where}: layout '{text}' is no regular expression ({error}).") from error
        names = set(pattern.groupindex)
        if not ({"well", "protein", "orf"} & names or {"row", "column"} <= names):
            raise RecipeError(f"{where}: layout '{text}' tells neither a well (well, or row and column) nor a protein (protein, orf).")
        if separate != ("channel" in names):
            raise RecipeError(
                f"{where}: layout '{text}' {'needs' if separate else 'cannot have'} the group (?P<channel>…) "
                f"with [fields] format = '{recipe.fields.format}'."
            )
        if taken := sorted(names & set(OWN)):
            raise RecipeError(f"{where}: layout '{text}' uses the name '{taken[0]}', which has a meaning of its own. Rename the group.")
        compiled.append(pattern)
    fit = len(spec.examples) == len(compiled) and all(p.fullmatch(e) for p, e in zip(compiled, spec.examples, strict=True))
    if spec.examples and not fit:
        raise RecipeError(f"{where}: 'examples' must name one path for each pattern of 'layout', which the pattern matches.")
    return compiled


def channel_words(recipe: Recipe) -> dict[str, str]:
    """Return the column ``path_<channel>`` by what a path may say for it, in small letters; empty where a file holds all channels.

    Raises
    ------
    RecipeError
        ``[source] channels`` does not name each channel once.
    """
    if recipe.fields.format != "separate":
        return {}
    words = recipe.source.channels or tuple(c.name for c in recipe.channels)
    if len(words) != len(recipe.channels):
        raise RecipeError(f"{recipe.name} [source]: 'channels' must name each of the {len(recipe.channels)} channels, found {list(words)}.")
    pairs = [(w.strip().casefold(), f"path_{c.name}") for c, listed in zip(recipe.channels, words, strict=True) for w in listed.split("|")]
    if len({w for w, _ in pairs}) != len(pairs):
        raise RecipeError(f"{recipe.name} [source]: 'channels' uses a word twice: {list(words)}.")
    return dict(pairs)


def walk(root: Path, skip: Iterable[str] = ()) -> list[str]:
    """List the files under `root` as relative paths; linked folders are not entered, so that no loop is walked.

    Raises
    ------
    CellTableError
        A folder may not be read.
    """
    out, todo, skipped = [], [""], set(skip)
    while todo:
        prefix = todo.pop()
        try:
            with os.scandir(root / prefix) as entries:
                for entry in entries:
                    path = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(f"{path}/")
                    elif path not in skipped and entry.is_file():
                        out.append(path)
        except PermissionError as error:
            raise CellTableError(f"folder {root / prefix} may not be read. Change its permissions or leave it out.") from error
    return sorted(out)


def with_well(told: dict[str, str]) -> dict[str, str]:
    """Add the well where row and column tell it: row 007, column 020 is G20."""
    row, column = told.get("row", ""), told.get("column", "")
    if not told.get("well") and row and column:
        if row.isdigit() and 1 <= int(row) <= 52:
            row = chr(64 + int(row)) if int(row) <= 26 else f"A{chr(38 + int(row))}"
        told["well"] = f"{row}{int(column):02d}" if column.isdigit() else f"{row}{column}"
    return told


def natural(*texts: str) -> list[Any]:
    """Return a key that sorts 2 before 10."""
    return [[(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", t) if p] for t in texts]


def read_names(path: Path, fields: list[dict[str, str]]) -> tuple[list[str], dict[tuple[str, ...], dict[str, str]]]:
    """Read the table of what is known of each plate and well, or of each protein.

    Parameters
    ----------
    path : Path
        CSV, or TSV by its suffix, UTF-8.
    fields : list of dict
        Rows of the field table so far: what they tell decides what is joined by: ``plate`` and ``well``, else ``orf``,
        else ``protein``.

    Returns
    -------
    keys : list of str
        Columns to join by.
    rows : dict
        What each key (see `join_key`) adds.

    Raises
    ------
    CellTableError
        It cannot be read or joined, names a column that is ours, or contradicts itself.
    """
    with refusing(path, CellTableError, "cannot be read as a table in UTF-8", "Save it as CSV again."):
        table = read_csv(path, "\t" if path.suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
    table = table.rename(columns=lambda c: str(c).strip().casefold()).map(lambda v: str(v).strip())
    if taken := [c for c in table if c in OWN or c.startswith("path_") or c == "field"]:
        raise CellTableError(f"{path}: the columns {', '.join(taken)} have a meaning of their own here. Rename them.")
    if "well" not in table and {"row", "column"} <= set(table):
        table["well"] = [with_well(r).get("well", "") for r in table[["row", "column"]].to_dict("records")]
    told = {c: {f.get(c, "") for f in fields} - {""} for c in ("plate", "well", "orf", "protein")}
    if "well" in table and told["well"]:
        keys = ["plate", "well"] if "plate" in table and told["plate"] else ["well"]
        if keys == ["well"] and len(told["plate"]) > 1:
            raise CellTableError(f"{path} has no column 'plate', but there are {len(told['plate'])} plates with the same wells. Add it.")
    else:
        keys = [c for c in ("orf", "protein") if c in table and told[c]][:1]
    if not keys:
        known = [c for c, values in told.items() if values]
        raise CellTableError(f"{path} has no column to join by: the paths tell {', '.join(known)}, the table has {', '.join(table)}.")
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for record in table.to_dict("records"):
        added = {str(c): v for c, v in record.items() if c not in (*keys, "row", "column")}
        if rows.setdefault(join_key({str(c): v for c, v in record.items()}, keys), added) != added:
            raise CellTableError(f"{path} says different things of {', '.join(f'{k} {record[k]}' for k in keys)}. Leave one row of each.")
    return keys, rows


def join_key(row: dict[str, str], keys: list[str]) -> tuple[str, ...]:
    """Return what rows are joined by: small letters, A1 and A01 alike, 7 and 007 alike."""
    out = []
    for key in keys:
        value = row.get(key, "").strip().casefold()
        match = _WELL.fullmatch(value) if key == "well" else None
        out.append(f"{match[1]}{match[2]}" if match else (value.lstrip("0") or "0") if key == "plate" and value.isdigit() else value)
    return tuple(out)
