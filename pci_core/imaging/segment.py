"""Cells as label images: nuclei as the authors' code finds them, yeast, or what another tool found.

A label image is (H, W) int32, 0 = background, one number a cell. All lengths are px of the (reduced)
field that is given.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage as ndi
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.measure import label as connected
from skimage.segmentation import clear_border as drop_border
from skimage.segmentation import relabel_sequential, watershed

from pci_core.errors import ImageError, RecipeError, unknown_name
from pci_core.imaging.cellpose import segment_cellpose
from pci_core.imaging.labels import read_labels
from pci_core.recipe import SEGMENTERS, Recipe

__all__ = ["channel_index", "fill_small_holes", "read_labels", "segment_field", "segment_nuclei", "tidy"]


def segment_field(
    field: np.ndarray, recipe: Recipe, row: Mapping[str, Any] | None = None, root: str | os.PathLike[str] = "."
) -> np.ndarray:
    """Find the cells of one field as the recipe says.

    Parameters
    ----------
    field : ndarray
        (C, H, W), channels in the recipe's order, as `read_field` returns it.
    recipe : Recipe
    row, root : mapping and path-like
        The field's row of the field table and the folder of its paths; needed for method ``labels`` only.

    Returns
    -------
    ndarray
        (H, W) int32 labels.

    Raises
    ------
    RecipeError
        ``segmentation.channel`` is not a channel of the recipe.
    ImageError
        The label image of method ``labels`` is missing or does not fit.
    WeightsUnavailableError, UnknownNameError
        Of method ``cellpose``, see `segment_cellpose`.
    """
    how = recipe.segmentation
    if how.method == "labels":
        value = str((row or {}).get("labels", "") or "").strip()
        if not value:
            raise ImageError(
                f"field '{(row or {}).get('field', '?')}' has no label image. Fill column 'labels' or choose another segmentation method."
            )
        labels = read_labels(Path(root) / value, (field.shape[1], field.shape[2]), recipe.fields.downscale)
        return tidy(labels, how.min_area, how.clear_border, renumber=False)
    channel = field[channel_index(recipe)]
    if how.method == "nuclei":
        return segment_nuclei(channel, sigma=how.sigma, min_area=how.min_area, fill_holes=how.fill_holes, clear_border=how.clear_border)
    if how.method == "nuclei-split":
        return segment_nuclei(
            channel, sigma=how.sigma, min_area=how.min_area, fill_holes=how.fill_holes, clear_border=how.clear_border, split=True
        )
    if how.method == "cellpose":
        return tidy(segment_cellpose(field, recipe, channel_index(recipe)), how.min_area, how.clear_border)
    if how.method.startswith("yeast"):
        from pci_core.imaging.segment_yeast import segment_yeast  # here: it needs scipy.stats, half a second of every worker's start

        return tidy(segment_yeast(channel, how.method, sigma=how.sigma, min_area=how.min_area), how.min_area, how.clear_border)
    raise unknown_name("segmentation method", how.method, SEGMENTERS)


def channel_index(recipe: Recipe) -> int:
    """Return the index of the channel that is segmented."""
    names = [c.name for c in recipe.channels]
    if recipe.segmentation.channel not in names:
        raise RecipeError(f"{recipe.name}: {unknown_name('segmentation channel', recipe.segmentation.channel, names)}")
    return names.index(recipe.segmentation.channel)


def segment_nuclei(
    channel: np.ndarray, *, sigma: float, min_area: int, fill_holes: int, clear_border: bool = True, split: bool = False
) -> np.ndarray:
    """Find nuclei as the authors' public code does, but keep the last one, which that code loses.

    Otsu's threshold of the unsmoothed channel is applied to the smoothed one; then holes are filled,
    nuclei at the border and small objects dropped. Touching nuclei stay one object, as in the paper.
    Source: Methods, "Datasets, Preprocessing, and Training".

    Parameters
    ----------
    channel : ndarray
        (H, W), any real dtype.
    sigma : float
        Of the Gaussian, px.
    min_area : int
        Objects below this area are dropped, px.
    fill_holes : int
        Holes below this area are filled, px.
    clear_border : bool
        Drop objects that touch the edge of the field.
    split : bool
        Not in the paper, for dense fields, haze and bright debris (method ``nuclei-split``): Otsu on the
        logarithm without its brightest 5 %, pixels brighter than their surroundings only, and touching
        nuclei cut apart by a watershed on the distance to the background. `min_area` sets the scale: a
        tenth of a usual nucleus works.

    Returns
    -------
    ndarray
        (H, W) int32; all zero for a channel without contrast.
    """
    channel = np.asarray(channel, dtype=np.float32)
    if channel.min() == channel.max():
        return np.zeros(channel.shape, np.int32)
    if not split:
        smooth = ndi.gaussian_filter(channel, sigma, mode="nearest")
        mask = fill_small_holes(smooth > threshold_otsu(channel), fill_holes)
        return tidy(connected(mask, connectivity=2), min_area, clear_border)
    radius = math.sqrt(max(min_area, 1) / math.pi)
    mask = fill_small_holes(_robust_mask(channel, sigma, 4 * radius), fill_holes)
    distance = ndi.gaussian_filter(ndi.distance_transform_edt(mask), radius / 3)
    peaks = peak_local_max(distance, min_distance=max(1, round(radius)), labels=connected(mask, connectivity=2), exclude_border=False)
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return tidy(watershed(-distance, seeds, mask=mask), min_area, clear_border)


def _robust_mask(channel: np.ndarray, sigma: float, surroundings: float) -> np.ndarray:
    low, high = np.percentile(channel, (0.1, 99.9))
    log = np.log(np.maximum(channel - low, 0) + 0.02 * max(high - low, 1e-6))  # the offset keeps the dark noise small
    smooth = ndi.gaussian_filter(log, sigma, mode="nearest")
    clipped = np.minimum(smooth, np.percentile(smooth, 95))  # else debris, brighter than any nucleus, pulls the threshold up
    if clipped.min() == clipped.max():
        return np.zeros(channel.shape, bool)
    out: np.ndarray = (smooth > threshold_otsu(clipped)) & (smooth > ndi.gaussian_filter(log, surroundings, mode="nearest"))
    return out


def fill_small_holes(mask: np.ndarray, below: int) -> np.ndarray:
    """Fill background regions (4-connected) of fewer than `below` px in a boolean (H, W) mask."""
    if below <= 0:
        return mask
    holes, _ = ndi.label(~mask)
    sizes = np.bincount(holes.ravel())
    sizes[0] = below  # the mask itself
    out: np.ndarray = mask | (sizes < below)[holes]
    return out


def tidy(labels: np.ndarray, min_area: int, clear_border: bool, renumber: bool = True) -> np.ndarray:
    """Drop objects at the border and below `min_area` px; number the rest 1..n if `renumber`."""
    if clear_border:
        labels = drop_border(labels)
    sizes = np.bincount(labels.ravel()) if labels.max() < labels.size else None
    if sizes is None:  # another tool's huge numbers: no table that long
        numbers, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        labels = np.where(counts < min_area, 0, numbers)[inverse].reshape(labels.shape)
    else:
        labels = np.where(sizes < min_area, 0, np.arange(len(sizes)))[labels]
    return (relabel_sequential(labels)[0] if renumber else labels).astype(np.int32)
