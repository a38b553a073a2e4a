"""Fields of view in a folder whose file names say what they are: plate, well, protein, field, channel.

``[source] layout`` holds regular expressions of paths relative to the folder, with ``/`` between parts. Their named groups:

- ``plate``, and ``well`` or ``row`` with ``column`` (numbers; the well is made of them): the cells of one well are one image,
- ``protein`` or ``orf``, ``antibody``, ``cell_line``: the image, where the path tells no well,
- ``field``: the number of the field of view; ``channel``: which of ``[source] channels`` the file holds (format ``separate``),
- any other name: copied to each cell.

Whatever does not fit is listed with its count and left out; nothing is guessed at.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from pci_core.data.folder_layout import channel_words, join_key, natural, patterns, read_names, walk, with_well
from pci_core.errors import CellTableError
from pci_core.recipe import Recipe

logger = logging.getLogger(__name__)

_LISTED = 10  # names a message shows; dataset.json holds all fields and images


@dataclass
class Survey:
    """What lies in the folder, measured against what the recipe expects.

    Attributes
    ----------
    fields : list of dict
        One a whole field of view: its row of the field table.
    files : int
        Image files that belong to them.
    unmatched : list of str
        Paths that fit no pattern.
    other_channels : Counter
        What paths that fit say for a channel that the recipe does not have.
    incomplete : dict of str to list of str
        Fields that lack channels, and which.
    named : bool
        Whether the table of names is there.
    names_unused : list of str
        Its rows without a file.
    names_missing : list of str
        Images without a row in it.
    """

    fields: list[dict[str, str]] = field(default_factory=list)
    files: int = 0
    unmatched: list[str] = field(default_factory=list)
    other_channels: Counter[str] = field(default_factory=Counter)
    incomplete: dict[str, list[str]] = field(default_factory=dict)
    named: bool = False
    names_unused: list[str] = field(default_factory=list)
    names_missing: list[str] = field(default_factory=list)

    @property
    def images(self) -> list[str]:
        """Names of the images, in order."""
        return list(dict.fromkeys(f["image"] for f in self.fields))

    @property
    def without_protein(self) -> list[str]:
        """Names of the images of which no protein is known."""
        return list(dict.fromkeys(f["image"] for f in self.fields if not f["protein"]))

    def left_out(self) -> dict[str, Any]:
        """Return counts and lists for ``dataset.json``."""
        return {
            "files_not_matched": {
                "files": len(self.unmatched),
                "by_suffix": dict(_suffixes(self.unmatched)),
                "first": self.unmatched[:_LISTED],
            },
            "files_of_other_channels": dict(self.other_channels),
            "fields_lacking_channels": self.incomplete,
            "images_without_protein": self.without_protein,
            "names_rows_without_files": self.names_unused,
            "images_without_names_row": self.names_missing,
        }


def folder_fields(recipe: Recipe) -> tuple[pd.DataFrame, Path]:
    """Make the field table of a folder.

    Parameters
    ----------
    recipe : Recipe
        With ``[source] kind = "folder"``.

    Returns
    -------
    fields : DataFrame
        One row a field of view, all columns text: ``field``, ``image``, ``path`` or ``path_<channel>``, ``protein``, and what
        else names and table tell. ``attrs["left_out"]``: counts and lists of what was left out.
    root : Path
        Folder that the paths start from.

    Raises
    ------
    CellTableError
        The folder is not there, no file fits, a channel of a field occurs twice, or the table of names contradicts
        itself or the paths.
    RecipeError
        ``layout``, ``channels`` or ``fields_per_file`` do not fit the field format.
    """
    found = survey(recipe)
    if not found.fields:
        lines = "\n  ".join([*_expected(recipe), *_found(found, recipe)])
        raise CellTableError(
            f"no field of view in {recipe.source_path} is named as recipe '{recipe.name}' expects.\n  {lines}\n"
            "Rename the files, give another folder with --data, or change 'layout' in a copy of the recipe."
        )
    for what, n in (
        ("files match no pattern", len(found.unmatched)),
        ("fields lack a channel", len(found.incomplete)),
        ("images have no protein", len(found.without_protein)),
    ):
        if n:
            logger.info("%s: %d %s; see 'pci info %s' and dataset.json", recipe.name, n, what, recipe.name)
    table = pd.DataFrame(found.fields, dtype=object).fillna("")
    table.attrs["left_out"] = found.left_out()
    return table, recipe.source_path.resolve()


def describe_layout(recipe: Recipe) -> list[str]:
    """Say in words which files a folder recipe expects and, where the folder is there, what of it was found.

    Returns
    -------
    list of str
        Lines for ``pci info``.

    Raises
    ------
    RecipeError, CellTableError
        As `folder_fields`, except that a folder without a fitting file is described.
    """
    return [*_expected(recipe), *(_found(survey(recipe), recipe) if recipe.source_path.is_dir() else [])]


def survey(recipe: Recipe) -> Survey:
    """Look through the folder, without opening an image; see `folder_fields` for errors."""
    fitting, words = patterns(recipe), channel_words(recipe)
    root, names = recipe.source_path, recipe.source.names
    if not root.is_dir():
        raise CellTableError(
            f"folder {root} is not there. {recipe.name} reads files that you put there, see 'pci info {recipe.name}'; --data names another."
        )
    found = Survey()
    groups: dict[tuple[Any, ...], dict[str, str]] = defaultdict(dict)
    doubled: list[str] = []
    for path in walk(root, {names}):
        which, told = _fit(path, fitting)
        if which < 0:
            found.unmatched.append(path)
            continue
        word = told.pop("channel", "")
        column = words.get(word.casefold(), "") if words else "path"
        if not column:
            found.other_channels[word] += 1
            continue
        files = groups[(which, *told.items())]
        if column in files:
            doubled.append(f"{files[column]} and {path}")
        files[column] = path
    if doubled:
        raise CellTableError(
            f"{root}: {len(doubled)} pairs of files say that they are the same channel of the same field, e.g. "
            f"{'; '.join(doubled[:3])}. Take one of each away."
        )
    _collect(groups, recipe, found)
    if names and (root / names).is_file() and found.fields:
        _add_names(found, root / names)
    for row in found.fields:
        row["protein"] = row.get("protein", "") or row.get("orf", "")
    _check(found.fields, root)
    return found


def _fit(path: str, fitting: list[re.Pattern[str]]) -> tuple[int, dict[str, str]]:
    """Return the first pattern that a path fits, -1 for none, and what the path tells."""
    for i, pattern in enumerate(fitting):
        if match := pattern.fullmatch(path):
            return i, {k: v or "" for k, v in match.groupdict().items()}
    return -1, {}


def _collect(groups: dict[tuple[Any, ...], dict[str, str]], recipe: Recipe, found: Survey) -> None:
    """Turn the files of each field into rows of the field table, in natural order; what lacks a channel is listed."""
    wanted = [f"path_{c.name}" for c in recipe.channels] if recipe.fields.format == "separate" else ["path"]
    parts = recipe.source.fields_per_file
    for key, files in sorted(groups.items(), key=lambda item: (natural(*(v for _, v in item[0][1:])), item[0][0])):
        told = with_well(dict(key[1:]))
        number = told.pop("field", "")
        by = ("plate", "well") if told.get("well") else ("protein" if told.get("protein") else "orf", "antibody", "cell_line")
        image = "_".join(v for k in by if (v := told.get(k, "")))
        name = "_".join(v for v in (image, number) if v)
        if lacking := [c.removeprefix("path_") for c in wanted if c not in files]:
            found.incomplete[name] = lacking
            continue
        found.files += len(files)
        for part in range(parts):
            more = {"field": f"{name}_{part + 1}", "page": str(part * len(recipe.fields.order))} if parts > 1 else {"field": name}
            found.fields.append({**more, "image": image, **{c: files[c] for c in wanted}, **told})


def _add_names(found: Survey, path: Path) -> None:
    """Add what the table of names knows; what the paths themselves tell goes before it."""
    keys, rows = read_names(path, found.fields)
    used, missing = set(), {}
    for row in found.fields:
        key = join_key(row, keys)
        if key not in rows:
            missing[row["image"]] = True
            continue
        used.add(key)
        for column, value in rows[key].items():
            row[column] = row.get(column, "") or value
    found.named, found.names_missing = True, list(missing)
    found.names_unused = [" ".join(k) for k in rows if k not in used]


def _check(fields: list[dict[str, str]], root: Path) -> None:
    """Raise where two fields got one name, or an image two proteins."""
    double = [n for n, c in Counter(f["field"] for f in fields).items() if c > 1]
    if double:
        files = [next(v for k, v in f.items() if k.startswith("path")) for f in fields if f["field"] == double[0]]
        raise CellTableError(
            f"{root}: {len(double)} names of fields stand for more than one, e.g. {double[0]} ({', '.join(files[:3])}). "
            "Let 'layout' tell what differs between them: a plate, a well or the number of the field."
        )
    proteins: dict[str, set[str]] = defaultdict(set)
    for f in fields:
        proteins[f["image"]].add(f["protein"])
    if mixed := [f"{i} ({', '.join(sorted(p))})" for i, p in proteins.items() if len(p) > 1]:
        raise CellTableError(
            f"{root}: {len(mixed)} wells have files of more than one protein, e.g. {'; '.join(mixed[:3])}. Rename the files."
        )


def _suffixes(paths: list[str]) -> Counter[str]:
    return Counter(dict(Counter(PurePosixPath(p).suffix.lower() or "no suffix" for p in paths).most_common()))


def _few(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _expected(recipe: Recipe) -> list[str]:
    spec = recipe.source
    if words := channel_words(recipe):
        kind = "one file a channel: " + ", ".join(f"{w} = {c.removeprefix('path_')}" for w, c in words.items())
    else:
        fields = "one field" if spec.fields_per_file == 1 else f"{spec.fields_per_file} fields"
        kind = f"one file holds {fields} with all channels ({', '.join(recipe.fields.order)})"
    lines = [f"expected: {kind}; paths such as"]
    for pattern, text in zip(patterns(recipe), spec.examples or spec.layout, strict=True):
        match = pattern.fullmatch(text) if spec.examples else None
        told = [f"{k} {v}" for k, v in match.groupdict().items() if v] if match else list(pattern.groupindex)
        lines.append(f"  {text}   ({', '.join(told)})")
    if spec.names:
        lines.append(f"  {spec.names}   (optional: plate and well, or protein, with what is known of each: protein, orf, location …)")
    return lines


def _found(found: Survey, recipe: Recipe) -> list[str]:
    images = found.images
    lines = [f"found: {found.files:,} files of {len(found.fields):,} fields of view of {len(images):,} images"]
    if found.incomplete:
        listed = [f"{name} (no {', '.join(lacking)})" for name, lacking in found.incomplete.items()]
        lines.append(f"left out: {len(listed):,} fields that lack a channel: {_few(listed)}")
    if found.other_channels:
        lines.append(f"other channels: {', '.join(f'{w} ({n:,} files)' for w, n in found.other_channels.most_common())}")
    if found.unmatched:
        counts = ", ".join(f"{n:,} {s}" for s, n in _suffixes(found.unmatched).most_common())
        lines.append(f"not matched: {len(found.unmatched):,} files ({counts}): {_few(found.unmatched)}")
    if recipe.source.names:
        lines.append(f"{recipe.source.names}: " + ("joined" if found.named else "not there" if found.fields else "not used"))
    if found.names_missing:
        lines.append(f"  {len(found.names_missing):,} images without a row: {_few(found.names_missing)}")
    if found.names_unused:
        lines.append(f"  {len(found.names_unused):,} rows without a file: {_few(found.names_unused)}")
    if found.without_protein:
        lines.append(f"without a protein: {len(found.without_protein):,} images: {_few(found.without_protein)}")
    return lines
