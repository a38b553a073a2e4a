"""How large cells are on images whose scale nobody gave: for `pci init`, whose proposals a person checks.

Cells are searched at a row of scales. Where the scale is right, the objects are round, alike, and as large as the
scale says; at a wrong one they are splinters or clumps. All lengths are px of the planes that are given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage as ndi
from skimage.measure import regionprops_table

from pci_core.errors import ImageError
from pci_core.imaging.read import downscale
from pci_core.imaging.segment import segment_nuclei, tidy
from pci_core.imaging.segment_yeast import segment_yeast

WHOLE = ("yeast", "yeast-brightfield", "yeast-ring")  # methods that find cells; the others find nuclei
NUCLEUS_FACTOR = 3.0  # the paper's crop is 41 µm wide around nuclei of about 14 µm (HPA) ...
CELL_FACTOR = 1.6  # ... and 64 px around yeast of about 40 px with its bud
OF_FIELD = 0.5  # largest share of a field's side that a crop takes
WIDE = 200  # px: from twice this crop on, fields are reduced; HPA's 512 px become 128, as in the paper

_SMALLEST, _STEP, _LARGEST = 4.0, 1.5, 0.2  # radii tried: px, ratio, share of the field's shorter side
_FINE = 10  # px: radius to which a plane is reduced while the scale is searched
_WINDOW = 500  # px of the reduced plane that are searched
_SURE = 0.6  # a score from which finer scales need not be tried once it falls again
_COUNTED = 150  # objects of a field whose shape is looked at
_ROUND, _LONG = 0.9, 0.9  # solidity and eccentricity at which an object still looks like one cell
_ALIKE = 1.6  # ratio to the median diameter within which cells are alike
_TRUST = 0.45  # share of round and alike objects from which a field counts as one with cells
_RING = 0.45  # of a cell's light that lies just outside: above it, the outline was that of a nucleus


@dataclass(frozen=True)
class Settings:
    """Keys of a recipe's [segmentation] that go with a cell size; px."""

    sigma: float
    min_area: int
    fill_holes: int


@dataclass(frozen=True)
class CellSize:
    """What was found on a sample of fields.

    Attributes
    ----------
    method : str
        Segmentation method, or ``labels``.
    diameter, low, high : float
        Median and quartiles of the diameter of a disk of the cell's area, px; NaN where nothing was found.
    counts : tuple of int
        Cells of each field.
    trust : tuple of float
        Of each field, the share of the found area in round objects of like size; below `unsure` it may hold no cells.
    score : float
        0 to 1: that share over all fields with cells, less where the objects are not as large as the scale says.
    settings : Settings
    """

    method: str
    diameter: float
    low: float
    high: float
    counts: tuple[int, ...]
    trust: tuple[float, ...]
    score: float
    settings: Settings

    unsure = _TRUST

    @property
    def whole(self) -> bool:
        """Whether the method finds cells, not nuclei; of labels see `is_nuclear`."""
        return self.method in WHOLE


def settings_for(method: str, radius: float) -> Settings:
    """Return segmentation settings for cells (or nuclei) of a usual `radius`, px."""
    area = math.pi * radius**2
    share = 0.12 if method in WHOLE else 0.1
    return Settings(
        round(max(0.5, radius / 10), 1), max(4, round(share * area)), 0 if method in WHOLE or method == "labels" else round(0.3 * area)
    )


def segment_plane(plane: np.ndarray, method: str, settings: Settings, clear_border: bool = True) -> np.ndarray:
    """Segment one channel (H, W) as a recipe with these settings would: (H, W) int32 labels."""
    if method in WHOLE:
        return tidy(segment_yeast(plane, method, sigma=settings.sigma, min_area=settings.min_area), settings.min_area, clear_border)
    return segment_nuclei(
        plane,
        sigma=settings.sigma,
        min_area=settings.min_area,
        fill_holes=settings.fill_holes,
        clear_border=clear_border,
        split=method == "nuclei-split",
    )


def search(plane: np.ndarray, method: str) -> tuple[float, float]:
    """Find the scale of the cells of one plane.

    Parameters
    ----------
    plane : ndarray
        (H, W).
    method : str
        ``nuclei``, ``nuclei-split`` or one of `WHOLE`.

    Returns
    -------
    radius : float
        Of a usual cell, px; NaN where nothing was found at any scale.
    score : float
        0 to 1, see `CellSize`.
    """
    best = (math.nan, 0.0)
    steps = max(0, int(math.log(max(1.0, _LARGEST * min(plane.shape) / _SMALLEST)) / math.log(_STEP)))
    for radius in (_SMALLEST * _STEP**i for i in range(steps, -1, -1)):  # large ones are cheap, and often enough
        factor = max(1, round(radius / _FINE))
        small = downscale(plane[None], factor)[0]
        y, x = (max(0, (s - _WINDOW) // 2) for s in small.shape)
        window = small[y : y + _WINDOW, x : x + _WINDOW]
        diameters, share = _objects(segment_plane(window, method, settings_for(method, radius / factor)))
        score = 0.0
        if len(diameters):
            found = factor * float(np.median(diameters)) / 2
            score = share * math.exp(-((math.log(found / radius) / 0.5) ** 2)) * len(diameters) / (len(diameters) + 0.5)
            if score > best[1]:
                best = (found, score)
        if best[1] > _SURE and score < _SURE * best[1]:
            break
    return best


def estimate(planes: Sequence[np.ndarray], method: str, radius: float | None = None) -> CellSize:
    """Measure the cells of a sample of fields.

    Parameters
    ----------
    planes : sequence of ndarray
        The channel that is segmented, (H, W) each; sizes may differ.
    method : str
    radius : float, optional
        Of a usual cell, px, where it is known; else it is searched on up to two fields.

    Returns
    -------
    CellSize
        With a NaN diameter and score 0 where no field has cells.

    Raises
    ------
    ImageError
        No plane is given.
    """
    if not planes:
        raise ImageError("no field of view to measure cells on.")
    fit = 1.0
    if radius is None:
        tried = [search(p, method) for p in sorted(planes, key=contrast, reverse=True)[:2]]
        good = [t for t in tried if t[1] >= 0.5 * max(s for _, s in tried) and t[1] > 0]
        if not good:
            nothing = tuple(0 for _ in planes)
            return CellSize(method, math.nan, math.nan, math.nan, nothing, tuple(0.0 for _ in planes), 0.0, settings_for(method, 10))
        radius = float(np.median([r for r, _ in good]))
    measured = _measure(planes, method, radius)
    if not math.isnan(measured.diameter) and not 0.8 < measured.diameter / 2 / radius < 1.25:  # settle on what all fields say
        measured = _measure(planes, method, measured.diameter / 2)
        fit = math.exp(-((math.log(max(measured.diameter, 1e-3) / 2 / radius)) ** 2)) if not math.isnan(measured.diameter) else 0.0
    return replace(measured, score=measured.score * fit)


def _measure(planes: Sequence[np.ndarray], method: str, radius: float) -> CellSize:
    settings = settings_for(method, radius)
    return summarise([segment_plane(p, method, settings) for p in planes], method, settings)


def summarise(labels: Sequence[np.ndarray], method: str, settings: Settings | None = None) -> CellSize:
    """Measure label images, (H, W) int each, of any tool; `settings` None = those that fit the size found."""
    found = [_objects(x) for x in labels]
    with_cells = [(d, s) for d, s in found if len(d) and s >= _TRUST] or [(d, s) for d, s in found if len(d)]
    diameters = np.concatenate([d for d, _ in with_cells]) if with_cells else np.empty(0)
    if method == "labels":  # another tool's work, which is not judged by its shapes
        with_cells = [(d, s) for d, s in found if len(d)]
        found = [(d, 1.0 if len(d) else 0.0) for d, _ in found]
    counts, trust = tuple(len(d) for d, _ in found), tuple(s for _, s in found)
    if not len(diameters):
        return CellSize(method, math.nan, math.nan, math.nan, counts, trust, 0.0, settings or settings_for(method, 10))
    low, middle, high = (float(v) for v in np.percentile(diameters, (25, 50, 75)))
    score = float(np.average([s for _, s in with_cells], weights=[len(d) for d, _ in with_cells]))
    return CellSize(method, middle, low, high, counts, trust, score, settings or settings_for(method, middle / 2))


def _objects(labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the diameters of all objects and the share of their area in round ones of like size."""
    if not labels.any():
        return np.empty(0), 0.0
    area = np.bincount(labels.ravel()).astype(float)
    area[0] = 0
    numbers = np.flatnonzero(area)
    diameters = 2 * np.sqrt(area[numbers] / np.pi)
    chosen = np.zeros(len(area), bool)
    chosen[numbers[:: -(-len(numbers) // _COUNTED)]] = True
    table = regionprops_table(np.where(chosen[labels], labels, 0), properties=("area", "solidity", "eccentricity"))
    some = table["area"].astype(float)
    ratio = 2 * np.sqrt(some / np.pi) / np.median(diameters)
    good = (table["solidity"] > _ROUND) & (table["eccentricity"] < _LONG) & (ratio < _ALIKE) & (ratio > 1 / _ALIKE)
    return diameters, float(some[good].sum() / some.sum())


def contrast(plane: np.ndarray) -> float:
    """Return the range of a plane's light over its middle: low for a field without cells."""
    low, middle, high = np.percentile(plane[::4, ::4], (5, 50, 99))
    return float((high - low) / (abs(float(middle)) + 1e-6))


def fill(plane: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Tell how evenly a channel fills the labelled cells, and how clearly it shows them.

    Parameters
    ----------
    plane : ndarray
        (H, W).
    labels : ndarray of int
        (H, W), 0 = background.

    Returns
    -------
    evenness : float
        Median over the cells of their median over their 95th percentile, above the background: near 1 for a cytosolic
        marker, low for one that lights up a part of the cell. 0 without cells.
    clearness : float
        Median over the cells of their mean above the background, in standard deviations of the background's noise.
    """
    numbers = np.unique(labels[labels > 0])
    if not len(numbers):
        return 0.0, 0.0
    plane = plane.astype(np.float32)
    back = plane[labels == 0]
    ground = float(np.median(back)) if back.size else float(plane.min())
    noise = 1.4826 * float(np.median(np.abs(back - ground))) if back.size else 0.0
    even, clear = [], []
    for number, box in _boxes(labels, numbers[:: max(1, len(numbers) // 200)]):
        inside = plane[box][labels[box] == number] - ground
        high = float(np.percentile(inside, 95))
        even.append(float(np.median(inside)) / high if high > 0 else 0.0)
        clear.append(float(inside.mean()) / max(noise, 1e-3 * max(abs(ground), 1.0)))
    return float(np.clip(np.median(even), 0, 1)), float(np.median(clear))


def _boxes(labels: np.ndarray, numbers: np.ndarray) -> list[tuple[int, tuple[slice, ...]]]:
    found = ndi.find_objects(labels)
    return [(int(n), found[int(n) - 1]) for n in numbers]


def is_nuclear(field: np.ndarray, labels: np.ndarray, diameter: float) -> bool | None:
    """Tell whether outlines are those of nuclei: the cell's light goes on outside them.

    Parameters
    ----------
    field : ndarray
        (C, H, W) all channels.
    labels : ndarray of int
        (H, W).
    diameter : float
        Of a usual outline, px.

    Returns
    -------
    bool or None
        None where no channel shows enough to tell.
    """
    # a quarter of the diameter away the blur of the outline itself is over; half of it is still the same cell
    away = ndi.distance_transform_edt(labels == 0)
    ring, inside = (away > 0.2 * diameter) & (away <= 0.45 * diameter), labels > 0
    far = away > 1.5 * diameter
    shares = []
    for plane in field.astype(np.float32):
        if not ring.any() or not inside.any():
            continue
        ground = float(np.median(plane[far])) if far.mean() > 0.02 else float(np.percentile(plane, 1))
        noise = 1.4826 * float(np.median(np.abs(plane[far] - ground))) if far.mean() > 0.02 else 0.0
        within, around = float(np.median(plane[inside])) - ground, float(np.median(plane[ring])) - ground
        if max(within, around) > 5 * max(noise, 1e-3):
            shares.append(around / max(within, 1e-6))
    return max(shares) > _RING if shares else None


def propose_crop(diameter: float, whole: bool, field: int) -> tuple[int, int]:
    """Propose the side of a crop that holds an average cell, and by how much fields are reduced first.

    Source: Methods, "Datasets, Preprocessing, and Training": 64 px for yeast, 512 px for HPA, reduced to 64.

    Parameters
    ----------
    diameter : float
        Of a usual cell or nucleus, px of the unreduced field.
    whole : bool
        The diameter is that of the cell, not of its nucleus.
    field : int
        Shorter side of the fields, px: a crop takes at most half of it, or hardly a cell would lie whole in the field.

    Returns
    -------
    size : int
        px of the reduced field, a multiple of 4.
    downscale : int
    """
    side = min(diameter * (CELL_FACTOR if whole else NUCLEUS_FACTOR), OF_FIELD * field)
    factor = max(1, round(side / 128)) if side >= WIDE else 1
    return max(16, 4 * round(side / factor / 4)), factor
