"""Crops that another tool made ready: what their readers share.

Which cells are of one image (the cells that may be paired), writing in blocks with constant memory, and the text of a
recipe for a person to check.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

import pci_core
from pci_core.cells import CellDataset, CellWriter
from pci_core.errors import CellTableError, DatasetError, RecipeError, unknown_name
from pci_core.imaging.crop import resize_crops
from pci_core.recipe import Recipe

ALL = "*"  # [source] names: all cells are of one image
_BYTES = 32 << 20  # raw crops held at once
_SHOWN = 20  # names in an error
_PROTEIN = re.compile(r"protein|gfp|yfp|venus|neon|target|^g_image$", re.IGNORECASE)
_MARKER = re.compile(
    r"nuc|dapi|hoechst|dna|draq|histone|h2b|tubul|^mt$|^er$|endoplasm|calnexin|actin|phalloidin|membran|wga|bright|^bf$|dic|phase|"
    r"cyto|cell.?mask|rfp|cherry|^[rby]_image$",
    re.IGNORECASE,
)


def shown(names: Sequence[Any]) -> str:
    """Return names for an error: the first twenty, and how many more there are."""
    return ", ".join(str(n) for n in names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")


def image_columns(columns: Sequence[str]) -> list[str]:
    """Return the columns that say which cells are of one image: ``image``, or ``plate`` and ``well``, or ``well``; else none.

    Capitals and a leading ``Metadata_`` do not matter.
    """
    plain = {c.lower().removeprefix("metadata_"): c for c in reversed(columns)}
    if "image" in plain:
        return [plain["image"]]
    return [plain[c] for c in ("plate", "well") if c in plain] if "well" in plain else []


def images_of(table: pd.DataFrame, recipe: Recipe, where: str) -> pd.Series:
    """Return the image of each cell, by the columns that ``[source] names`` lists (with commas), else by `image_columns`.

    ``names = "*"``: all cells are of one image.

    Raises
    ------
    CellTableError
        No such columns, or an empty value in one.
    """
    said = [name.strip() for name in recipe.source.names.split(",") if name.strip()]
    if said == [ALL]:
        return pd.Series("all", index=table.index)
    for name in said:
        if name not in table:
            raise CellTableError(f"{where}: [source] names of {recipe.name}: {unknown_name('column', name, table.columns)}")
    columns = said or image_columns([str(c) for c in table.columns])
    if not columns:
        raise CellTableError(
            f"{where}: no column 'image', and no 'well', says which cells may be paired (found: {shown(list(table.columns)) or 'none'}). "
            'Name one or more in the recipe, e.g. [source] names = "plate,well", or write names = "*" if one protein in one cell '
            "line is all that it holds."
        )
    texts = table[columns].fillna("").astype(str).apply(lambda c: c.str.strip())
    empty = table.index[(texts == "").any(axis=1)].tolist()
    if empty:
        raise CellTableError(
            f"{where}: {len(empty)} of {len(table)} cells have no {' and '.join(columns)}, e.g. rows {empty[:5]}. Fill it in."
        )
    return texts.agg("_".join, axis=1) if len(columns) > 1 else texts[columns[0]]


def write_crops(
    recipe: Recipe,
    out: str | os.PathLike[str],
    table: pd.DataFrame,
    read: Callable[[np.ndarray], np.ndarray],
    info: dict[str, Any],
    *,
    progress: bool = True,
) -> CellDataset:
    """Write crops image by image, in blocks of at most 32 MiB, scaled to ``crop.resize``.

    Parameters
    ----------
    recipe : Recipe
        Channels, crop, smallest number of cells of an image.
    out : path-like
        Folder of the dataset; an older one is replaced at the end.
    table : DataFrame
        One row a cell with ``cell_id`` and ``image``; its index counts from 0.
    read : callable
        Told rising rows of the table, returns their crops (n, C, size, size): uint8, uint16 or float32.
    info : dict
        For ``dataset.json``.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    CellDataset
        Images that were left out, having fewer than ``crop.min_cells`` cells, stand in ``info["left_out"]``.

    Raises
    ------
    DatasetError
        No image has enough cells.
    """
    counts = table["image"].value_counts(sort=False)
    few = counts[counts < recipe.crop.min_cells]
    if len(few) == len(counts):
        raise DatasetError(
            f"{recipe.name}: none of {len(counts)} images has the {recipe.crop.min_cells} cells that [crop] min_cells asks for; "
            f"the largest has {counts.max() if len(counts) else 0}. Look at [source] names, it says what an image is, or lower min_cells."
        )
    info = {
        "recipe": recipe.name,
        "simulated": False,
        "versions": {"pci_core": pci_core.__version__, "python": platform.python_version(), "numpy": np.__version__},
        **info,
        "left_out": {"images_below_min_cells": {str(k): int(n) for k, n in few.items()}, "cells": int(few.sum())},
    }
    um_per_px = recipe.fields.um_per_px * recipe.fields.downscale * recipe.crop.size / recipe.crop.resize or None
    step = max(1, _BYTES // (4 * len(recipe.channels) * recipe.crop.size**2))
    kept = table[~table["image"].isin(few.index)]
    with (
        CellWriter(out, recipe.channels, um_per_px, rule=recipe.crop.rule, **info) as writer,
        tqdm(total=len(kept), unit=" cells", desc="cells", disable=not progress) as bar,
    ):
        codes = pd.factorize(kept["image"])[0]  # images as they first occur, each with its cells in the file's order
        for rows in np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1]):
            for start in range(0, len(rows), step):
                part = kept.iloc[rows[start : start + step]]
                writer.add(resize_crops(read(part.index.to_numpy()), recipe.crop.resize), part.reset_index(drop=True))
                bar.update(len(part))
    return CellDataset(out)


def recipe_text(
    path: Path,
    kind: str,
    channels: Sequence[str],
    size: int,
    columns: Sequence[str],
    notes: Sequence[str],
    *,
    file_channels: Sequence[str] = (),
    grouped: str = "",
    name: str = "",
) -> str:
    """Return the text of a recipe for ready crops, with everything that was guessed marked CHECK.

    Parameters
    ----------
    path : Path
        The file; the recipe names it relative to its own folder, so the text belongs beside it.
    kind : str
        Of the source: ``"h5sc"`` or ``"subcell"``.
    channels : sequence of str
        Image channels, in the file's order.
    size : int
        Side of a crop, px.
    columns : sequence of str
        What is known of each cell.
    notes : sequence of str
        Lines of comment for the head.
    file_channels : sequence of str
        The file's own names of `channels`, where they differ.
    grouped : str
        How images are told without a column, in words; empty = by columns only.
    name : str
        Of the recipe; empty = the file's.

    Raises
    ------
    RecipeError
        Fewer than two channels.
    """
    if len(channels) < 2:
        raise RecipeError(
            f"{path} has the image channels {', '.join(channels) or '(none)'}; paired cell inpainting needs the protein and at least one "
            "structural marker. Take a file with both."
        )
    said = list(file_channels) or list(channels)
    protein = next((i for i, c in enumerate(said) if _PROTEIN.search(c)), None)
    if protein is None:
        protein = next((i for i, c in enumerate(said) if not _MARKER.search(c)), len(said) - 1)
    order = [protein, *(i for i in range(len(said)) if i != protein)]
    by = image_columns(columns)
    if by:
        source_names = f'names = ""  # CHECK: cells may be paired that share {" and ".join(by)}; name other columns here, with commas'
    elif grouped:
        source_names = f'names = ""  # CHECK: cells may be paired that share {grouped}; or name columns here, with commas ("*" = all cells)'
    else:
        found = ", ".join(columns) or "none"
        source_names = f'names = ""  # CHECK: FILL IN the columns that say which cells may be paired (found: {found}; "*" = all cells)'
    side = min(64, size // 4 * 4)
    lines = [
        f"# A draft by 'pci init' for {path.name}. Look at every line marked CHECK before 'pci cells'.",
        *(f"# {note}" for note in notes),
        f"name = {_toml(re.sub(r'[^A-Za-z0-9_-]+', '-', name or path.stem).strip('-') or kind)}  # CHECK: also that of the run's folder",
        f"title = {_toml('Cells of ' + path.name)}  # CHECK",
        f"description = {_toml(notes[0])}",
        'label = "location"  # CHECK: the column that benchmarks predict',
        'licence = ""  # CHECK: of the images',
        'credit = ""',
        "",
    ]
    for i in order:
        role = "protein" if i == protein else "structural"
        lines += ["[[channels]]", f"name = {_toml(channels[i])}", f'role = "{role}"  # CHECK', ""]
    lines += ["[source]", f'kind = "{kind}"', f"path = {_toml(path.name)}", source_names]
    if file_channels:
        lines += [f"channels = [{', '.join(_toml(said[i]) for i in order)}]  # the file's names, in the order above"]
    lines += [
        "",
        "[fields]",
        "um_per_px = 0.0  # CHECK: size of a pixel in µm, 0 = not known",
        "",
        "[crop]",
        f"size = {size}  # side of the file's crops, px",
        f"resize = {side}  # CHECK: side of the stored crops, px; the network sees cells at this scale",
        "min_cells = 2",
        "",
        "[preprocess]",
        'protein = "minmax"  # each channel of each crop to [0, 1]',
        'structural = "minmax"',
        "",
    ]
    return "\n".join(lines)


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
