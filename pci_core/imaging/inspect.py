"""What an image file is, told from its header: size, channels, bit depth, names, pixel size. For ``pci init`` and the check of a table."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage.measure import label as connected

from pci_core.imaging.layout import PICTURE_SUFFIXES, TIFF_SUFFIXES
from pci_core.imaging.pixels import read_layout, read_pixels

_MOST_LABELS = 5000  # cells of one field of view; above, it is rather an intensity image
_FLAT = 0.7  # share of neighbours within objects that are equal: labels of objects a few px wide have it, intensities never
_PROBE = 4  # only each 4th row and column is looked at when neighbours are compared


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image before its pixels are read.

    Attributes
    ----------
    path : Path
    height, width : int
        px.
    channels : int
        Planes: 1 for grey, 3 for RGB (alpha is not counted).
    dtype : str
        NumPy's name of the stored type.
    names : tuple of str
        Channel names that the file gives; () if none.
    um_per_px : float
        0.0 = not told.
    kind : str
        ``grey``, ``rgb``, ``stack`` (planes without names), ``named`` (planes with names) or ``labels`` (it calls
        itself a label image; others are found by `is_label_image`).
    z, t : int
        z planes and time points; more than 1 must be projected or split first.
    ome : bool
        OME-TIFF or OME-Zarr.
    """

    path: Path
    height: int
    width: int
    channels: int
    dtype: str
    names: tuple[str, ...] = ()
    um_per_px: float = 0.0
    kind: str = "grey"
    z: int = 1
    t: int = 1
    ome: bool = False


def describe_image(path: str | os.PathLike[str]) -> ImageFacts:
    """Describe an image from its header; no pixel is read.

    Parameters
    ----------
    path : path-like
        TIFF, OME-TIFF, PNG, JPEG, or the folder of an OME-Zarr.

    Raises
    ------
    ImageError
        Missing, empty, damaged, no image, or with metadata that contradict the file.
    """
    path = Path(path)
    layout = read_layout(path)
    samples = layout.size("S")
    colour = samples in (3, 4) and layout.size("C") == layout.size("Q") == 1
    channels = 3 if colour else layout.size("C") * layout.size("Q") * samples
    kind = "labels" if layout.label else "rgb" if colour else "grey" if channels == 1 else "named" if layout.names else "stack"
    return ImageFacts(
        path, layout.size("Y"), layout.size("X"), channels, layout.dtype, layout.names, layout.um_per_px, kind,
        layout.size("Z"), layout.size("T"), layout.ome,
    )  # fmt: skip


def is_image(path: str | os.PathLike[str]) -> bool:
    """Tell from the name whether a path is an image that can be read: ``.tif(f)``, ``.png``, ``.jp(e)g``, or a folder ``.zarr``."""
    path = Path(path)
    suffix = path.suffix.lower()
    return path.is_dir() if suffix == ".zarr" else suffix in (*TIFF_SUFFIXES, *PICTURE_SUFFIXES) and not path.is_dir()


def is_label_image(path: str | os.PathLike[str]) -> bool:
    """Guess from its pixels whether an image is one of labels: for guesses that a person checks; in doubt it says no.

    A label image has one plane of whole numbers, a background of 0 that is its most common value and at least
    a twentieth of it, at least two labels, each of them a flat area in one piece. A mask of one value is none.

    Raises
    ------
    ImageError
        The file cannot be read.
    """
    path = Path(path)
    facts = describe_image(path)
    if facts.kind == "labels":
        return True
    if facts.z > 1 or facts.t > 1 or facts.channels not in (1, 3) or path.suffix.lower() in (".jpg", ".jpeg"):
        return False
    pixels = np.squeeze(read_pixels(path))
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4) and (pixels[..., :3] == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim != 2 or min(pixels.shape) < 2 or (pixels.dtype.kind == "f" and not (pixels == np.rint(pixels)).all()):
        return False
    if pixels.dtype.kind not in "iuf" or pixels.min() != 0:
        return False
    values, counts = np.unique(pixels, return_counts=True)
    if not 3 <= len(values) <= _MOST_LABELS or counts.argmax() != 0 or counts[0] < pixels.size / 20:
        return False
    inside = np.concatenate([(r[:, 1:] == r[:, :-1])[r[:, 1:] > 0] for r in (pixels[::_PROBE], pixels[:, ::_PROBE].T)])
    if not inside.size or inside.mean() < _FLAT:
        return False
    return int(connected(pixels.astype(np.int64), connectivity=2).max()) <= 2 * len(values) + 10  # filters and cuts leave a few fragments
