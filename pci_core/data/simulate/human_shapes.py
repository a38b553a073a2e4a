"""Where the cells of a human field lie and what shape they have: the geometry that all patterns are drawn on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pci_core.data.simulate.optics import blur, smooth_noise, texture

SIDE = 512  # px, a field of the Human Protein Atlas at a quarter of its full size
HALF = SIDE // 2  # outlines are worked out at half the resolution, nuclei at the full one
Ovals = list[list[float]]  # y, x, a, b, angle, bend of the nuclei
_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)


@dataclass(frozen=True)
class CellLine:
    """How the cells of a line look; lengths in px of 0.32 µm."""

    name: str
    tries: int  # darts thrown at the field: sets how crowded it is
    spacing: float  # smallest distance between two nuclei
    island: float  # share of the field left empty between islands
    nucleus: tuple[float, float]  # mean semi-axes
    bend: float  # how bean-shaped nuclei are
    cell: tuple[float, float]  # mean semi-axes
    taper: float  # 0 = ellipse, towards 1 = spindle
    ragged: float  # px by which outlines are displaced
    parallel: float  # 1 = neighbours lie parallel
    chromatin: tuple[float, float]  # scale (px) and depth of the texture in the nucleus
    fibres: tuple[int, int, float, float]  # microtubules: number a cell, steps, wiggle (rad/step), alignment with the axis
    haze: float  # tubulin not in fibres


LINES = {
    line.name: line
    for line in (
        CellLine("A-431", 420, 45, 0.20, (23.5, 19.0), 0.25, (56, 45), 0.0, 6.0, 0.2, (3.5, 0.30), (85, 30, 0.20, 0.1), 0.26),
        CellLine("U-2 OS", 60, 88, 0.05, (30.0, 24.5), 0.10, (104, 78), 0.25, 13.0, 0.2, (2.0, 0.18), (130, 62, 0.10, 0.2), 0.10),
        CellLine("U-251 MG", 60, 62, 0.12, (29.0, 19.5), 0.18, (100, 34), 0.78, 7.0, 0.8, (5.0, 0.24), (100, 52, 0.07, 0.85), 0.14),
    )
}


@dataclass
class Scene:
    """The geometry of one field.

    Per cell, (n,): ``y``, ``x`` nucleus centre in px (may lie outside the field), ``a``, ``b``, ``angle`` of the
    nucleus, ``axis`` (rad) of the cell, ``pole`` (rad) the side of the nucleus where centrosome and Golgi lie.
    Maps of half size: ``label`` (0 = no cell, i + 1 = cell i), ``depth`` px to the cell's edge, ``away`` px from the
    nucleus (negative in it), ``contact`` edges shared by two cells, ``ramp`` the direction of the cell's inside.
    Maps of full size: ``cell`` as ``label``, ``edge`` px to the cell's edge, ``rim`` px to the nuclear edge (positive
    inside), ``nucleolus`` px to the nearest nucleolus' edge (positive inside), ``nucleus`` and ``cytoplasm`` soft masks.
    """

    line: CellLine
    y: np.ndarray
    x: np.ndarray
    a: np.ndarray
    b: np.ndarray
    angle: np.ndarray
    axis: np.ndarray
    pole: np.ndarray
    label: np.ndarray
    depth: np.ndarray
    away: np.ndarray
    contact: np.ndarray
    ramp: tuple[np.ndarray, np.ndarray]
    cell: np.ndarray
    edge: np.ndarray
    rim: np.ndarray
    nucleolus: np.ndarray
    nucleus: np.ndarray
    cytoplasm: np.ndarray
    nuclei: np.ndarray  # (SIDE, SIDE) int32, 0 = none
    nucleoli: np.ndarray  # (n, 4): cell index, y, x, mean radius

    def __len__(self) -> int:
        return len(self.y)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return a map (SIDE, SIDE) of one value for each cell, 0 outside cells."""
        out: np.ndarray = np.concatenate([[0], values]).astype(np.float32)[self.cell]
        return out

    def total(self, image: np.ndarray) -> np.ndarray:
        """Return the sum of `image` over each cell, (n,)."""
        return np.bincount(self.cell.ravel(), weights=image.ravel(), minlength=len(self) + 1)[1:]

    def peak(self, image: np.ndarray) -> float:
        """Return the median over cells of the brightest pixel, so that one odd cell does not set the scale."""
        best = np.zeros(len(self) + 1, np.float32)
        np.maximum.at(best, self.cell.ravel(), image.ravel())
        best = best[1:][best[1:] > 0]
        return float(np.median(best)) if len(best) else 1.0


def double(image: np.ndarray) -> np.ndarray:
    """Return a map of half size at full size, linearly interpolated."""
    for axis in (0, 1):
        padded = np.pad(image, [(1, 1) if k == axis else (0, 0) for k in (0, 1)], mode="edge")
        before, after = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
        image = np.stack([0.75 * image + 0.25 * before, 0.75 * image + 0.25 * after], axis=axis + 1)
        image = image.reshape((SIDE, -1) if axis == 0 else (SIDE, SIDE))
    return image


def _ellipse(dy: np.ndarray, dx: np.ndarray, a: float, b: float, angle: float, bend: float = 0.0) -> np.ndarray:
    """Return about the distance to a (bent) ellipse's edge, px, positive inside."""
    c, s = math.cos(angle), math.sin(angle)
    u, v = c * dx + s * dy, c * dy - s * dx
    if bend:
        v = v - (bend / a) * (u * u - a * a / 3)
    u, v = u * (1 / a), v * (1 / b)
    u *= u
    v *= v
    norm = np.sqrt(u + v) + 1e-4
    return (1 - norm) * norm / (np.sqrt(u * a**-2 + v * b**-2) + 1e-4 / b)


def _place(line: CellLine, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Throw darts that keep their distance, also beyond the border so that cells are cut by it."""
    margin = 0.7 * max(line.cell)
    empty = smooth_noise((HALF // 4, HALF // 4), 22, rng)
    level = np.quantile(empty, rng.uniform(0, 2 * line.island))
    kept = np.empty((0, 2))
    for point in rng.uniform(-margin, SIDE + margin, (line.tries, 2)):
        row, column = np.clip(point / 8, 0, HALF // 4 - 1).astype(int)
        near = np.hypot(*(kept - point).T) < line.spacing * rng.uniform(0.92, 1.25)
        if empty[row, column] >= level and not near.any():
            kept = np.vstack([kept, point])
    if not len(kept):
        kept = np.array([[SIDE / 2, SIDE / 2]])
    return kept[:, 0], kept[:, 1]


def build_scene(line: CellLine, rng: np.random.Generator) -> Scene:
    """Lay out the cells of one field.

    Parameters
    ----------
    line : CellLine
    rng : numpy.random.Generator

    Returns
    -------
    Scene
    """
    y, x = _place(line, rng)
    n = len(y)
    size = rng.lognormal(0, 0.11, n)
    stretch = rng.lognormal(0, 0.10, n)
    a, b = line.nucleus[0] * size * stretch, line.nucleus[1] * size / stretch
    bend = rng.normal(0, line.bend, n) * (rng.random(n) < 0.5)
    flow = smooth_noise((SIDE // 8, SIDE // 8), 20, rng)[np.clip(y / 8, 0, 63).astype(int), np.clip(x / 8, 0, 63).astype(int)]
    axis = line.parallel * 1.2 * flow + rng.uniform(0, np.pi) + (1 - line.parallel) * rng.uniform(0, np.pi, n)
    angle = axis + rng.normal(0, 0.5 - 0.35 * line.parallel, n)

    oval = [v.tolist() for v in (y, x, a, b, angle, bend)]  # a float64 scalar of numpy would make float64 maps
    rim, nuclei = _draw_nuclei(oval, rng)
    label, away = _draw_cells(line, oval, axis, size, nuclei, rng)
    nucleolus, nucleoli = _draw_nucleoli(line, oval, rim, rng)

    inner, contact = label > 0, np.zeros((HALF, HALF), bool)
    for ours, theirs in (((slice(1, None),), (slice(None, -1),)), ((slice(None), slice(1, None)), (slice(None), slice(None, -1)))):
        differs = label[ours] != label[theirs]
        for one in (ours, theirs):
            inner[one] &= ~differs
        contact[ours] |= differs & (label[ours] > 0) & (label[theirs] > 0)
    distance = ndimage.distance_transform_edt(inner).astype(np.float32) if not inner.all() else np.full((HALF, HALF), 99, np.float32)
    depth = blur(2 * distance, 1.0)
    edge = double(depth)
    cell = np.repeat(np.repeat(label, 2, 0), 2, 1)
    nucleus = np.clip(0.5 + rim / 2, 0, 1)
    ramp = np.gradient(blur(depth, 2.0))
    return Scene(
        line, y, x, a, b, angle, axis, rng.uniform(-np.pi, np.pi, n), label, depth, away, contact, (ramp[0], ramp[1]), cell, edge,
        rim, nucleolus, nucleus, np.clip(edge / 2.5, 0, 1) * (cell > 0) * (1 - nucleus), nuclei, nucleoli,
    )  # fmt: skip


def _window(y: float, x: float, reach: float, side: int) -> tuple[slice, slice]:
    low = [int(np.clip(c - reach, 0, side)) for c in (y, x)]
    high = [int(np.clip(c + reach + 1, 0, side)) for c in (y, x)]
    return slice(low[0], high[0]), slice(low[1], high[1])


def _draw_nuclei(oval: Ovals, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance to the nuclear edge (positive inside, px) and the nuclei's labels, both of full size."""
    wy, wx = (1.6 * texture((SIDE, SIDE), 13, rng) for _ in range(2))
    rim = np.full((SIDE, SIDE), -40, np.float32)
    nuclei = np.zeros((SIDE, SIDE), np.int32)
    y, x, a, b, angle, bend = oval
    for i in range(len(y)):
        window = _window(y[i], x[i], 1.15 * a[i] + 12, SIDE)
        if not rim[window].size:
            continue
        d = _ellipse(_Y[window] + wy[window] - y[i], _X[window] + wx[window] - x[i], a[i], b[i], angle[i], bend[i])
        nuclei[window] = np.where((d > 0) & (d > rim[window]), i + 1, nuclei[window])
        rim[window] = np.maximum(rim[window], d)
    return rim, nuclei


def _draw_cells(
    line: CellLine, oval: Ovals, directions: np.ndarray, size: np.ndarray, nuclei: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells' labels and the distance from their nucleus, both of half size."""
    y, x, a, b, angle, bend = oval
    axis = directions.tolist()
    coarse = [line.ragged * texture((HALF, HALF), 20, rng) + 0.25 * line.ragged * texture((HALF, HALF), 6, rng) for _ in (0, 1)]
    gy, gx = _Y[::2, ::2] + 0.5 + coarse[0], _X[::2, ::2] + 0.5 + coarse[1]
    best = np.ones((HALF, HALF), np.float32)
    label = np.zeros((HALF, HALF), np.int32)
    away = np.full((HALF, HALF), 99, np.float32)
    lengths = (np.array(line.cell) * size[:, None] * rng.lognormal(0, [0.18, 0.14], (len(y), 2))).tolist()
    for i in range(len(y)):
        ca, cb = lengths[i]
        c, s = math.cos(axis[i]), math.sin(axis[i])
        shift = rng.uniform(-0.3, 0.3) * max(ca - a[i], 0)
        curve = rng.normal(0, 0.2) * line.taper
        window = _window(y[i] / 2, x[i] / 2, 0.5 * (ca + abs(shift)) + 1.3 * line.ragged, HALF)
        if not best[window].size:
            continue
        dy, dx = gy[window] - y[i], gx[window] - x[i]
        u, v = (c * dx + s * dy - shift) / ca, (c * dy - s * dx) / cb
        v = v - (curve * ca / cb) * (u * u)
        narrow = np.maximum(1 - line.taper * np.abs(u), 0.08)
        reach = np.sqrt(u * u + (v / narrow) ** 2)
        # at least a thin coat of cytoplasm around the nucleus, and the nucleus of one cell is never another's cytoplasm
        outside = -_ellipse(_Y[::2, ::2][window] + 0.5 - y[i], _X[::2, ::2][window] + 0.5 - x[i], a[i], b[i], angle[i], bend[i])
        reach = np.minimum(reach, np.maximum(0.5 + outside / 14, 0.05))
        mine = nuclei[::2, ::2][window]
        reach = np.where(mine == i + 1, 0, np.where(mine > 0, 9, reach))
        won = reach < best[window]
        best[window] = np.where(won, reach, best[window])
        label[window] = np.where(won, i + 1, label[window])
        away[window] = np.where(won, outside, away[window])
    return label, away


def _draw_nucleoli(line: CellLine, oval: Ovals, rim: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance to the nucleoli's edges (positive inside, px) and the table of `Scene.nucleoli`."""
    y, x, a, b, angle, _ = (np.array(v) for v in oval)
    count = np.clip(rng.poisson(1.6 if line.name == "U-2 OS" else 2.2, len(y)) + 2, 2, 6)
    of = np.repeat(np.arange(len(y)), count)
    r, turn = 0.62 * np.sqrt(rng.random(len(of))), rng.uniform(0, 2 * np.pi, len(of))
    u, v = r * np.cos(turn) * a[of], r * np.sin(turn) * b[of]
    c, s = np.cos(angle[of]), np.sin(angle[of])
    cy, cx = y[of] + s * u + c * v, x[of] + c * u - s * v
    radius = rng.uniform(0.13, 0.27, len(of)) * np.sqrt(a * b)[of]
    pad, reach = 16, 14
    field = np.full((SIDE + 2 * pad, SIDE + 2 * pad), -20, np.float32)
    warp = np.pad(1.1 * texture((SIDE, SIDE), 5, rng), pad, mode="edge")
    inside = (cy > -1) & (cy < SIDE) & (cx > -1) & (cx < SIDE)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    for k in np.flatnonzero(inside):
        row, column = int(cy[k]) + pad, int(cx[k]) + pad
        window = (slice(row - reach, row + reach + 1), slice(column - reach, column + reach + 1))
        ratio, size = rng.uniform(0.75, 1.3), float(radius[k])
        d = _ellipse(dy - float(cy[k] % 1), dx - float(cx[k] % 1), size * ratio, size / ratio, rng.uniform(0, np.pi))
        field[window] = np.maximum(field[window], d + warp[window])
    nucleolus = np.minimum(field[pad:-pad, pad:-pad], rim - 1.5)
    return nucleolus, np.stack([of, cy, cx, radius], axis=1)[inside]
