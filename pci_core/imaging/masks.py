"""Masks of the cell in the middle of each crop, found on the structural channels only.

Datasets hold crops and no masks, and some (the authors' toy sets) never had any. Classical feature sets
need to know which pixels are the cell, so its outline is found again in the crop. The protein channel is
never looked at: a mask that followed the protein would carry its pattern into every shape measurement.

What a structural channel shows is told by its name, see `channel_kind`:

- With a nuclear marker, the nucleus in the middle (or the only one in the crop) is found by Otsu's threshold, touching
  nuclei cut apart.
  The cell is what lies nearer to this nucleus than to another and is at least a quarter as bright, above the
  background, as what surrounds the nucleus in the first channel that shows the cell's body (microtubules, ER).
- Without one, the cell is the object in the middle of the channel that shows the body (cytosolic RFP), or of a
  nuclear-pore or brightfield channel. A crop is centred on its cell's centre of mass, mother and bud together, so
  of the pieces that touch, those are taken together that bring the centre of mass nearest to the middle.

Lengths are shares of the crop's side, as crops are cut to the size of cells: they were set on crops of 64 px.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage as ndi
from skimage.filters import threshold_otsu
from skimage.measure import label as connected
from skimage.morphology import disk, h_maxima
from skimage.segmentation import watershed

from pci_core.cells import Channel
from pci_core.errors import DatasetError
from pci_core.imaging.segment_yeast import segment_yeast

FALLBACK_RADIUS = 1 / 3  # of the crop's side: the median of the cells that are found, human and yeast
FALLBACK = "a disk in the middle, radius a third of the crop's side (nucleus: a sixth)"

_SIDE = 64  # px of the crops on which the lengths below were set
_RIM = 0.25  # a human cell ends where its body channel falls to this share of its level around the nucleus
_OBJECT = {"body": (6, 75, 0.36), "ring": (8, 25, 0.30)}  # radius of the middle (px), percentile there, share of it at the edge
_GAIN = 0.75  # px by which a further piece must bring the centre of mass nearer to the middle
_REACH = 4.0  # px that the cell may lie off the middle, unless its nucleus is alone
_DEBRIS = 0.2  # of the largest nucleus: what is smaller is no second cell

_RING = {"nup49", "nup", "nuclearpore", "pore", "envelope", "ring"}
_BRIGHTFIELD = {"brightfield", "bright", "bf", "dic", "phase", "transmitted"}
_NUCLEUS = {"nucleus", "nuclei", "nuclear", "dna", "dapi", "hoechst", "h2b", "blue"}


class CellMasks(NamedTuple):
    """Masks of a batch of crops.

    Attributes
    ----------
    cell : ndarray
        (N, H, W) bool; never empty.
    nucleus : ndarray or None
        (N, H, W) bool, within the cell; None where no channel shows nuclei.
    found : ndarray
        (N,) bool; False where the cell's outline was not to be seen and stands for `FALLBACK`, or, where a nucleus
        but no body was seen, for the nucleus grown to twice its diameter.
    """

    cell: np.ndarray
    nucleus: np.ndarray | None
    found: np.ndarray


def channel_kind(name: str) -> str:
    """Tell from a structural channel's name what it shows: ``nucleus``, ``ring``, ``brightfield`` or else ``body``.

    HPA's colour names are known (blue = nucleus, red = microtubules).
    """
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    if words & _RING:
        return "ring"
    if words & _BRIGHTFIELD:
        return "brightfield"
    return "nucleus" if words & _NUCLEUS else "body"


def cell_masks(crops: np.ndarray, channels: Sequence[Channel]) -> CellMasks:
    """Find the cell in the middle of each crop, and its nucleus where a channel shows nuclei.

    Parameters
    ----------
    crops : ndarray
        (N, C, H, W) uint8, uint16 or float32, raw.
    channels : sequence of Channel
        One for each of C. Only the structural ones are used.

    Returns
    -------
    CellMasks

    Raises
    ------
    DatasetError
        Not four dimensions, channels that do not fit, or no structural channel.
    """
    if crops.ndim != 4 or crops.shape[1] != len(channels):
        raise DatasetError(f"crops of shape {crops.shape} do not fit {len(channels)} channels; expected (cells, channels, height, width).")
    kinds = {i: channel_kind(c.name) for i, c in enumerate(channels) if c.role == "structural"}
    if not kinds:
        raise DatasetError("no structural channel, so there is nothing to find the cells on. Add one to the recipe's channels.")
    first = {kind: i for i, kind in reversed(kinds.items())}
    n, _, h, w = crops.shape
    cell, found = np.zeros((n, h, w), bool), np.zeros(n, bool)
    if "nucleus" in first:
        nucleus = np.zeros((n, h, w), bool)
        body = first.get("body")
        for i, crop in enumerate(crops):
            found[i] = _with_nucleus(crop[first["nucleus"]], None if body is None else crop[body], cell[i], nucleus[i])
        return CellMasks(cell, nucleus, found)
    kind = next(k for k in ("body", "ring", "brightfield") if k in first)
    for i, plane in enumerate(crops[:, first[kind]]):
        mask = _outlined(plane) if kind == "brightfield" else _bright(plane, *_OBJECT[kind])
        found[i] = mask is not None
        cell[i] = _middle((h, w), FALLBACK_RADIUS) if mask is None else mask
    return CellMasks(cell, None, found)


def _with_nucleus(nuclear: np.ndarray, body: np.ndarray | None, cell: np.ndarray, nucleus: np.ndarray) -> bool:
    """Fill the two masks of one crop; return whether the cell's outline was seen."""
    scale = min(nuclear.shape) / _SIDE
    nuclei = _nuclei(nuclear, scale)
    own = _central(nuclei, _REACH * scale) or _alone(nuclei)
    if not own:
        cell |= _middle(cell.shape, FALLBACK_RADIUS)
        nucleus |= _middle(cell.shape, FALLBACK_RADIUS / 2)
        return False
    nucleus |= nuclei == own
    away = ndi.distance_transform_edt(nuclei == 0)
    from_own = ndi.distance_transform_edt(~nucleus)
    light = None if body is None else ndi.gaussian_filter(body.astype(np.float32), 1.5 * scale)
    around = (from_own > 0) & (from_own <= 4 * scale) & (nuclei == 0)
    low, level = (0.0, 0.0) if light is None or not around.any() else (float(np.percentile(light, 1)), float(np.median(light[around])))
    seen = light is not None and level > low
    if light is not None and seen:
        inside = light > low + _RIM * (level - low)
        # a dark gap between two cells counts as a way of up to 10 px, so that the border runs along it
        elevation = away + 10 * scale * np.clip((level - light) / (level - low), 0, 1)
    else:
        inside, elevation = from_own <= np.sqrt(nucleus.sum() / np.pi), away
    grown = watershed(elevation, nuclei, mask=inside | (nuclei > 0)) == own
    grown = ndi.binary_opening(grown, iterations=max(1, round(scale))) | nucleus
    parts = connected(grown)
    cell |= ndi.binary_fill_holes(parts == parts[tuple(np.argwhere(nucleus)[0])])
    return seen


def _nuclei(channel: np.ndarray, scale: float) -> np.ndarray:
    smooth = ndi.gaussian_filter(channel.astype(np.float32), scale)
    root = np.sqrt(np.maximum(smooth - np.percentile(smooth, 1), 0))  # else a dim nucleus beside a bright one is lost
    if root.min() == root.max():
        return np.zeros(channel.shape, np.int32)
    mask = ndi.binary_fill_holes(ndi.binary_opening(root > threshold_otsu(root), iterations=max(1, round(scale))))
    return _cut(mask, 0.8 * scale, scale)


def _cut(mask: np.ndarray, height: float, sigma: float) -> np.ndarray:
    """Cut touching objects apart where the distance to the background dips by `height` px."""
    padded = np.pad(mask, 1, mode="edge")  # the crop's edge is no background
    distance = ndi.gaussian_filter(ndi.distance_transform_edt(padded)[1:-1, 1:-1], sigma)
    out: np.ndarray = watershed(-distance, connected(h_maxima(distance, height)), mask=mask)
    return out


def _bright(channel: np.ndarray, radius: float, percentile: float, share: float) -> np.ndarray | None:
    """Find the object in the middle that is brighter than `share` of its own level above the background."""
    scale = min(channel.shape) / _SIDE
    light = ndi.gaussian_filter(channel.astype(np.float32), scale)
    low = float(np.percentile(light, 1))
    level = float(np.percentile(light[_middle(channel.shape, radius / _SIDE)], percentile))
    if level <= low:
        return None
    mask = ndi.binary_fill_holes(light > low + share * (level - low))
    pieces = _cut(ndi.binary_opening(mask, iterations=max(1, round(2 * scale))), 0.4 * scale, scale)
    return _joined(pieces, scale)


def _outlined(channel: np.ndarray) -> np.ndarray | None:
    scale = min(channel.shape) / _SIDE
    return _joined(segment_yeast(channel, "yeast-brightfield", sigma=1.5 * scale, min_area=round(100 * scale**2)), scale)


def _joined(pieces: np.ndarray, scale: float) -> np.ndarray | None:
    """Join to the piece in the middle those that bring the centre of mass nearer to the middle: buds, or a mother."""
    own = _central(pieces, _REACH * scale)
    if not own:
        return None
    n = int(pieces.max()) + 1
    rows, columns = np.indices(pieces.shape)
    area = np.bincount(pieces.ravel(), minlength=n).astype(float)
    y, x = (
        np.bincount(pieces.ravel(), (v - (size - 1) / 2).ravel(), minlength=n)
        for v, size in ((rows, pieces.shape[0]), (columns, pieces.shape[1]))
    )

    def offset(parts: list[int]) -> float:
        return float(np.hypot(y[parts].sum(), x[parts].sum()) / area[parts].sum())

    touch = np.zeros((n, n), bool)
    for a, b in ((pieces[:-1], pieces[1:]), (pieces[:, :-1], pieces[:, 1:])):
        meet = (a != b) & (a > 0) & (b > 0)
        touch[a[meet], b[meet]] = touch[b[meet], a[meet]] = True
    taken = [own]
    while near := [j for j in np.flatnonzero(touch[taken].any(0)).tolist() if j not in taken]:
        best = min(near, key=lambda j: offset([*taken, j]))
        if offset(taken) - offset([*taken, best]) < _GAIN * scale:
            break
        taken.append(best)
    mask = np.isin(pieces, taken)
    reach = max(1, round(3 * scale))  # a vacuole at the edge is a dent in the light, not in the cell
    closed = ndi.binary_closing(np.pad(mask, reach, mode="edge"), disk(reach))[reach:-reach, reach:-reach]
    out: np.ndarray | None = ndi.binary_fill_holes(mask | (closed & (pieces == 0)))
    return out


def _central(labels: np.ndarray, reach: float) -> int:
    """Return the label in the middle, or the nearest within `reach` px, or 0."""
    ys, xs = np.nonzero(labels)
    if not len(ys):
        return 0
    away = np.hypot(ys - (labels.shape[0] - 1) / 2, xs - (labels.shape[1] - 1) / 2)
    nearest = int(away.argmin())
    return int(labels[ys[nearest], xs[nearest]]) if away[nearest] <= reach else 0


def _alone(labels: np.ndarray) -> int:
    """Return the only large object, for crops of cut-out cells that are not centred; 0 where there are others."""
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return int(sizes.argmax()) if len(sizes) > 1 and (sizes >= _DEBRIS * sizes.max()).sum() == 1 else 0


def _middle(shape: tuple[int, ...], radius: float) -> np.ndarray:
    """Return a disk in the middle; `radius` is a share of the shorter side."""
    rows, columns = np.indices(shape)
    out: np.ndarray = np.hypot(rows - (shape[0] - 1) / 2, columns - (shape[1] - 1) / 2) <= radius * min(shape)
    return out
