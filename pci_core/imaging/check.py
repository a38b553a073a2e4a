"""All images of a field table looked at by their headers before the work starts, so that what does not fit is listed at once."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from pci_core.cells import DTYPES
from pci_core.errors import ImageError, PCIError
from pci_core.imaging.inspect import ImageFacts, describe_image
from pci_core.imaging.labels import label_shape
from pci_core.imaging.layout import UNEQUAL
from pci_core.imaging.read import channel_names, check_scale, field_order
from pci_core.recipe import Recipe

logger = logging.getLogger(__name__)

MOST = 10_000  # files looked at; of more, as many evenly spaced fields
_SHOWN = 5
_T = TypeVar("_T")


def check_images(fields: pd.DataFrame, recipe: Recipe, root: str | os.PathLike[str]) -> list[str]:
    """Check the headers of all images and masks of a field table against the recipe and against each other.

    Parameters
    ----------
    fields : DataFrame
        One row a field, see `pci_core.data.table`.
    recipe : Recipe
    root : path-like
        Folder that relative paths start from.

    Returns
    -------
    list of str
        What is allowed but worth knowing: fields of different sizes, pixel sizes that the recipe does not know, that only
        some of the files were looked at (`MOST`).

    Raises
    ------
    ImageError
        Files without a readable header, with z planes or time points, another channel count than the recipe's, other channel
        names or pixel size; fields of different bit depth; channels or masks of another size than their field. All at once, with
        counts and examples.
    """
    columns = [f"path_{c.name}" for c in recipe.channels] if recipe.fields.format == "separate" else ["path"]
    with_labels = recipe.segmentation.method == "labels" and "labels" in fields
    per_row = len(columns) + with_labels
    rows = fields[["field", *columns, *(["labels"] if with_labels else [])]].to_dict("records")
    step = -(-len(rows) * per_row // MOST) if rows else 1
    seen = rows[::step]
    folder = Path(root)
    images = _in_threads(describe_image, {folder / p for r in seen for c in columns if (p := _text(r[c]))})
    masks = _in_threads(label_shape, {folder / p for r in seen if (p := _text(r["labels"]))} if with_labels else ())
    wrong = _Wrong(len(seen))
    for path, got in [*images.items(), *masks.items()]:
        if isinstance(got, PCIError):
            wrong.add("cannot be used", f"{got}", path.name)
    depths: Counter[str] = Counter()
    sizes: Counter[tuple[int, int]] = Counter()
    example: dict[Any, str] = {}
    for row in seen:
        facts = [images.get(folder / _text(row[c])) for c in columns]  # none for an empty cell: reading names its channel
        good = [f for f in facts if isinstance(f, ImageFacts)]
        for fact in good:
            _fits(fact, recipe, wrong)
        if len(good) < len(facts):
            continue
        size = _one(((f.height, f.width) for f in good), "channels of different sizes", row, wrong, "{0[0]}x{0[1]} px")
        depth = _one((_depth(f.dtype) for f in good), "channels of different bit depths", row, wrong, "{0}")
        if depth:
            depths[depth] += 1
            example.setdefault(depth, str(row["field"]))
        if size:
            sizes[size] += 1
            example.setdefault(size, str(row["field"]))
            mask = masks.get(folder / _text(row["labels"])) if with_labels else None
            if isinstance(mask, tuple) and not _same_size(mask, size, recipe.fields.downscale):
                what = f"{row['field']} ({size[0]}x{size[1]} px, mask {mask[0]}x{mask[1]})"
                wrong.add("have a mask of another size than their images; make it on the same image", "", what)
    if len(depths) > 1:
        listed = "; ".join(f"{n} {d} (e.g. {example[d]})" for d, n in depths.most_common())
        wrong.add(f"differ in bit depth: {listed}. Export all with one bit depth, or make a recipe and table of each", "", "")
    wrong.stop(recipe)
    return _notes(sizes, [f for f in images.values() if isinstance(f, ImageFacts)], recipe, len(seen), len(rows), example)


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value).strip()


def _in_threads(read: Callable[[Path], _T], paths: Iterable[Path]) -> dict[Path, _T | PCIError]:
    def careful(path: Path) -> _T | PCIError:
        try:
            return read(path)
        except PCIError as error:
            return error

    ordered = sorted(paths)
    with ThreadPoolExecutor(8) as pool:  # file systems answer several questions at once; parsing itself takes one core
        return dict(zip(ordered, pool.map(careful, ordered), strict=True))


def _fits(facts: ImageFacts, recipe: Recipe, wrong: _Wrong) -> None:
    how, name = recipe.fields.format, facts.path.name
    try:
        check_scale(facts.um_per_px, recipe, facts.path)
    except ImageError as error:
        wrong.add("have another pixel size than the recipe", str(error), name)
    if facts.z * facts.t > 1 and (facts.ome or facts.channels > 1 or facts.z > 1 < facts.t):
        wrong.add(f"have {facts.z} z planes and {facts.t} time points; project z and split time first", "", name)
        return
    planes = facts.channels * facts.z * facts.t
    if how == "named":
        found = [n.lower() for n in facts.names]
        missing = [n for n in channel_names(recipe) if found.count(n.strip().lower()) != 1]
        if missing:
            listed = ", ".join(f"'{n}'" for n in facts.names) or "none"
            wrong.add(
                f"lack channel {', '.join(repr(m) for m in missing)} or have it twice; their channels are {listed} "
                "(write the file's own names into [fields] file_channels)", "", name,
            )  # fmt: skip
    elif how == "composite":
        if facts.kind != "rgb":
            wrong.add(f"are no colour composites but have {planes} channels ({facts.dtype})", "", name)
    elif how == "stack":
        needed = len(field_order(recipe))
        if planes != needed and recipe.source.fields_per_file == 1:
            wrong.add(f"have {planes} channels, [fields] order names {needed}", "", name)
    elif planes not in (1, 3):
        wrong.add(f"have {planes} channels where one file a channel is expected", "", name)


def _one(values: Iterable[_T], what: str, row: dict[str, Any], wrong: _Wrong, form: str) -> _T | None:
    found = list(dict.fromkeys(values))
    if len(found) == 1:
        return found[0]
    wrong.add(f"have {what}", "", f"{row['field']} ({', '.join(form.format(v) for v in found)})")
    return None


def _depth(dtype: str) -> str:
    """Return the type that pixels are read as, see `usable_dtype`."""
    return dtype if dtype in DTYPES else "float32" if np.dtype(dtype).kind == "f" else "uint16"


def _same_size(mask: tuple[int, int], size: tuple[int, int], factor: int) -> bool:
    reduced = (size[0] // factor, size[1] // factor)
    return mask == reduced or (mask[0] // factor, mask[1] // factor) == reduced


def _notes(
    sizes: Counter[tuple[int, int]], facts: list[ImageFacts], recipe: Recipe, seen: int, n: int, example: dict[Any, str]
) -> list[str]:
    notes = []
    if seen < n:
        notes.append(f"the headers of {seen} of {n} fields were looked at, evenly spaced; the others are checked as they are read")
    if len(sizes) > 1:
        listed = "; ".join(f"{k} of {s[0]}x{s[1]} px (e.g. {example[s]})" for s, k in sizes.most_common(_SHOWN))
        notes.append(f"fields are of {len(sizes)} sizes: {listed}. That is allowed; make sure that all have the same magnification")
    told = sorted(f.um_per_px for f in facts if f.um_per_px)
    if told and not recipe.fields.um_per_px:
        if told[-1] - told[0] > UNEQUAL * told[-1]:
            notes.append(f"files give pixel sizes from {told[0]:.4g} to {told[-1]:.4g} µm: cells will be cropped at different scales")
        else:
            notes.append(f"files give a pixel size of {told[-1]:.4g} µm; write um_per_px = {told[-1]:.4g} into [fields] of the recipe")
    return notes


class _Wrong:
    """What does not fit, by kind, so that all is said at once."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.found: dict[str, list[tuple[str, str]]] = {}

    def add(self, kind: str, message: str, name: str) -> None:
        self.found.setdefault(kind, []).append((name, message))

    def stop(self, recipe: Recipe) -> None:
        if not self.found:
            return
        lines = []
        for kind, entries in self.found.items():
            names = list(dict.fromkeys(name for name, _ in entries if name))
            messages = [m for _, m in entries if m][:_SHOWN]
            if messages:
                lines.append(f"{len(names)} files {kind}:\n    " + "\n    ".join(messages))
                if len(names) > _SHOWN:
                    lines.append(f"    and {len(names) - _SHOWN} more")
            elif names:
                more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                lines.append(f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}{more}")
            else:
                lines.append(f"fields {kind}")
        raise ImageError(
            f"{recipe.name}: the images do not fit the recipe (format '{recipe.fields.format}') or each other; {self.n} fields were "
            "looked at:\n  " + "\n  ".join(lines) + "\nCorrect these files or the recipe, or leave the fields out of the field table."
        )
