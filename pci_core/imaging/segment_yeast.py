"""Yeast cells on a structural channel: cytosolic fluorescence, brightfield, or a nuclear-pore ring.

The paper used YeastSpotter (a Mask R-CNN). Ours is classical and needs no weights: find what is cell,
cut touching cells apart by a watershed on the distance to the background, and give each bud back to
its mother, so that one budding cell is one object. Labels of YeastSpotter or any other tool can be
used instead (method ``labels``).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage as ndi
from skimage.feature import hessian_matrix, hessian_matrix_eigvals, peak_local_max
from skimage.filters import apply_hysteresis_threshold, threshold_otsu
from skimage.measure import label as connected
from skimage.morphology import disk, h_maxima
from skimage.segmentation import expand_labels, watershed

from pci_core.errors import unknown_name
from pci_core.imaging.regions import depths, highest, middle

METHODS = ("yeast", "yeast-brightfield", "yeast-ring")

_CLEAR = 3.8  # foreground must stand this many standard deviations of the background above it; an empty field gives 3.4 at most
_OUTLINE = 2.0  # how far the threshold of outlines must lie above the median ridge: noise gives 1.2, cells 3 and more
_DEPTH = 0.9  # natural log units below the brightest of the surroundings at which a pixel is no longer the same cell
_ROUND = 1.2  # area of a vacuole over that of the largest disk in it, at most; a gap between three or four cells has 1.3 or more
_SEED_HEIGHT = 0.08  # of the usual radius: how deep a neck must be to cut


def segment_yeast(channel: np.ndarray, method: str = "yeast", *, sigma: float, min_area: int) -> np.ndarray:
    """Find whole yeast cells, touching ones apart, buds joined to their mothers.

    The usual cell radius is measured on the field itself, so that no cell size has to be given.

    Parameters
    ----------
    channel : ndarray
        (H, W), any real dtype; the structural channel.
    method : str
        ``yeast`` (cytosol bright), ``yeast-brightfield`` (cells outlined by a bright or dark line) or ``yeast-ring``
        (nuclear envelope bright, cytosol faint).
    sigma : float
        Smoothing against noise, px; for brightfield about half the width of the outline.
    min_area : int
        Smallest cell, px; also the scale below which structure is not looked at.

    Returns
    -------
    ndarray
        (H, W) int32 labels, cells at the border included; all zero where nothing stands out from the background.

    Raises
    ------
    UnknownNameError
        No such method.
    """
    if method not in METHODS:
        raise unknown_name("yeast segmentation method", method, METHODS)
    channel = np.asarray(channel, dtype=np.float32)
    if channel.min() == channel.max():
        return np.zeros(channel.shape, np.int32)
    smallest = math.sqrt(max(min_area, 1) / math.pi)
    find = {"yeast": _cytosol, "yeast-brightfield": _brightfield, "yeast-ring": _ring}[method]
    labels = find(channel, sigma, smallest)
    large = np.bincount(labels.ravel()) >= max(min_area, 1)
    large[0] = False
    out: np.ndarray = np.where(large, np.cumsum(large), 0)[labels].astype(np.int32)
    return out


def _cytosol(channel: np.ndarray, sigma: float, smallest: float) -> np.ndarray:
    log = ndi.gaussian_filter(_log(channel, 0.02), sigma)
    mask = _foreground(log, 99)
    if not mask.any():
        return np.zeros(channel.shape, np.int64)
    radius = _usual_radius(_fill_round(mask), smallest)
    # dim pixels beside a bright cell are its blur or the gap to the next cell
    top = ndi.maximum_filter(ndi.gaussian_filter(log, radius / 6), size=2 * int(0.9 * radius) + 1)
    mask = _open(_fill_round(mask & (log > top - _DEPTH)), radius)
    labels = _cut(mask, radius)
    light = ndi.gaussian_filter(channel, 1.0) - np.percentile(channel, 1)
    return _join_buds(labels, contact=0.35, ratio=0.75, light=light, valley=0.75)


def _ring(channel: np.ndarray, sigma: float, smallest: float) -> np.ndarray:
    # the cytosol is hardly brighter than the background, whose noise a bare logarithm would blow up
    log = ndi.gaussian_filter(_log(channel, 0.01, spread=4), sigma)
    mask = _foreground(log, 90)  # the envelopes are far brighter than the cytosol that shall be found
    if not mask.any():
        return np.zeros(channel.shape, np.int64)
    mask = _fill_round(mask)
    radius = _usual_radius(mask, smallest)
    mask = _open(mask, radius)
    labels = _cut(mask, radius)
    blob = ndi.gaussian_filter(np.minimum(log, np.percentile(log, 99.5)), radius / 4) - ndi.gaussian_filter(log, radius / 1.6)
    nuclei = peak_local_max(
        blob, min_distance=max(2, round(0.45 * radius)), threshold_abs=0.15, labels=mask.astype(int), exclude_border=False
    )
    with_nucleus = np.zeros(labels.max() + 1, bool)
    with_nucleus[labels[tuple(nuclei.T)]] = True
    return _join_buds(labels, contact=0.6, ratio=0.75, with_nucleus=with_nucleus)


def _brightfield(channel: np.ndarray, sigma: float, smallest: float) -> np.ndarray:
    flat = channel / np.maximum(ndi.gaussian_filter(channel, 8 * smallest), 1e-6) - 1
    # above or below focus the outline is bright or dark; the right reading gives the larger, closed cells
    # (the curvatures of the negative are those of the picture with their signs and places changed)
    upper, lower = hessian_matrix_eigvals(hessian_matrix(flat, sigma=sigma, use_gaussian_derivatives=False))
    found = [_outlined(np.maximum(ridge, 0), smallest) for ridge in (-lower, upper)]
    near = np.arange(-math.floor(sigma), math.floor(sigma) + 1)
    reach = np.hypot(near[:, None], near) <= sigma
    best = max(found, key=lambda labels: int(ndi.binary_dilation(labels > 0, reach).sum()))
    out: np.ndarray = expand_labels(best, sigma)  # from the inner edge of the outline to its middle
    return out


def _outlined(ridge: np.ndarray, smallest: float) -> np.ndarray:
    if not ridge.any():
        return np.zeros(ridge.shape, np.int64)
    positive = ridge[ridge > 0]
    strong = threshold_otsu(positive)
    if strong < _OUTLINE * np.median(positive):
        return np.zeros(ridge.shape, np.int64)
    wall = apply_hysteresis_threshold(ridge, strong / 2, strong)
    radius = _usual_radius(ndi.binary_fill_holes(wall) & ~wall, smallest)
    lines, _ = ndi.label(wall, np.ones((3, 3)))
    lengths = [max(s.stop - s.start for s in box) for box in ndi.find_objects(lines)]
    wall &= np.array([False, *(n >= 1.6 * radius for n in lengths)])[lines]  # shorter ones are texture within a cell
    inner = ndi.distance_transform_edt(~wall)
    labels = _cut(~wall, radius, inner)
    n = int(labels.max()) + 1
    area, deepest = np.bincount(labels.ravel(), minlength=n), highest(inner, labels, n)
    round_ = area / (np.pi * (deepest + 0.5) ** 2)
    walled = _walled_share(labels, wall)
    regions, _ = ndi.label(~wall)
    open_ = np.zeros(n, bool)
    open_[labels[(np.bincount(regions.ravel()) > 8 * np.pi * radius**2)[regions] & ~wall]] = True  # larger than any clump: background
    cell = (
        (walled >= 0.6)
        & (deepest < 2.2 * radius)
        & (deepest > 0.4 * smallest)
        & (round_ <= 1.7)
        & (~open_ | ((round_ < 1.35) & (walled > 0.85)))
    )
    cell[0] = False
    return _join_buds(np.where(cell[labels], labels, 0), contact=0.2, ratio=0.8)


def _log(channel: np.ndarray, floor: float, spread: float = 0.0) -> np.ndarray:
    low, quarter, high = np.percentile(channel, (1, 25, 99.5))
    if high <= low:
        low, high = float(channel.min()), float(channel.max())
    out: np.ndarray = np.log(np.maximum(channel - low, 0) + max(floor * (high - low), spread * (quarter - low)))
    return out


def _foreground(log: np.ndarray, clip: float) -> np.ndarray:
    clipped = np.minimum(log, np.percentile(log, clip))
    if clipped.min() == clipped.max():
        return np.zeros(log.shape, bool)
    mask = clipped > threshold_otsu(clipped)
    back = clipped[~mask]
    if clipped[mask].mean() - back.mean() < _CLEAR * back.std():
        return np.zeros(log.shape, bool)  # an empty field: the threshold cut its noise in two
    out: np.ndarray = mask
    return out


def _usual_radius(mask: np.ndarray, smallest: float) -> float:
    distance = ndi.gaussian_filter(ndi.distance_transform_edt(mask), 1)
    peaks = peak_local_max(distance, min_distance=max(1, int(smallest)), exclude_border=False, labels=mask.astype(int))
    depths = distance[tuple(peaks.T)]
    depths = depths[depths >= 0.7 * smallest]
    return float(np.median(depths)) if len(depths) else smallest


def _fill_round(mask: np.ndarray) -> np.ndarray:
    # vacuoles are round; the gaps between touching cells have hollow sides and stay open
    holes, n = ndi.label(~mask)
    if not n:
        return mask
    closed = np.ones(n + 1, bool)
    closed[np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1], [0]])] = False
    fill = closed & (np.bincount(holes.ravel(), minlength=n + 1) <= _ROUND * np.pi * (depths(holes, closed) + 0.5) ** 2)
    out: np.ndarray = mask | fill[holes]
    return out


def _open(mask: np.ndarray, radius: float) -> np.ndarray:
    out: np.ndarray = ndi.binary_opening(mask, disk(max(1, round(radius / 8))))
    return out


def _cut(mask: np.ndarray, radius: float, inner: np.ndarray | None = None) -> np.ndarray:
    distance = ndi.gaussian_filter(ndi.distance_transform_edt(mask) if inner is None else inner, radius / 10)
    step = 2 if radius >= 6 else 1  # every second pixel is enough for a smooth hill, in a quarter of the time
    seeds = np.zeros(mask.shape, np.int32)
    seeds[::step, ::step] = connected(h_maxima(distance[::step, ::step], _SEED_HEIGHT * radius))
    out: np.ndarray = watershed(-distance, seeds, mask=mask).astype(np.int64)
    return out


def _walled_share(labels: np.ndarray, wall: np.ndarray) -> np.ndarray:
    n = labels.max() + 1
    outline, walled = np.zeros(n), np.zeros(n)
    padded, padded_wall = np.pad(labels, 1), np.pad(wall, 1)
    h, w = labels.shape
    for dy, dx in ((0, 1), (1, 0), (1, 2), (2, 1)):
        here = slice(dy, dy + h), slice(dx, dx + w)
        edge = (padded[here] != labels) & (labels > 0)
        outline += np.bincount(labels[edge], minlength=n)
        walled += np.bincount(labels[edge & padded_wall[here]], minlength=n)
    return walled / np.maximum(outline, 1)


def _join_buds(
    labels: np.ndarray,
    *,
    contact: float,
    ratio: float,
    light: np.ndarray | None = None,
    valley: float = 0.0,
    with_nucleus: np.ndarray | None = None,
) -> np.ndarray:
    """Join a small cell to the larger one it meets along a wide neck; each cell takes part once.

    `contact` is the neck's length over the smaller cell's diameter, `ratio` the largest share of areas. With
    `light`, the neck must be at least `valley` times as bright as the dimmer cell: two cells that merely
    touch have a dark gap. A body without nucleus joins one with nucleus at half the contact.
    """
    n = int(labels.max()) + 1
    area = np.bincount(labels.ravel(), minlength=n).astype(float)
    keys, values = [], []
    for a, b in ((labels[:-1], labels[1:]), (labels[:, :-1], labels[:, 1:])):
        touch = (a != b) & (a > 0) & (b > 0)
        keys.append(np.minimum(a, b)[touch] * n + np.maximum(a, b)[touch])
        values.append(light[: a.shape[0], : a.shape[1]][touch] if light is not None else np.zeros(touch.sum(), np.float32))
    pairs, inverse, length = np.unique(np.concatenate(keys), return_inverse=True, return_counts=True)
    if not len(pairs):
        return labels
    first, second = np.divmod(pairs, n)
    smaller = np.where(area[first] < area[second], first, second)
    larger = first + second - smaller
    neck = length / (2 * np.sqrt(area[smaller] / np.pi))
    join = (neck >= contact) & (area[smaller] <= ratio * area[larger])
    if light is not None:
        brightest = np.full(len(pairs), -np.inf)
        np.maximum.at(brightest, inverse, np.concatenate(values))
        median = middle(light, labels, n)
        join &= brightest >= valley * np.minimum(median[first], median[second])
    if with_nucleus is not None:
        join |= ~with_nucleus[smaller] & with_nucleus[larger] & (neck >= contact / 2)
    target = np.arange(n)
    used: set[int] = set()
    for k in sorted(np.flatnonzero(join), key=lambda k: -neck[k]):
        bud, mother = int(smaller[k]), int(larger[k])
        if not {bud, mother} & used:
            used |= {bud, mother}
            target[bud] = mother
    out: np.ndarray = target[labels]
    return out
