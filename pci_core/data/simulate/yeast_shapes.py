"""Geometry of simulated budding yeast: bodies, buds, nuclei and vacuoles, and clumps of cells in a field.

All lengths are px of the field of view. Sizes follow real crops of the cytosolic-RFP collection, where a
cell's equivalent diameter is 35 px in the median (5-95 %: 26-44) and its axis ratio 0.86 (0.75-0.96).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

MEAN_RADIUS = 20.5  # of a mother cell
PAD = 112  # px of canvas around a field, so that cells cut by the border are drawn whole
MARGIN = 10  # px drawn around a cell, for the halo of brightfield and defocus


@dataclass
class Body:
    """An ellipse with slightly uneven radius: a cell body, nucleus or vacuole.

    Attributes
    ----------
    y, x : float
        Centre, px of the field.
    a, b : float
        Long and short half axis, px.
    angle : float
        Of the long axis, radians from x towards y.
    uneven : (float, float)
        Relative amplitudes of a threefold and a skew deviation from the ellipse.
    """

    y: float
    x: float
    a: float
    b: float
    angle: float = 0.0
    uneven: tuple[float, float] = (0.0, 0.0)

    @property
    def radius(self) -> float:
        """Radius of the circle of equal area, px."""
        return math.sqrt(self.a * self.b)

    def along(self, direction: float) -> float:
        """Radius of the plain ellipse in a direction, px."""
        c, s = np.cos(direction - self.angle), np.sin(direction - self.angle)
        return float(1 / np.hypot(c / self.a, s / self.b))

    def point(self, direction: float | np.ndarray, share: float | np.ndarray = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Return (y, x) at a `share` of the radius in a `direction` (radians in the frame of the ellipse)."""
        u, v = self.a * share * np.cos(direction), self.b * share * np.sin(direction)
        c, s = np.cos(self.angle), np.sin(self.angle)
        return np.asarray(self.y + u * s + v * c), np.asarray(self.x + u * c - v * s)

    def rho(self, yy: np.ndarray, xx: np.ndarray) -> np.ndarray:
        """Return the relative radius of pixels: 0 at the centre, 1 at the edge; float32."""
        dy, dx = yy - np.float32(self.y), xx - np.float32(self.x)
        c, s = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        u, v = (dx * c + dy * s) / np.float32(self.a), (dy * c - dx * s) / np.float32(self.b)
        square = u * u + v * v
        r = np.sqrt(square)
        if any(self.uneven):
            three, skew = (np.float32(e) for e in self.uneven)
            r = r * (1 - (three * u * (u * u - 3 * v * v) + skew * u * square) / (square * r + np.float32(0.05)))
        return r


@dataclass
class Cell:
    """A mother cell with its bud and organelles.

    Attributes
    ----------
    phase : str
        ``unbudded``, ``small bud``, ``medium bud``, ``large bud``, ``anaphase`` or ``telophase``.
    mother : Body
    bud : Body or None
    axis : float
        Direction from the mother to the (present or next) bud, radians from x towards y.
    nuclei, vacuoles : list of Body
    dead : bool
        Bright all over, as dead cells are in real fields.
    defocus : float
        Additional blur (sigma, px).
    """

    phase: str
    mother: Body
    bud: Body | None
    axis: float
    nuclei: list[Body] = field(default_factory=list)
    vacuoles: list[Body] = field(default_factory=list)
    dead: bool = False
    defocus: float = 0.0

    @property
    def bodies(self) -> list[Body]:
        """The mother and, if there is one, the bud."""
        return [self.mother] if self.bud is None else [self.mother, self.bud]

    @property
    def neck(self) -> tuple[float, float]:
        """Where the bud is or will be attached, (y, x)."""
        r = self.mother.along(self.axis)
        return self.mother.y + r * float(np.sin(self.axis)), self.mother.x + r * float(np.cos(self.axis))

    def shift(self, dy: float, dx: float) -> None:
        """Move the cell with all that is in it."""
        for body in (*self.bodies, *self.nuclei, *self.vacuoles):
            body.y += dy
            body.x += dx


def grow(rng: np.random.Generator) -> Cell:
    """Draw one cell around the origin, anywhere in the cell cycle."""
    t = rng.random()
    phase = "unbudded"
    for name, end in (("telophase", 1.0), ("anaphase", 0.89), ("large bud", 0.83), ("medium bud", 0.72), ("small bud", 0.57)):
        if 0.40 <= t < end:
            phase = name
    size = MEAN_RADIUS * float(np.exp(rng.normal(0, 0.13)))
    if phase == "unbudded":
        size *= 0.78 + 0.24 * t / 0.40  # daughters start small
    ratio = float(np.clip(rng.normal(0.87, 0.07), 0.68, 0.99))
    uneven = (float(rng.normal(0, 0.015)), float(rng.normal(0, 0.02)))
    mother = Body(0, 0, size / np.sqrt(ratio), size * np.sqrt(ratio), rng.uniform(0, 2 * np.pi), uneven)
    # buds leave near a pole of the mother
    axis = mother.angle + rng.normal(0, 0.5) + np.pi * rng.integers(2)
    bud = None
    if phase != "unbudded":
        s = (t - 0.40) / 0.60
        r = size * (0.20 + 0.62 * s**0.8) * rng.uniform(0.9, 1.1)
        long = rng.uniform(1.0, 1.12)
        away = mother.along(axis) + 0.82 * r * long
        bud = Body(away * np.sin(axis), away * np.cos(axis), r * long, r / long, axis)
    cell = Cell(phase, mother, bud, float(axis))
    _nuclei(cell, rng)
    _vacuoles(cell, rng)
    cell.dead = bool(rng.random() < 0.012)
    return cell


def _nuclei(cell: Cell, rng: np.random.Generator) -> None:
    m, axis = cell.mother, cell.axis
    r = m.radius * rng.uniform(0.30, 0.38)
    ratio = rng.uniform(0.85, 1.0)
    along = {"unbudded": rng.uniform(-0.2, 0.35), "small bud": 0.35, "medium bud": 0.45, "large bud": 0.6}.get(cell.phase, 0.0)
    if cell.bud is None or cell.phase in ("small bud", "medium bud", "large bud"):
        d, side = along * m.along(axis) + rng.normal(0, 1.0), rng.normal(0, 0.12) * m.radius
        y, x = m.y + d * np.sin(axis) + side * np.cos(axis), m.x + d * np.cos(axis) - side * np.sin(axis)
        if cell.phase == "large bud":
            ratio, r = 0.75, r * 1.08
        cell.nuclei = [Body(y, x, r / np.sqrt(ratio), r * np.sqrt(ratio), axis + rng.normal(0, 0.25))]
        return
    apart = 0.3 if cell.phase == "anaphase" else 0.05
    for body, sign in ((m, 1), (cell.bud, -1)):
        d = sign * apart * body.along(axis) + rng.normal(0, 1.0)
        small = min(0.80 * r, 0.5 * body.radius)
        cell.nuclei.append(Body(body.y + d * np.sin(axis), body.x + d * np.cos(axis), small / np.sqrt(ratio), small * np.sqrt(ratio), axis))
    if cell.phase == "anaphase":
        p, q = cell.nuclei
        length = np.hypot(p.y - q.y, p.x - q.x) / 2
        cell.nuclei.append(Body((p.y + q.y) / 2, (p.x + q.x) / 2, length, 1.8, axis))


def _vacuoles(cell: Cell, rng: np.random.Generator) -> None:
    number = int(rng.choice([0, 1, 2, 3, 4], p=[0.07, 0.50, 0.25, 0.12, 0.06]))
    for body, n in zip(cell.bodies, (number, 1), strict=False):
        if body is cell.bud and (body.radius < 7 or rng.random() < 0.3):
            continue
        for _ in range(n):
            for _ in range(16):
                r = body.radius * rng.uniform(0.34, 0.66) / (1 + 0.2 * (n - 1))
                y, x = body.point(rng.uniform(0, 2 * np.pi), rng.uniform(0.1, max(0.12, 0.93 - r / body.b)))
                clear = all(math.hypot(v.y - y, v.x - x) > (v.radius + r) * 0.97 for v in cell.vacuoles)
                clear = clear and all(math.hypot(k.y - y, k.x - x) > k.radius + 0.75 * r for k in cell.nuclei[:2])
                if clear:
                    ratio = rng.uniform(0.85, 1.0)
                    cell.vacuoles.append(
                        Body(float(y), float(x), r / ratio**0.5, r * ratio**0.5, rng.uniform(0, np.pi), (float(rng.normal(0, 0.05)), 0.0))
                    )
                    break


def place(shape: tuple[int, int], rng: np.random.Generator) -> list[Cell]:
    """Fill a field with cells, part of them in clumps, some cut by the border.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the field, px.
    rng : numpy.random.Generator

    Returns
    -------
    list of Cell
        About 40-80 for 512x512; bodies touch and overlap by at most about 2 px.
    """
    goal = int(rng.integers(40, 74) * shape[0] * shape[1] / 512**2)
    clumpy = rng.uniform(0.45, 0.85)
    tilt = rng.normal(0, 0.5, 2)  # of the focal plane
    cells: list[Cell] = []
    circles = np.empty((0, 3))
    for _ in range(goal):
        cell = grow(rng)
        for _ in range(15):
            if len(cells) and rng.random() < clumpy:
                host = circles[rng.integers(len(circles))]
                direction = rng.uniform(0, 2 * np.pi)
                reach = host[2] + cell.mother.radius + rng.uniform(-1, 2)
                y, x = host[0] + reach * np.sin(direction), host[1] + reach * np.cos(direction)
            else:
                y, x = rng.uniform(-10, shape[0] + 10), rng.uniform(-10, shape[1] + 10)
            if not (-12 < y < shape[0] + 12 and -12 < x < shape[1] + 12):
                continue
            own = np.array([(y + b.y - cell.mother.y, x + b.x - cell.mother.x, b.radius) for b in cell.bodies])
            gap = np.hypot(own[:, None, 0] - circles[:, 0], own[:, None, 1] - circles[:, 1]) - own[:, None, 2] - circles[:, 2]
            if gap.size and gap.min() < -1.5:
                continue
            cell.shift(y - cell.mother.y, x - cell.mother.x)
            height = tilt[0] * (y / shape[0] - 0.5) + tilt[1] * (x / shape[1] - 0.5) + rng.normal(0, 0.9)
            cell.defocus = float(max(0.0, abs(height) - 0.6) * 1.1)
            cells.append(cell)
            circles = np.concatenate([circles, own])
            break
    return cells


class Window:
    """The pixels around one cell and where they lie in it; computed once, used by every pattern.

    Attributes
    ----------
    rows, columns : slice
        Where the window lies in the canvas, that is the field with `PAD` px around it: a cell is drawn whole
        where the border cuts it, so that its brightness does not depend on how much of it is seen.
    yy, xx : ndarray
        (h, 1) and (1, w) float32, px of the field.
    depth : ndarray
        (h, w) float32, px inside the nearer cell body's edge, negative outside.
    thick : ndarray
        (h, w) float32, thickness of the cell, 0-1.
    nucleus, vacuole : ndarray
        (h, w) float32, px inside the edge of the nearest nucleus or vacuole; -99 where there is none.
    texture : ndarray
        (h, w) float32, smooth noise of unit variance.
    """

    def __init__(self, cell: Cell, texture: np.ndarray) -> None:
        self.cell = cell
        y0 = math.floor(min(b.y - b.a for b in cell.bodies)) - MARGIN
        x0 = math.floor(min(b.x - b.a for b in cell.bodies)) - MARGIN
        y1 = math.floor(max(b.y + b.a for b in cell.bodies)) + MARGIN + 2
        x1 = math.floor(max(b.x + b.a for b in cell.bodies)) + MARGIN + 2
        self.rows, self.columns = slice(y0 + PAD, y1 + PAD), slice(x0 + PAD, x1 + PAD)
        self.yy = np.arange(y0, y1, dtype=np.float32)[:, None]
        self.xx = np.arange(x0, x1, dtype=np.float32)[None]
        self.texture = texture[self.rows, self.columns]
        rho = [b.rho(self.yy, self.xx) for b in cell.bodies]
        self.depth = np.maximum.reduce([(1 - r) * np.float32(b.radius) for r, b in zip(rho, cell.bodies, strict=True)])
        self.thick = np.sqrt(
            np.maximum.reduce(
                [np.maximum(1 - r * r, 0) * np.float32(b.radius / cell.mother.radius) for r, b in zip(rho, cell.bodies, strict=True)]
            )
        )
        self.nucleus = self._inside(cell.nuclei)
        self.vacuole = self._inside(cell.vacuoles)

    def _inside(self, bodies: list[Body]) -> np.ndarray:
        out = np.full(self.depth.shape, -99, np.float32)
        for b in bodies:
            np.maximum(out, (1 - b.rho(self.yy, self.xx)) * np.float32(b.b), out=out)
        return out
