"""Single-cell crops: squares around the centres of labelled cells, cut out of a field of view."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from skimage.transform import resize as skimage_resize

from pci_core.errors import DatasetError
from pci_core.imaging.read import as_dtype


class CellCrops(NamedTuple):
    """Crops of one field.

    Attributes
    ----------
    crops : ndarray
        (n, C, resize, resize), dtype of the field.
    centres : ndarray
        (n, 2) float64: y, x of the centre of mass, px of the field.
    areas : ndarray
        (n,) int64: px of the field.
    labels : ndarray
        (n,) int64: the cell's number in the label image.
    dropped : dict of str to int
        How many cells each filter left out: ``below_min_fraction``, ``above_max_fraction``, ``over_edge``.
    """

    crops: np.ndarray
    centres: np.ndarray
    areas: np.ndarray
    labels: np.ndarray
    dropped: dict[str, int]


def cell_table(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return number, centre of mass and area of each labelled cell.

    Parameters
    ----------
    labels : ndarray of int
        (H, W), 0 = background.

    Returns
    -------
    numbers : ndarray
        (n,) int64, rising.
    centres : ndarray
        (n, 2) float64, y and x in px.
    areas : ndarray
        (n,) int64, px.
    """
    ys, xs = np.nonzero(labels)
    numbers, inverse = np.unique(labels[ys, xs], return_inverse=True)
    areas = np.bincount(inverse, minlength=len(numbers))
    sums = [np.bincount(inverse, weights=v, minlength=len(numbers)) for v in (ys, xs)]
    centres = np.stack(sums, axis=1) / np.maximum(areas, 1)[:, None]
    return numbers.astype(np.int64), centres, areas.astype(np.int64)


def crop_cells(
    field: np.ndarray,
    labels: np.ndarray,
    size: int,
    resize: int,
    *,
    min_fraction: float = 0.0,
    max_fraction: float = 1.0,
) -> CellCrops:
    """Cut a square around the centre of mass of each cell; the filters come first, then the field's edge.

    Source: Methods, "Datasets, Preprocessing, and Training" (yeast: 64 px, area 5-95 % of the crop;
    human: 512 px at full size, rescaled to 64).

    Parameters
    ----------
    field : ndarray
        (C, H, W) uint8, uint16 or float32.
    labels : ndarray of int
        (H, W), 0 = background.
    size : int
        Side of the square, px. The rounded centre lies at index ``size // 2``. A square that reaches over
        the edge of the field is dropped, never padded.
    resize : int
        Side of the returned crops. A whole fraction of `size` is a local mean, anything else an
        anti-aliased linear interpolation; integers are rounded half to even.
    min_fraction, max_fraction : float
        Cells whose area is below or above this share of ``size**2`` are dropped.

    Returns
    -------
    CellCrops

    Raises
    ------
    DatasetError
        Field and labels differ in size.
    """
    if field.shape[1:] != labels.shape:
        raise DatasetError(f"field of {field.shape[1:]} px but labels of {labels.shape} px; segment the same field that is cropped.")
    numbers, centres, areas = cell_table(labels)
    share = areas / size**2
    corners = np.rint(centres).astype(np.int64) - size // 2
    small, large = share < min_fraction, share > max_fraction
    inside = ((corners >= 0) & (corners + size <= np.array(labels.shape))).all(axis=1)
    keep = ~small & ~large & inside
    dropped = {
        "below_min_fraction": int(small.sum()),
        "above_max_fraction": int(large.sum()),
        "over_edge": int((~small & ~large & ~inside).sum()),
    }
    if keep.any():
        windows = sliding_window_view(field, (size, size), axis=(1, 2))  # a view: only the chosen squares are copied
        cut = windows[:, corners[keep, 0], corners[keep, 1]].swapaxes(0, 1)
        crops = resize_crops(cut, resize)
    else:
        crops = np.empty((0, len(field), resize, resize), field.dtype)
    return CellCrops(crops, centres[keep], areas[keep], numbers[keep], dropped)


def resize_crops(crops: np.ndarray, side: int) -> np.ndarray:
    """Bring square crops (n, C, S, S) to (n, C, side, side), the same dtype; see `crop_cells`."""
    n, channels, size, _ = crops.shape
    if size == side:
        return np.ascontiguousarray(crops)
    if size % side == 0:
        factor = size // side
        return as_dtype(crops.reshape(n, channels, side, factor, side, factor).mean(axis=(3, 5), dtype=np.float64), crops.dtype)
    out = np.empty((n, channels, side, side), crops.dtype)
    for i, crop in enumerate(crops):
        scaled = skimage_resize(
            np.moveaxis(crop, 0, -1).astype(np.float64), (side, side), order=1, anti_aliasing=side < size, preserve_range=True
        )
        out[i] = as_dtype(np.moveaxis(scaled, -1, 0), crops.dtype)
    return out
