"""Label images made by other tools: read from files, each a whole number a cell or refused."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from scipy import ndimage as ndi

from pci_core.errors import ImageError
from pci_core.imaging.ngff import is_zarr, label_folder
from pci_core.imaging.pixels import read_layout, read_pixels
from pci_core.reading import refusing

_ONE_CELL = 0.9  # share of a mask's pixels in one piece from which it may be a single cell


def read_labels(path: str | os.PathLike[str], shape: tuple[int, int], factor: int = 1) -> np.ndarray:
    """Read a label image made by another tool (Cellpose, StarDist, YeastSpotter ...): 0 background, one number a cell.

    Parameters
    ----------
    path : path-like
        PNG (8 or 16 bit), TIFF, plain ``.npy``, or an OME-Zarr label image (``x.zarr/labels/cells``, or ``x.zarr`` where
        it has only one). Floating-point files and colour files of equal channels pass where all values are whole.
    shape : (int, int)
        Height and width of the field after the reduction.
    factor : int
        The reduction. A label image of the unreduced field is sampled at the middle of each reduced pixel.

    Returns
    -------
    ndarray
        (H, W) int32; the numbers are kept.

    Raises
    ------
    ImageError
        Unreadable, no whole numbers, a mask whose cells bear no numbers of their own, or of another size than the field.
    """
    path = Path(path)
    labels = np.squeeze(_numpy(path) if path.suffix.lower() == ".npy" else read_pixels(label_folder(path) if is_zarr(path) else path))
    if labels.ndim == 3 and labels.shape[2] in (3, 4) and (labels[..., :3] == labels[..., :1]).all():
        labels = labels[..., 0]
    if labels.dtype.kind == "f" and labels.size and np.isfinite(labels).all() and (labels == np.rint(labels)).all():
        labels = labels.astype(np.int64)
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or (labels.size and (labels.min() < 0 or labels.max() > np.iinfo(np.int32).max)):
        raise ImageError(
            f"{path} is no label image: {labels.dtype} of shape {labels.shape}. "
            "Needed: one plane of whole numbers, 0 = background, one number a cell."
        )
    full = labels.shape[0] // factor, labels.shape[1] // factor
    if factor > 1 and full == tuple(shape):
        half = factor // 2
        labels = labels[half::factor, half::factor][: shape[0], : shape[1]]
    if labels.shape != tuple(shape):
        raise ImageError(
            f"{path} has {labels.shape[0]}x{labels.shape[1]} px, the field {shape[0]}x{shape[1]} px"
            f"{'' if factor == 1 else f' after reduction by {factor} ({math.prod(shape)} px)'}. Make the labels on the same image."
        )
    _check_numbered(labels, path)
    return labels.astype(np.int32)


def label_shape(path: Path) -> tuple[int, int]:
    """Return height and width of a label image from its header; errors as `read_labels`."""
    if path.suffix.lower() == ".npy":
        shape = np.squeeze(_numpy(path, header=True)).shape
        if len(shape) != 2:
            raise ImageError(f"{path} is no label image: shape {shape}. Needed: one plane of whole numbers.")
        return int(shape[0]), int(shape[1])
    layout = read_layout(label_folder(path) if is_zarr(path) else path)
    return layout.size("Y"), layout.size("X")


def _numpy(path: Path, header: bool = False) -> np.ndarray:
    if not path.is_file():
        raise ImageError(f"{path} is not there. Correct column 'labels' of the field table.")
    remedy = "Cellpose's _seg.npy is a pickle, which is not opened: save its masks as PNG or TIFF instead."
    with refusing(path, ImageError, "cannot be read as a plain array of labels", remedy):
        # mapped, so that a header that lies of the size is told by the size of the file
        mapped: np.ndarray = np.load(path, allow_pickle=False, mmap_mode="r")
        return mapped if header else np.array(mapped)


def _check_numbered(labels: np.ndarray, path: Path) -> None:
    """Refuse a mask of cells and background in which all cells have the same number: they would count as one cell."""
    top = labels.max(initial=0)
    inside = labels > 0
    if not top or (labels[inside] != top).any():
        return
    pieces, n = ndi.label(inside, structure=np.ones((3, 3)))
    if n > 1 and np.bincount(pieces.ravel())[1:].max() < _ONE_CELL * inside.sum():
        raise ImageError(
            f"{path} is a mask of {n} pieces that all bear the number {int(top)}; each cell needs its own. Label it first (e.g. "
            "skimage.measure.label), or export labels rather than a mask."
        )
