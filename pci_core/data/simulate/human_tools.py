"""Brushes for the patterns of human cells: scattered points, spots, rings, random walks along fibres."""

from __future__ import annotations

import numpy as np

from pci_core.data.simulate.human_shapes import HALF, SIDE, Scene
from pci_core.data.simulate.optics import texture


def noise(rng: np.random.Generator, scale: float) -> np.ndarray:
    """Return a texture of the field's size; scales are rounded so that few tiles need be kept."""
    return texture((SIDE, SIDE), max(round(scale * 2), 1) / 2, rng)


def grain(rng: np.random.Generator, depth: float, scale: float = 1.2) -> np.ndarray:
    """Return the speckle of an antibody stain: mean 1, never negative."""
    return np.maximum(1 + np.float32(depth) * noise(rng, scale), 0)


def scatter(
    scene: Scene, rng: np.random.Generator, weight: np.ndarray, count: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw points in the cells with a density proportional to `weight`.

    Parameters
    ----------
    scene : Scene
    rng : numpy.random.Generator
    weight : ndarray
        (HALF, HALF) >= 0.
    count : float or ndarray (n,)
        Expected number of points of a cell.

    Returns
    -------
    y, x : ndarray
        (points,) px.
    cell : ndarray
        (points,) index of the cell.
    """
    label = scene.label.ravel()
    weight = np.where(label > 0, weight.ravel(), 0)
    total = np.bincount(label, weights=weight, minlength=len(scene) + 1)
    wanted = np.concatenate([[0], np.broadcast_to(count, len(scene))])
    scale = np.divide(wanted, total, out=np.zeros(len(total)), where=total > 0)
    # a cell cut by the border shows its share of the points, not all of them pressed into the visible part
    size = np.bincount(label, minlength=len(scene) + 1)
    whole = np.median(size[1:][size[1:] > 0]) if len(scene) else 1
    scale *= np.clip(size / (0.6 * whole), 0, 1)
    expected = weight * scale[label]
    hit = np.flatnonzero(rng.random(HALF * HALF, dtype=np.float32) < expected)
    jitter = rng.random((2, len(hit))) * 2
    return hit // HALF * 2 + jitter[0], hit % HALF * 2 + jitter[1], label[hit] - 1


def splat(y: np.ndarray, x: np.ndarray, amount: np.ndarray | float = 1.0) -> np.ndarray:
    """Add points of some `amount` to an empty field, shared among the four nearest pixels: (SIDE, SIDE) float32."""
    amount = np.broadcast_to(amount, y.shape)
    ok = (y >= 0) & (y < SIDE - 1) & (x >= 0) & (x < SIDE - 1)
    y, x, amount = y[ok], x[ok], amount[ok]
    row, column = y.astype(np.int64), x.astype(np.int64)
    fy, fx = y - row, x - column
    at = row * SIDE + column
    flat = np.zeros(SIDE * SIDE)
    for step, share in ((0, (1 - fy) * (1 - fx)), (1, (1 - fy) * fx), (SIDE, fy * (1 - fx)), (SIDE + 1, fy * fx)):
        flat += np.bincount(at + step, weights=share * amount, minlength=SIDE * SIDE)
    return flat.reshape(SIDE, SIDE).astype(np.float32)


def spots(
    y: np.ndarray, x: np.ndarray, sigma: np.ndarray | float, amount: np.ndarray | float = 1.0, ring: np.ndarray | float = 0.0
) -> np.ndarray:
    """Draw round spots, or rings where `ring` (radius, px) is above 0: (SIDE, SIDE) float32, peak `amount`."""
    if not len(y):
        return np.zeros((SIDE, SIDE), np.float32)
    sigma, amount, ring = (np.broadcast_to(v, y.shape).astype(np.float32)[:, None, None] for v in (sigma, amount, ring))
    reach = int(np.ceil((ring + 2.6 * sigma).max()))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    row, column = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    fy, fx = (y - row).astype(np.float32)[:, None, None], (x - column).astype(np.float32)[:, None, None]
    away = np.sqrt((dy - fy) ** 2 + (dx - fx) ** 2)
    value = amount * np.exp(-0.5 * ((away - ring) / sigma) ** 2)
    rows, columns = row[:, None, None] + dy.astype(np.int64), column[:, None, None] + dx.astype(np.int64)
    ok = (rows >= 0) & (rows < SIDE) & (columns >= 0) & (columns < SIDE)
    flat = np.bincount((rows * SIDE + columns)[ok], weights=value[ok], minlength=SIDE * SIDE)
    return flat.reshape(SIDE, SIDE).astype(np.float32)


def beside_nucleus(scene: Scene, of: np.ndarray, turn: np.ndarray, off: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return y, x of points `off` px outside the nuclear edge of the cells `of`, in the direction `turn` (rad)."""
    local = turn - scene.angle[of]
    radius = 1 / np.sqrt((np.cos(local) / scene.a[of]) ** 2 + (np.sin(local) / scene.b[of]) ** 2) + off
    return scene.y[of] + radius * np.sin(turn), scene.x[of] + radius * np.cos(turn)


def walk(
    scene: Scene,
    rng: np.random.Generator,
    y: np.ndarray,
    x: np.ndarray,
    turn: np.ndarray,
    *,
    steps: int,
    length: np.ndarray | float,
    wiggle: float,
    stride: float = 2.0,
    margin: float = 5.0,
    stop: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Let fibres grow from points: persistent random walks that bend along the cell's edge and never cross it.

    Parameters
    ----------
    scene : Scene
    rng : numpy.random.Generator
    y, x, turn : ndarray
        (fibres,) start in px and direction in rad.
    steps : int
        Most steps of a fibre.
    length : ndarray (fibres,) or float
        Steps after which a fibre ends.
    wiggle : float
        Standard deviation of the change of direction, rad a step.
    stride, margin : float
        Step and distance from the edge at which fibres turn, px.
    stop : float
        Probability a step that a fibre this near to the edge ends.

    Returns
    -------
    y, x : ndarray
        (points,) of all fibres.
    fibre : ndarray
        (points,) index of the fibre.
    """
    y, x = y.astype(np.float32), x.astype(np.float32)
    dy, dx = np.sin(turn).astype(np.float32), np.cos(turn).astype(np.float32)
    flat_label, depth = scene.label.ravel(), scene.depth.ravel()
    ramp_y, ramp_x = (r.ravel() for r in scene.ramp)
    fibre = np.arange(len(y))
    left = np.broadcast_to(length, y.shape).astype(np.float32)

    def at(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return np.clip(rows * 0.5, 0, HALF - 1).astype(np.int32) * HALF + np.clip(columns * 0.5, 0, HALF - 1).astype(np.int32)

    where = at(y, x)
    home = flat_label[where]
    out_y, out_x, out_fibre = [], [], []
    for step in range(steps):
        alive = (flat_label[where] == home) & (left > step) & (y > -4) & (x > -4) & (y < SIDE + 4) & (x < SIDE + 4)
        if not alive.all():
            y, x, dy, dx, fibre, home, left, where = (v[alive] for v in (y, x, dy, dx, fibre, home, left, where))
        if not len(y):
            break
        out_y.append(y)
        out_x.append(x)
        out_fibre.append(fibre)
        bend = np.float32(wiggle) * rng.standard_normal(len(y), dtype=np.float32)
        dy, dx = dy + bend * dx, dx - bend * dy
        ry, rx = ramp_y[where], ramp_x[where]
        near = depth[where] < margin
        if stop:
            left = np.where(near & (rng.random(len(y)) < stop), 0, left)
        outward = np.minimum(dy * ry + dx * rx, 0) * near
        dy, dx = dy - outward * ry, dx - outward * rx
        norm = np.float32(1) / np.sqrt(dy * dy + dx * dx + np.float32(1e-9))
        dy, dx = dy * norm, dx * norm
        y, x = y + np.float32(stride) * dy, x + np.float32(stride) * dx
        where = at(y, x)
    if not out_y:
        return y, x, fibre
    return np.concatenate(out_y), np.concatenate(out_x), np.concatenate(out_fibre)


def outward(scene: Scene, y: np.ndarray, x: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Return the direction (rad) from the nucleus of the cells `of` to the points."""
    out: np.ndarray = np.arctan2(y - scene.y[of], x - scene.x[of])
    return out
