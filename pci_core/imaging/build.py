"""Fields of view to a CellDataset: read, segment and crop each field in parallel, write image by image."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from tqdm import tqdm

import pci_core
from pci_core import flags
from pci_core.cells import CellDataset, CellWriter
from pci_core.errors import CellTableError, DatasetError
from pci_core.imaging.cellpose import check_cellpose
from pci_core.imaging.check import check_images
from pci_core.imaging.crop import CellCrops, crop_cells
from pci_core.imaging.read import field_order, read_field
from pci_core.imaging.segment import channel_index, segment_field
from pci_core.parallel import in_order
from pci_core.recipe import Recipe

logger = logging.getLogger(__name__)

NUCLEUS_RADIUS = 10.0  # px within which a found nucleus takes the truth of a simulated one
YEAST_RADIUS = 0.75  # the same for yeast, in radii of the found cell: with its bud, its centre lies off the mother's
OWN_IMAGES = ("table", "folder")  # sources whose files nobody has looked at
_LISTED = 10  # names a log line shows; dataset.json holds all


@dataclass(frozen=True)
class FieldCells:
    """What one field gave: its crops and how many cells were found before the filters."""

    cells: CellCrops
    found: int
    flat: list[str]


def build_cells(
    fields: pd.DataFrame,
    root: str | os.PathLike[str],
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    truth: pd.DataFrame | None = None,
    jobs: int = -1,
    progress: bool = True,
) -> CellDataset:
    """Make a CellDataset from fields of view.

    Fields are read, segmented and cropped in parallel and written image by image, so that memory does
    not grow with their number. The result does not depend on `jobs`.
    Source: Methods, "Datasets, Preprocessing, and Training".

    Parameters
    ----------
    fields : DataFrame
        One row a field of view, see `pci_core.data.table`. Columns other than file names are copied to each cell.
    root : path-like
        Folder that relative paths start from.
    recipe : Recipe
        Format, segmentation, crop and filters.
    out : path-like
        Folder of the dataset; it appears, or is replaced, when all is written.
    truth : DataFrame, optional
        True cells of simulated fields: ``field``, ``y``, ``x`` (px of the unreduced field) and ``sim_…`` columns. Each
        found cell takes the nearest true one of its field, each true one goes to one cell at most, within 10 px of
        the centre (nuclei) or 0.75 of the cell's radius (yeast). ``sim_matched`` says which found one.
    jobs : int
        Worker processes, -1 = one for each core; within `pci_core.parallel.on_cluster` the cluster's workers. Cellpose runs in one
        process, this one: its model takes a gigabyte, and it uses the accelerator or all cores by itself.
    progress : bool
        Show fields and cells per second.

    Returns
    -------
    CellDataset
        Cells are named ``<field>_<number in the label image>``; ``y``, ``x`` and ``area`` are in px of the reduced
        field. ``info["left_out"]`` counts and lists what was left out and why.

    Raises
    ------
    ImageError
        Fields do not fit the recipe or each other, see `check_images` (a user's own images are looked at before the
        work starts), or one cannot be read, see `read_field`. Nothing is written.
    CellTableError, RecipeError
        The field table or the recipe lacks something.
    DatasetError
        No image keeps ``crop.min_cells`` cells.
    """
    groups = _by_image(fields, recipe)
    ordered = pd.concat([rows for _, rows in groups], ignore_index=True)
    left = _LeftOut(recipe)
    scale = recipe.fields.downscale * recipe.crop.size / recipe.crop.resize
    info = _provenance(recipe, len(ordered))
    if recipe.source.kind in OWN_IMAGES:
        info["notes"] = check_images(ordered, recipe, root)
        for note in info["notes"]:
            logger.warning("%s: %s", recipe.name, note)
    if recipe.segmentation.method == "cellpose":
        info["versions"]["cellpose"], jobs = check_cellpose(recipe), 1
    records = ordered.to_dict("records")
    tasks = ((r, recipe, os.path.abspath(root)) for r in records)  # a cluster's workers start elsewhere
    results = in_order(field_cells, tasks, len(records), jobs=jobs, local=recipe.segmentation.method == "cellpose")
    truths = _true_cells(truth, recipe)
    with (
        CellWriter(out, recipe.channels, recipe.fields.um_per_px * scale or None, rule=recipe.crop.rule, **info) as writer,
        closing(results),
        tqdm(total=len(records), unit="field", desc="cells", disable=not progress) as bar,
    ):
        for image, rows in groups:
            crops, tables = _gather_image(rows, results, left, truths, truth is not None, recipe, bar)
            n = sum(len(t) for t in tables)
            if n < recipe.crop.min_cells:
                left.image(image, n)
            else:
                for block, table in zip(crops, tables, strict=True):
                    if len(table):
                        writer.add(block, table)
                left.kept += n
            bar.set_postfix_str(f"{left.kept / max(bar.format_dict['elapsed'], 1e-9):.0f} cells/s, {left.kept} cells", refresh=False)
        if not left.kept:
            raise left.nothing(out, len(groups))
        writer.info["left_out"] = {**left.summary(), **fields.attrs.get("left_out", {})}  # of the field table, where it was made here
    left.kept = writer.n
    left.log(len(groups))
    dataset = CellDataset(out)
    logger.info("%s", flags.told(dataset.info["flagged"]))
    return dataset


def field_cells(row: dict[str, Any], recipe: Recipe, root: str) -> FieldCells:
    """Read, segment and crop one field; the unit of parallel work."""
    field = read_field(row, recipe, root)
    labels = segment_field(field, recipe, row, root)
    crop = recipe.crop
    cells = crop_cells(field, labels, crop.size, crop.resize, min_fraction=crop.min_fraction, max_fraction=crop.max_fraction)
    flat = [c.name for c, plane in zip(recipe.channels, field, strict=True) if plane.min() == plane.max()]
    return FieldCells(cells, len(cells.labels) + sum(cells.dropped.values()), flat)


def match_truth(centres: np.ndarray, true: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Pair found with true centres, nearest pairs first, each used once.

    Parameters
    ----------
    centres : ndarray
        (n, 2) found, px.
    true : ndarray
        (m, 2) true, px.
    radius : ndarray
        (n,) largest distance for each found cell, px.

    Returns
    -------
    ndarray
        (n,) int64: index of the true cell, -1 for none.
    """
    match = np.full(len(centres), -1, np.int64)
    if not len(centres) or not len(true):
        return match
    near = cKDTree(true).query_ball_point(centres, radius)
    pairs = [(i, j) for i, js in enumerate(near) for j in js]
    distance = [float(np.hypot(*(centres[i] - true[j]))) for i, j in pairs]
    taken: set[int] = set()
    for _, i, j in sorted((d, i, j) for d, (i, j) in zip(distance, pairs, strict=True)):
        if match[i] < 0 and j not in taken:
            match[i] = j
            taken.add(j)
    return match


def _by_image(fields: pd.DataFrame, recipe: Recipe) -> list[tuple[str, pd.DataFrame]]:
    missing = [c for c in ("field", "image") if c not in fields]
    if missing or fields.empty:
        raise CellTableError(
            f"{recipe.name}: the field table has {len(fields)} rows and lacks {missing or 'no column'}; it needs one row a field."
        )
    double = fields["field"][fields["field"].duplicated()].unique().tolist()
    if double:
        raise CellTableError(
            f"{recipe.name}: {len(double)} values of 'field' occur more than once, e.g. {double[:3]}. Give each field its own name."
        )
    if recipe.fields.format in ("composite", "stack"):
        field_order(recipe)  # raise before the work starts
    if recipe.segmentation.method != "labels":
        channel_index(recipe)
    return [(str(name), rows) for name, rows in fields.groupby("image", sort=False)]


def _provenance(recipe: Recipe, n_fields: int) -> dict[str, Any]:
    packages = ("numpy", "scipy", "scikit-image", "pillow", "tifffile", "joblib")
    return {
        "recipe": recipe.name,
        "recipe_sha256": recipe.placeless().section_hash("channels", "source", "fields", "segmentation", "crop"),
        "source": recipe.source.kind,
        "simulated": recipe.simulated,
        "fields": n_fields,
        "versions": {"pci_core": pci_core.__version__, "python": platform.python_version(), **{p: version(p) for p in packages}},
    }


def _gather_image(
    rows: pd.DataFrame,
    results: Iterator[FieldCells],
    left: _LeftOut,
    truths: dict[str, _TrueCells],
    with_truth: bool,
    recipe: Recipe,
    bar: Any,
) -> tuple[list[np.ndarray], list[pd.DataFrame]]:
    crops, tables = [], []
    for row in rows.to_dict("records"):
        got = next(results)
        left.field(row["field"], got)
        columns = _table(row, got.cells)
        tables.append(_join_truth(columns, truths.get(str(row["field"])), recipe) if with_truth else pd.DataFrame(columns))
        crops.append(got.cells.crops)
        bar.update()
    return crops, tables


# Tables are made at one go, not column by column: the process that waits for all workers makes them, while none helps it.


def _table(row: dict[str, Any], cells: CellCrops) -> dict[str, Any]:
    """Return the columns of a field's cells, those that are equal in all of them as one value."""
    meta = {k: v for k, v in row.items() if k not in ("labels", "path") and not k.startswith("path_")}
    names = np.array([f"{row['field']}_{n:03d}" for n in cells.labels], dtype=object)
    return {"cell_id": names, **meta, "y": cells.centres[:, 0], "x": cells.centres[:, 1], "area": cells.areas.astype(float)}


_TrueCells = tuple[np.ndarray, pd.DataFrame]  # centres (n, 2) in px of the reduced field, and what is known of each


def _true_cells(truth: pd.DataFrame | None, recipe: Recipe) -> dict[str, _TrueCells]:
    if truth is None:
        return {}
    missing = [c for c in ("field", "y", "x") if c not in truth]
    if missing:
        raise CellTableError(f"{recipe.name}: the table of true cells lacks {', '.join(missing)}.")
    keep = [c for c in truth.columns if str(c).startswith("sim_")]
    centres = (truth[["y", "x"]].to_numpy(float) + 0.5) / recipe.fields.downscale - 0.5
    fields = {str(name): rows for name, rows in truth.groupby("field", sort=False).indices.items()} or {"": np.zeros(0, np.int64)}
    return {name: (centres[rows], truth[keep].iloc[rows].reset_index(drop=True)) for name, rows in fields.items()}


def _join_truth(table: dict[str, Any], true: _TrueCells | None, recipe: Recipe) -> pd.DataFrame:
    if true is None:
        return pd.DataFrame({**table, "sim_matched": False})
    centres, known = true
    whole = recipe.segmentation.method.startswith("yeast")
    radius = YEAST_RADIUS * np.sqrt(table["area"] / np.pi) if whole else np.full(len(table["area"]), NUCLEUS_RADIUS)
    match = match_truth(np.stack([table["y"], table["x"]], 1), centres, radius)
    found = known.reindex(match)  # -1 is no row: missing values
    # what is known of the cell goes before what is known of its field
    cells = pd.DataFrame({k: v for k, v in table.items() if k not in found}, index=range(len(found)))
    return pd.concat([cells, found.set_axis(cells.index)], axis=1).assign(sim_matched=match >= 0)


class _LeftOut:
    """Counts and lists of what did not become a cell, for ``dataset.json`` and the log."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.found = self.kept = 0
        self.without_cells: list[str] = []
        self.without_crops: list[str] = []
        self.flat: dict[str, list[str]] = {}
        self.images: dict[str, int] = {}
        self.cells = {"below_min_fraction": 0, "above_max_fraction": 0, "over_edge": 0, "in_left_out_images": 0}

    def field(self, name: str, got: FieldCells) -> None:
        self.found += got.found
        for key, n in got.cells.dropped.items():
            self.cells[key] += n
        if got.flat:
            self.flat[name] = got.flat
        if not got.found:
            self.without_cells.append(name)
        elif not len(got.cells.labels):
            self.without_crops.append(name)

    def image(self, name: str, n: int) -> None:
        self.images[name] = n
        self.cells["in_left_out_images"] += n

    def summary(self) -> dict[str, Any]:
        return {
            "fields_without_cells": self.without_cells,
            "fields_without_crops": self.without_crops,
            "fields_with_a_constant_channel": self.flat,
            "images_below_min_cells": self.images,
            "min_cells": self.recipe.crop.min_cells,
            "cells_found": self.found,
            "cells": self.cells,
        }

    def nothing(self, out: str | os.PathLike[str], n_images: int) -> DatasetError:
        most = max(self.images.items(), key=lambda kv: kv[1])
        filters = ", ".join(f"{k} {v}" for k, v in self.cells.items() if k != "in_left_out_images")
        return DatasetError(
            f"{Path(out)}: none of {n_images} images has the {self.recipe.crop.min_cells} cells that [crop] min_cells asks for; "
            f"the largest, '{most[0]}', has {most[1]}. {self.found} cells were found in all; {len(self.without_cells)} fields have none. "
            f"Dropped by the filters: {filters}. Look at the segmentation, or lower min_cells or the filters."
        )

    def log(self, n_images: int) -> None:
        logger.info("%d cells kept of %d found; dropped: %s", self.kept, self.found, self.cells)
        for what, names in (
            ("images below min_cells", list(self.images)),
            ("fields without cells", self.without_cells),
            ("fields whose cells were all dropped", self.without_crops),
            ("fields with a constant channel", list(self.flat)),
        ):
            if names:
                more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
                logger.warning("%d %s: %s%s (all are listed in dataset.json)", len(names), what, ", ".join(names[:_LISTED]), more)
