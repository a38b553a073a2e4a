"""What the header of an image file says of its pixels: axes, type, channel names and pixel size, before any pixel is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from pci_core.errors import ImageError
from pci_core.unpacking import FREE, GrowsError, check_growth, folder_bytes

TIFF_SUFFIXES = (".tif", ".tiff", ".flex")  # .flex: of Opera microscopes, a TIFF of many pages
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
REPAIR = "Fetch or export the file again, or take this field out of the field table."
LARGEST = 4_000_000_000  # px of one image; a damaged or hostile header could ask for any amount of memory
# µm/px from which a TIFF resolution says nothing of the specimen: printers' (72 dpi = 353 µm) or the camera's own pixels (3 to 16 µm), as
# screening microscopes write it
NOT_SPECIMEN = 2.0
UNEQUAL = 0.01  # share by which two pixel sizes may differ and still count as one
# µm in one of each unit; names as in OME-XML (with both signs for micro), OME-Zarr and ImageJ, in lower case where case has no meaning
_UNITS = {
    "pm": 1e-6, "picometer": 1e-6, "å": 1e-4, "angstrom": 1e-4, "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0, "\\u00b5m": 1.0,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3, "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "m": 1e6, "meter": 1e6, "metre": 1e6, "in": 25400.0, "inch": 25400.0,
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """How the pixels of one image lie.

    Attributes
    ----------
    axes : str
        One letter for each axis, slowest first: T, Z, C, Y, X, S (samples of a colour image) and Q (planes of
        which the file does not say what they are).
    shape : tuple of int
    dtype : str
    names : tuple of str
        The channels as the file names them, one a channel, or none.
    um_per_px : float
        0 = not told.
    ome : bool
        OME-TIFF or OME-Zarr.
    label : bool
        The file calls itself a label image.
    pages : tuple of (Path, int)
        OME-TIFF: file and page of each plane, channels fastest, then z, then t.
    inner : str
        OME-Zarr: the array of the full size within the folder.
    stored : tuple of int
        OME-Zarr: where each of the axes stands in that array; empty = in this order.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: str
    names: tuple[str, ...] = ()
    um_per_px: float = 0.0
    ome: bool = False
    label: bool = False
    pages: tuple[tuple[Path, int], ...] = ()
    inner: str = ""
    stored: tuple[int, ...] = ()

    def size(self, axis: str) -> int:
        """Return the length of an axis, 1 where there is none."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1


def in_um(value: Any, unit: str) -> float:
    """Return a length in µm; 0.0 where the unit is none of length (``pixel``, ``reference frame``) or the value is no length."""
    try:
        length = float(value)
    except (TypeError, ValueError):
        return 0.0
    factor = _UNITS.get(unit.strip().lower(), 1e-4 if unit.strip() in ("A", "Å") else 0.0)
    return length * factor if math.isfinite(length) and length > 0 else 0.0


def square(y: float, x: float, path: Path) -> float:
    """Return the side of a pixel in µm from its height and width (0 = not told), or refuse one that is not square."""
    if y and x and abs(y - x) > UNEQUAL * max(y, x):
        raise ImageError(
            f"{path}: pixels are {y:g} µm high and {x:g} µm wide by its metadata. Resample it to square pixels or correct its metadata."
        )
    return x or y


def check_size(layout: Layout, path: Path) -> Layout:
    """Refuse an image without pixels, of an impossible size, or much larger than its file could hold."""
    if min(layout.shape, default=0) < 1:
        raise ImageError(f"{path} holds no pixels (shape {layout.shape}). {REPAIR}")
    n = math.prod(layout.shape)
    if n > LARGEST:
        raise ImageError(f"{path}: {layout.shape} is more than {LARGEST:,} values. Cut it into fields of view first. {REPAIR}")
    needed = n * np.dtype(layout.dtype).itemsize
    if needed > FREE:  # or the files need not be looked at
        files = {file for file, _ in layout.pages} or {path}
        try:
            check_growth(needed, sum(folder_bytes(f) if f.is_dir() else f.stat().st_size for f in files))
        except GrowsError as error:
            raise ImageError(f"{path} was not opened: {error}. {REPAIR}") from error
    return layout


def one_plane(layout: Layout, path: Path) -> Layout:
    """Refuse z planes and time points, but for ImageJ's stacks without channels: there planes of any meaning are called z or t."""
    z, t = layout.size("Z"), layout.size("T")
    if z * t > 1 and (layout.ome or "C" in layout.axes or z > 1 < t):
        raise ImageError(
            f"{path} has {z} z planes and {t} time points of {layout.size('C')} channels; one plane a channel is needed. "
            "Project z first (e.g. its maximum) and make a file of each time point, or leave the field out."
        )
    return layout


def plain_tiff_layout(tiff: tifffile.TiffFile, path: Path) -> Layout:
    """Read the layout of a TIFF without OME metadata: its first series, with ImageJ's names and pixel size where there are any."""
    series = tiff.series[0]
    if any(p is None for p in series.pages):  # a reader would put zeros there
        raise ImageError(f"{path} lacks {sum(p is None for p in series.pages)} of {len(series.pages)} pages. {REPAIR}")
    axes, shape = _axes(series.axes, tuple(int(n) for n in series.shape), tiff.pages.first.photometric == tifffile.PHOTOMETRIC.RGB)
    names: tuple[str, ...] = ()
    imagej = tiff.imagej_metadata or {}
    labels = imagej.get("Labels")
    n = math.prod(s for a, s in zip(axes, shape, strict=True) if a not in "YXS")
    if isinstance(labels, (list, tuple)) and len(labels) == n == dict(zip(axes, shape, strict=True)).get("C"):
        names = tuple(str(t).strip() for t in labels)
    return check_size(Layout(axes, shape, series.dtype.name, names, _resolution(tiff, imagej, path)), path)


def _axes(axes: str, shape: tuple[int, ...], colour: bool) -> tuple[str, tuple[int, ...]]:
    """Turn tifffile's axes into ours: unit axes go, pages of no known meaning become Q."""
    pairs = [(a, n) for a, n in zip(axes, shape, strict=True) if n != 1 or a in "YX"]
    known = [(a if a in "TZCYXS" else "Q", n) for a, n in pairs]
    letters = "".join(a for a, _ in known)
    if letters == "QYX" and known[2][1] <= 8 < known[0][1]:  # grey pages as thin as this are channels stored last
        letters = "YXQ"
    elif letters == "SYX" and not colour:
        letters = "QYX"
    elif letters == "YXS" and not colour:
        letters = "YXQ"
    return letters, tuple(n for _, n in known)


def _resolution(tiff: tifffile.TiffFile, imagej: dict[str, Any], path: Path) -> float:
    tags = tiff.pages.first.tags
    sides = []
    for name in ("YResolution", "XResolution"):
        value = tags.valueof(name)
        try:
            above, below = value if isinstance(value, tuple) else (value, 1)
            sides.append(below / above)
        except (TypeError, ValueError, ZeroDivisionError):
            sides.append(0.0)
    unit = str(imagej.get("unit", "")) if imagej else {2: "inch", 3: "cm"}.get(int(tags.valueof("ResolutionUnit", default=2) or 0), "")
    y, x = (in_um(side, unit) for side in sides)
    if unit in ("inch", "cm") and max(y, x) > NOT_SPECIMEN:
        return 0.0  # ImageJ takes these units over from the TIFF's own tags
    return square(y, x, path)
