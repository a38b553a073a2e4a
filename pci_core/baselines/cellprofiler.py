"""CellProfiler's measurements of each cell, through cp_measure: every channel, and the cell's shape.

Intensity, texture, granularity, radial distribution, Zernike moments, shape and correlation between channels,
within the mask of `pci_core.imaging.masks`. Names are CellProfiler's, with its usual object name: ``Cells_…``.

- Intensities are shares of the full range of the stored type (or of the recipe's ``full``), as CellProfiler reads
  images. Texture is of the preprocessed crop: it counts 256 grey levels of the full range, of which a dim 16-bit image
  fills a handful.
- Granularity at full resolution, 8 steps: CellProfiler's default reduces the image to a quarter first, which is made
  for whole fields and leaves 16 px of our crops.
- Location (``Location_…``, ``Center_…``, ``BoundingBoxMinimum/Maximum_…``) is left out: where a cell lies in its crop is
  no property of the cell. So is Costes' correlation, which needs the camera's own scale.
- A column that is not finite in more than 5 % of the cells is dropped; elsewhere the gaps take the column's
  median. Both are counted in ``facts``.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from pci_core.baselines import Measured
from pci_core.baselines.granularity import spectrum
from pci_core.baselines.percell import Columns, per_cell
from pci_core.cells import CellDataset, Channel
from pci_core.errors import DatasetError
from pci_core.imaging.masks import FALLBACK, cell_masks
from pci_core.preprocess import FULL_RANGE, preprocess
from pci_core.recipe import Preprocess

MAX_MISSING = 0.05  # share of cells
_SHEET = 16  # cells measured in one call: per-call costs are shared, and the sheet stays in the cache
_LOCATION = re.compile(r"Location_|Center_|BoundingBoxM")
_FOUND = "mask found"


def cellprofiler(dataset: CellDataset, spec: Preprocess, *, jobs: int = -1, quiet: bool = False) -> Measured:
    """Measure what CellProfiler measures.

    Parameters
    ----------
    dataset : CellDataset
        (N, C, H, W) crops.
    spec : Preprocess
        As for the networks; used for texture, and ``full`` for intensities.
    jobs : int
        Processes, -1 = all cores.
    quiet : bool
        No progress bar and no printed line.

    Returns
    -------
    Measured
        About 400 features for two channels and 560 for three; ``facts`` name the dropped columns and count filled values
        and cells whose mask is a stand-in.

    Raises
    ------
    DatasetError
        No column is finite in enough cells.
    """
    full = spec.full or FULL_RANGE.get(torch.from_numpy(np.empty(0, dataset.crops.dtype)).dtype, 1.0)
    measure = partial(measure_cellprofiler, channels=tuple(dataset.channels), n_protein=dataset.n_protein, spec=spec, full=full)
    columns = per_cell(measure, dataset, "cellprofiler", jobs=jobs, quiet=quiet)
    found = columns.pop(_FOUND)
    values, names, left = fill(np.stack(list(columns.values()), 1), list(columns), str(dataset.folder))
    facts = {
        "model": "cellprofiler",
        "library": f"cp_measure {version('cp_measure')}",
        "intensity": f"raw / {full:g}",
        "granularity": "full resolution, 8 steps",
        "mask": "structural channels only, see pci_core.imaging.masks",
        "mask_fallback": FALLBACK,
        "cells_without_own_mask": int((~found).sum()),
        **left,
    }
    return Measured(values, names, facts)


def fill(values: np.ndarray, names: list[str], where: str) -> tuple[np.ndarray, list[str], dict[str, Any]]:
    """Drop columns with too many gaps, give the other gaps the column's median.

    Parameters
    ----------
    values : ndarray
        (N, F); what is not finite as float32 is a gap.
    names : list of str
        Of the F columns.
    where : str
        For an error.

    Returns
    -------
    values : ndarray
        (N, kept) float32, finite.
    names : list of str
    facts : dict
        ``columns_dropped`` (names), ``values_filled`` and ``columns_filled`` (counts).

    Raises
    ------
    DatasetError
        No column is left.
    """
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    missing = ~np.isfinite(values)
    keep = missing.mean(0) <= MAX_MISSING
    if not keep.any():
        raise DatasetError(
            f"{where}: no measurement is finite in {1 - MAX_MISSING:.0%} of the cells. Look at the crops: are channels empty?"
        )
    dropped = [n for n, k in zip(names, keep, strict=True) if not k]
    values, missing = values[:, keep], missing[:, keep]
    median = np.nanmedian(np.where(missing, np.nan, values), axis=0)
    facts = {
        "columns_dropped": ", ".join(dropped) or "none",
        "columns_filled": int(missing.any(0).sum()),
        "values_filled": int(missing.sum()),
    }
    return np.where(missing, median, values).astype(np.float32), [n for n, k in zip(names, keep, strict=True) if k], facts


def measure_cellprofiler(crops: np.ndarray, channels: tuple[Channel, ...], n_protein: int, spec: Preprocess, full: float) -> Columns:
    """Measure a chunk of crops (n, C, H, W); columns may hold NaN, see `cellprofiler`."""
    masks = cell_masks(crops, channels)
    raw = crops.astype(np.float64) / full
    grey = np.clip(preprocess(torch.from_numpy(crops), spec, n_protein).numpy(), 0, 1)
    names = [c.name for c in channels]
    parts = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # constant channels and the like: their NaN are counted
        for start in range(0, len(crops), _SHEET):
            rows = slice(start, start + _SHEET)
            parts.append(_sheets(masks.cell[rows], raw[rows], grey[rows], names))
        columns = {**{k: np.concatenate([p[k] for p in parts]) for k in parts[0]}, **_singles(masks.cell, raw, names)}
    return {**{f"Cells_{k}": v for k, v in columns.items()}, _FOUND: masks.found}


def _sheets(cells: np.ndarray, raw: np.ndarray, grey: np.ndarray, names: list[str]) -> Columns:
    """Measure what depends on a cell's own pixels only: all cells side by side on one sheet, one call for all."""
    from cp_measure.core import measurecolocalization as colocalization
    from cp_measure.core.measureobjectintensitydistribution import get_radial_distribution
    from cp_measure.core.measureobjectsizeshape import get_feret, get_sizeshape
    from cp_measure.core.numba.measureobjectintensity import get_intensity
    from cp_measure.core.numba.measuretexture import get_texture

    labels = _sheet(cells * np.arange(1, len(cells) + 1)[:, None, None])
    pixels = [_sheet(raw[:, c]) for c in range(len(names))]
    out: Columns = {}
    for function in (get_sizeshape, get_feret):
        _add(out, function(labels, None), "AreaShape_{}")
    for c, name in enumerate(names):
        _add(out, get_intensity(labels, pixels[c]), f"{{}}_{name}")
        _add(out, get_texture(labels, _sheet(grey[:, c])), f"Texture_{{}}_{name}_{{}}", split=1)
        _add(out, get_radial_distribution(labels, pixels[c]), f"{{}}_{name}_{{}}", split=2)
    pairs: tuple[tuple[Callable[..., Any], bool], ...] = (
        (colocalization.get_correlation_pearson, False),  # its slope differs between the two orders
        (colocalization.get_correlation_manders_fold, True),
        (colocalization.get_correlation_rwc, True),
    )
    for function, both in pairs:
        for a, b in itertools.combinations(range(len(names)), 2):
            found = function(pixels[a], pixels[b], labels)
            for key, values in found.items():
                stem, order = (key[:-2], key[-1]) if both else (key, "1")
                first, second = (names[a], names[b]) if order == "1" else (names[b], names[a])
                _add(out, {stem: values}, f"{{}}_{first}_{second}")
            if not both:
                slope = function(pixels[b], pixels[a], labels)["Correlation_Slope"]
                _add(out, {"Correlation_Slope": slope}, f"{{}}_{names[b]}_{names[a]}")
    return out


def _singles(cells: np.ndarray, raw: np.ndarray, names: list[str]) -> Columns:
    """Measure cell by cell, in its bounding box, what would change a little with the cells beside it."""
    from cp_measure.core.measureobjectintensitydistribution import get_radial_zernikes
    from cp_measure.core.measureobjectsizeshape import get_zernike

    boxes = []
    for cell, planes in zip(cells, raw, strict=True):
        ys, xs = np.nonzero(cell)
        box = slice(max(ys.min() - 2, 0), ys.max() + 3), slice(max(xs.min() - 2, 0), xs.max() + 3)
        boxes.append((cell[box].astype(np.int64), [np.ascontiguousarray(plane[box]) for plane in planes]))
    grains = spectrum([label for label, _ in boxes for _ in names], [p for _, pixels in boxes for p in pixels]).reshape(
        len(boxes), len(names), -1
    )
    rows: list[dict[str, float]] = []
    for (label, pixels), grain in zip(boxes, grains, strict=True):
        one: Columns = {}
        _add(one, get_zernike(label, None), "AreaShape_{}")
        moments = get_radial_zernikes(_sheet(label * np.arange(1, len(names) + 1)[:, None, None]), _sheet(np.stack(pixels)))
        for c, name in enumerate(names):
            _add(one, {k: v[c : c + 1] for k, v in moments.items()}, f"{{}}_{name}_{{}}", split=2)
            _add(one, {f"Granularity_{i}": v[None] for i, v in enumerate(grain[c], 1)}, f"{{}}_{name}")
        rows.append({k: float(v[0]) for k, v in one.items()})
    return {k: np.array([r[k] for r in rows]) for k in rows[0]}


def _add(out: Columns, found: dict[str, Any], pattern: str, split: int = 0) -> None:
    """Add columns under CellProfiler's names: the channel stands after the first `split` words, or at the end."""
    for key, values in found.items():
        words = key.split("_")
        if not _LOCATION.match(key):
            name = pattern.format(key) if not split else pattern.format("_".join(words[:split]), "_".join(words[split:]))
            out[name] = np.asarray(values, np.float64)


def _sheet(images: np.ndarray) -> np.ndarray:
    """Lay (n, H, W) out in one row, two px of nothing apart, so that no cell touches another or the edge."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return np.ascontiguousarray(padded.transpose(1, 0, 2).reshape(padded.shape[1], -1))
