"""CellProfiler's granularity of single cells at full resolution, many planes at a time.

A plane loses its background (an opening by a disk of 10 px at a quarter of the resolution). Then it is eroded by one pixel again
and again; each time all that the erosion did not wipe out is rebuilt, and the share of the signal that is gone is one value of
the spectrum. Source: cp_measure's ``get_granularity`` with ``subsample_size=1``, whose values these are bit for bit. It takes one
plane a call and sorts its pixels for every step, which was half of the time of all CellProfiler measurements; here planes stand
side by side, and light flows down, up, right and left in sweeps until nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage as ndi

STEPS = 8  # of one pixel; CellProfiler's default of 16 is for images four times as large
_REDUCED, _RADIUS = 4, 10  # of the background: every fourth pixel, and the disk's radius there
_OUTSIDE = -1  # below every rank: nothing flows through it


def spectrum(labels: Sequence[np.ndarray], planes: Sequence[np.ndarray], steps: int = STEPS) -> np.ndarray:
    """Measure the granularity of one cell in each plane.

    Parameters
    ----------
    labels : sequence of ndarray
        (h, w) each, of any size from 3 px on: above 0 where the cell is, which is somewhere.
    planes : sequence of ndarray
        (h, w) each, float64, finite, >= 0: the intensity there.
    steps : int
        Values of the spectrum.

    Returns
    -------
    ndarray
        (planes, steps) float64: percent of the cell's mean intensity that is lost by each step.
    """
    sides = np.max([p.shape for p in planes], axis=0)
    # planes last: a row of all of them is one block of memory. Only the order of a plane's pixels matters until the mean is taken, and
    # ranks are a quarter of the bytes
    kind = np.int16 if sides.prod() < 2**15 else np.int32
    nothing = np.iinfo(kind).max  # above every rank
    top = np.full((*sides, len(planes)), _OUTSIDE, kind)
    values = np.zeros((len(planes), sides.prod() + 1))
    light, own = np.zeros(top.shape), np.zeros(top.shape, bool)
    for k, (label, plane, bright) in enumerate(zip(labels, planes, _without_background(planes), strict=True)):
        h, w = plane.shape
        found, rank = np.unique(bright, return_inverse=True)
        top[:h, :w, k], values[k, : len(found)] = rank.reshape(h, w), found
        light[:h, :w, k], own[:h, :w, k] = plane, label > 0
    inside = top > _OUTSIDE
    plane_of = np.nonzero(own)[2]
    sizes = np.bincount(plane_of, minlength=len(planes)).astype(np.float64)

    def mean(pixels: np.ndarray) -> np.ndarray:  # pixel after pixel, as the source adds them up
        return np.asarray(np.bincount(plane_of, weights=pixels, minlength=len(planes)) / sizes)

    room = np.full((sides[0] + 2, sides[1] + 2, len(planes)), nothing, kind)  # what lies outside erodes nothing
    eroded = room[1:-1, 1:-1]
    eroded[inside] = top[inside]
    before = mean(light[own])
    whole = np.maximum(before, np.finfo(np.float64).eps)
    out = np.empty((len(planes), steps))
    for step in range(steps):
        shrunk = np.minimum(room[:-2, 1:-1], room[2:, 1:-1])
        for neighbour in (room[1:-1, :-2], room[1:-1, 2:], eroded):
            np.minimum(shrunk, neighbour, out=shrunk)
        eroded[...] = np.where(inside, shrunk, kind(nothing))
        after = mean(values[plane_of, rebuilt(np.where(inside, shrunk, kind(_OUTSIDE)), top)[own]])
        out[:, step] = (before - after) * 100 / whole
        before = after
    return out


def rebuilt(low: np.ndarray, top: np.ndarray) -> np.ndarray:
    """Reconstruct planes by dilation: let what is left of them grow back, sideways, up to what they were.

    Parameters
    ----------
    low, top : ndarray
        (H, W, planes), ``low <= top``; pixels meet along their sides.

    Returns
    -------
    ndarray
        (H, W, planes), values of `low` and `top` only: the same as `skimage.morphology.reconstruction` of each plane.
    """
    out = low.copy()
    at = np.arange(low.shape[2])  # the planes that still change
    part, limit = low.copy(), top
    while len(at):
        was = part.copy()
        for lines, limits in ((part, limit), (part.swapaxes(0, 1), limit.swapaxes(0, 1))):
            for ways in ((lines, limits), (lines[::-1], limits[::-1])):
                last, *others = zip(*ways, strict=True)
                for line, highest in others:
                    np.maximum(line, last[0], out=line)
                    np.minimum(line, highest, out=line)
                    last = line, highest
        changed = (part != was).any((0, 1))
        if 2 * changed.sum() <= len(at):  # to take planes out costs more than a sweep over a few that are done
            out[:, :, at] = part
            at, part, limit = at[changed], part.compress(changed, 2), limit.compress(changed, 2)
    return out


def _without_background(planes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return each plane, >= 0, without what is wider than the disk."""
    small = [p[::_REDUCED, ::_REDUCED] for p in planes]
    shapes = [s.shape for s in small]
    out = list(planes)
    for shape in set(shapes):
        at = [k for k, s in enumerate(shapes) if s == shape]
        opened = -_lowest(-_lowest(np.stack([small[k] for k in at])))
        for k, wide in zip(at, opened, strict=True):
            # the source counts with sides that are no whole numbers
            rows, columns = (np.arange(n, dtype=np.float64) * ((n / _REDUCED - 1) / (n - 1)) for n in planes[k].shape)
            background = ndi.map_coordinates(wide, np.meshgrid(rows, columns, indexing="ij"), order=1)
            out[k] = np.maximum(planes[k] - background, 0)
    return out


def _lowest(stack: np.ndarray) -> np.ndarray:
    """Return the lowest value within the disk around each pixel of (n, h, w), which goes on beyond its edge as in a mirror."""
    _, h, w = stack.shape
    r = _RADIUS
    padded = np.pad(stack, ((0, 0), (r, r), (r, r)), mode="symmetric")
    out = np.full(stack.shape, np.inf)
    line = padded[:, :, r : r + w].copy()  # the lowest of 2 x + 1 pixels of a row
    for x in range(r + 1):
        for beside in (padded[:, :, r - x : r - x + w], padded[:, :, r + x : r + x + w]):
            np.minimum(line, beside, out=line)
        for y in range(r + 1):
            if y * y + x * x <= r * r < y * y + (x + 1) ** 2:  # the disk's rows that are so wide
                for row in (r - y, r + y):
                    np.minimum(out, line[:, row : row + h], out=out)
    return out
