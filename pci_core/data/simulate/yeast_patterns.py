"""Where a protein is in a simulated yeast cell: one drawing function for each of the 17 classes.

Each takes the window of a cell, a generator and the protein's style, and returns the signal (h, w),
float32, >= 0, of any scale; None where cells of this phase do not show the pattern (no bud, no vacuole).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pci_core.data.simulate.yeast_shapes import Body, Window

Style = dict[str, float]
Pattern = Callable[[Window, np.random.Generator, Style], "np.ndarray | None"]


def step(depth: np.ndarray, width: float) -> np.ndarray:
    """Return 0 outside, 1 inside, with a linear edge of `width` px."""
    return np.clip(depth / np.float32(width) + np.float32(0.5), 0, 1)


def ring(depth: np.ndarray, at: float, sigma: float) -> np.ndarray:
    """Return a gaussian band of `sigma` px at `at` px inside an edge."""
    out: np.ndarray = np.exp(-0.5 * ((depth - np.float32(at)) / np.float32(sigma)) ** 2)
    return out


def patchy(w: Window, amount: float) -> np.ndarray:
    """Return a factor around 1 that varies over the cell."""
    return np.clip(1 + np.float32(amount) * w.texture, 0.05, 3)


def splat(w: Window, y: np.ndarray, x: np.ndarray, sigma: np.ndarray | float, weight: np.ndarray | float = 1.0) -> np.ndarray:
    """Return the sum of gaussian spots at (y, x), px of the field, of `sigma` px and height `weight`."""
    y, x = np.atleast_1d(y).astype(np.float32), np.atleast_1d(x).astype(np.float32)
    sigma = np.broadcast_to(np.asarray(sigma, np.float32), y.shape)
    high = np.exp(-0.5 * ((w.yy - y) / sigma) ** 2) * np.broadcast_to(np.asarray(weight, np.float32), y.shape)
    wide = np.exp(-0.5 * ((w.xx.T - x) / sigma) ** 2)
    out: np.ndarray = high @ wide.T
    return out


def cytosol(w: Window, exclude: float = 0.7, nucleus: float = 1.0) -> np.ndarray:
    """Return a diffuse signal, weaker by `exclude` in the vacuoles and multiplied by `nucleus` in the nuclei."""
    out = w.thick ** np.float32(0.8) * (1 - np.float32(exclude) * step(w.vacuole - 0.5, 4))
    if nucleus != 1:
        out *= 1 + np.float32(nucleus - 1) * step(w.nucleus, 2)
    result: np.ndarray = out * patchy(w, 0.08)
    return result


def _surface(body: Body, n: int, rng: np.random.Generator, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points spread over the surface of a body, seen from above: y, x and distance from the focal plane (0-1)."""
    z = rng.uniform(0, 1, n)
    y, x = body.point(rng.uniform(0, 2 * np.pi, n), share * np.sqrt(1 - (0.9 * z) ** 2))
    return y, x, z


def _free(w: Window, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points in the cytoplasm, out of vacuoles and nuclei."""
    rows, columns = np.nonzero((w.depth > 2.5) & (w.vacuole < 0) & (w.nucleus < 0))
    if not len(rows):
        return np.empty(0), np.empty(0)
    pick = rng.integers(len(rows), size=n)
    return w.yy[rows[pick], 0], w.xx[0, columns[pick]]


def _spots(w: Window, y: np.ndarray, x: np.ndarray, z: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    height = np.exp(rng.normal(0, 0.4, len(y))) / (1 + 1.5 * z**2)
    return splat(w, y, x, sigma * (1 + 0.7 * z**2) * rng.uniform(0.9, 1.15, len(y)), height)


def _count(mean: float, style: Style, rng: np.random.Generator, low: int = 1) -> int:
    return max(low, int(rng.poisson(mean * style["number"])))


def cytoplasm(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray:
    """Diffuse, out of the vacuole and mostly out of the nucleus."""
    return cytosol(w, style["exclude"], rng.uniform(0.3, 0.55))


def cytoplasm_and_nucleus(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray:
    """Diffuse, out of the vacuole, as bright or brighter in the nucleus."""
    return cytosol(w, style["exclude"], rng.uniform(1.15, 1.9))


def nuclei(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray:
    """The nucleus, filled."""
    out: np.ndarray = step(w.nucleus, 3) * np.sqrt(np.maximum(w.nucleus + 1, 0)) * patchy(w, 0.3 * style["patchy"])
    return out


def nuclear_periphery(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray:
    """The nuclear envelope, beaded by its pores."""
    out: np.ndarray = ring(w.nucleus, 0.6, 0.9) * patchy(w, 1.2 * style["patchy"]) + 0.15 * step(w.nucleus, 2)
    return out


def nucleolus(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray:
    """A cap at the side of the nucleus that faces away from the bud."""
    out = np.zeros_like(w.depth)
    for body in w.cell.nuclei[:2]:
        direction = w.cell.axis + np.pi + rng.normal(0, 0.6)
        r = body.radius
        y, x = body.y + 0.65 * r * np.sin(direction), body.x + 0.65 * r * np.cos(direction)
        out += splat(w, y, x, 0.50 * r * style["size"])
    result: np.ndarray = out * step(w.nucleus, 2)
    return result


def er(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray:
    """The nuclear envelope, a broken ring under the cell's edge and strands between them."""
    out = ring(w.nucleus, 0, 1.1) + rng.uniform(0.4, 0.8) * ring(w.depth, 2.2, 1.1) * patchy(w, 0.5 + style["patchy"])
    nucleus = w.cell.nuclei[0]
    for _ in range(_count(1.5, style, rng, 0)):
        direction = rng.uniform(0, 2 * np.pi)
        y0, x0 = nucleus.point(direction)
        y1, x1 = w.cell.mother.point(direction + rng.normal(0, 0.5), 0.88)
        t = np.linspace(0, 1, 14)
        out += 0.22 * splat(w, y0 + t * (y1 - y0), x0 + t * (x1 - x0), 1.1)
    result: np.ndarray = out * step(w.depth, 2)
    return result


def cell_periphery(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray:
    """The plasma membrane."""
    out: np.ndarray = ring(w.depth, 0.8, 0.9 * style["size"]) * patchy(w, 0.6 * style["patchy"])
    return out


def vacuole(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray | None:
    """The vacuoles, filled."""
    return step(w.vacuole, 3) * np.sqrt(np.maximum(w.vacuole + 1, 0)) if w.cell.vacuoles else None


def vacuolar_membrane(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray | None:
    """The edge of the vacuoles."""
    return ring(w.vacuole, 0.4, 0.9 * style["size"]) * patchy(w, 0.6 * style["patchy"]) if w.cell.vacuoles else None


def mitochondria(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray:
    """Tubes that run under the cell's edge, in the bud too."""
    out = np.zeros_like(w.depth)
    for body, mean in zip(w.cell.bodies, (4.0, 1.8), strict=False):
        if body.radius < 5:
            continue
        for _ in range(_count(mean, style, rng)):
            n = int(rng.uniform(0.8, 2.4) * body.radius)
            turn = np.cumsum(rng.normal(rng.normal(0, 0.04), 0.05, n)) + rng.choice([-1, 1]) * np.arange(n) / body.radius * 0.9
            share = np.clip(0.8 + np.cumsum(rng.normal(0, 0.035, n)) - rng.uniform(0, 0.2), 0.2, 0.9)
            y, x = body.point(rng.uniform(0, 2 * np.pi) + turn, share)
            height = rng.uniform(0.5, 1) * np.clip(1 + np.cumsum(rng.normal(0, 0.12, n)), 0.4, 1.8)
            out += splat(w, y, x, rng.uniform(1.0, 1.4) * style["size"], height)
    result: np.ndarray = out * step(w.depth, 2)
    return result


def golgi(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray:
    """Several spots anywhere in the cytoplasm."""
    y, x = _free(w, _count(7, style, rng, 2), rng)
    return _spots(w, y, x, rng.uniform(0, 1, len(y)), 1.35 * style["size"], rng)


def endosome(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray:
    """A few larger spots beside the vacuole."""
    n = _count(2.6, style, rng)
    y, x = _free(w, n, rng)
    for i in range(len(y)):
        if w.cell.vacuoles and rng.random() < 0.8:
            y[i], x[i] = w.cell.vacuoles[rng.integers(len(w.cell.vacuoles))].point(rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 1.25))
    out: np.ndarray = _spots(w, y, x, rng.uniform(0, 0.8, len(y)), 1.95 * style["size"], rng) * step(w.depth, 2)
    return out


def peroxisome(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray:
    """Small sharp spots, most of them under the cell's edge."""
    y, x, z = _surface(w.cell.mother, _count(4.5, style, rng), rng, 0.82)
    if w.cell.bud is not None and w.cell.bud.radius > 5:
        more = _surface(w.cell.bud, _count(1.5, style, rng), rng, 0.7)
        y, x, z = (np.concatenate(p) for p in zip((y, x, z), more, strict=True))
    return _spots(w, y, x, z, 0.85 * style["size"], rng)


def actin(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray:
    """Patches under the edge, gathered in a growing bud or at the neck before division, and cables."""
    cell = w.cell
    if cell.bud is None:
        y, x, z = _surface(cell.mother, _count(9, style, rng, 3), rng, 0.95)
        return _spots(w, y, x, z, 1.2 * style["size"], rng)
    late = cell.phase in ("anaphase", "telophase")
    parts = [_surface(cell.bud, _count(2 + 0.7 * cell.bud.radius, style, rng, 3), rng, 0.92)]
    parts.append(_surface(cell.mother, _count(6 if late else 1.5, style, rng, 0), rng, 0.95))
    if cell.phase == "telophase":
        n = _count(6, style, rng, 3)
        parts.append((cell.neck[0] + rng.normal(0, 2.2, n), cell.neck[1] + rng.normal(0, 2.2, n), rng.uniform(0, 0.7, n)))
    y, x, z = (np.concatenate(p) for p in zip(*parts, strict=True))
    out = _spots(w, y, x, z, 1.2 * style["size"], rng)
    for _ in range(0 if late else int(rng.integers(1, 4))):
        y1, x1 = cell.mother.point(rng.uniform(0, 2 * np.pi), 0.75)
        t = np.linspace(0, 1, 18)
        out += 0.14 * style["lines"] * splat(w, cell.neck[0] + t * (y1 - cell.neck[0]), cell.neck[1] + t * (x1 - cell.neck[1]), 1.0)
    result: np.ndarray = out * step(w.depth + 1, 2)
    return result


def bud_neck(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray | None:
    """A band across the neck, two bands before division; unbudded cells show it rarely, where the bud will be."""
    cell = w.cell
    gaps: tuple[float, ...] = (0.0,)
    if cell.bud is None:
        if rng.random() < 0.75:
            return None
        half = 2.0
    else:
        half = min(0.55 * cell.bud.radius, 5.0)
        if cell.phase in ("anaphase", "telophase") and rng.random() < 0.7:
            gaps = (-1.6, 1.6)
    t = np.linspace(-1, 1, 11)
    s, c = np.sin(cell.axis), np.cos(cell.axis)
    out = np.zeros_like(w.depth)
    for gap in gaps:
        # a ring seen from its side is brighter at both ends
        out += splat(w, cell.neck[0] + half * t * c + gap * s, cell.neck[1] - half * t * s + gap * c, 1.0 * style["size"], 0.6 + t**2)
    result: np.ndarray | None = out
    return result


def bud_tip(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray | None:
    """A cap on the far side of a small or medium bud; seldom in large ones or where a bud will be."""
    cell = w.cell
    shown = {"small bud": 1.0, "medium bud": 0.95, "large bud": 0.5, "anaphase": 0.15, "telophase": 0.1}.get(cell.phase, 0.25)
    if rng.random() > shown:
        return None
    body = cell.mother if cell.bud is None else cell.bud
    reach = min(0.9, 4.5 / body.radius) if cell.bud is None else rng.uniform(0.6, 1.1)
    angle = cell.axis - body.angle + np.linspace(-reach, reach, 13)
    y, x = body.point(angle, 0.90)
    return splat(w, y, x, 1.3 * style["size"], np.cos(np.linspace(-1.2, 1.2, 13)))


def spindle(w: Window, rng: np.random.Generator, style: Style) -> np.ndarray:
    """Spindle poles at the nuclear envelope and, between two of them, the spindle."""
    cell = w.cell
    s, c = np.sin(cell.axis), np.cos(cell.axis)
    first = cell.nuclei[0]
    if cell.phase in ("anaphase", "telophase"):
        second, reach = cell.nuclei[1], 0.8
        away = np.sign((second.y - first.y) * s + (second.x - first.x) * c)
        ends = [(b.y - k * away * reach * b.radius * s, b.x - k * away * reach * b.radius * c) for b, k in ((first, 1), (second, -1))]
        between = 0.7 if cell.phase == "anaphase" else 0.12
    else:
        turn = cell.axis + rng.normal(0, 0.3)
        length = {"unbudded": 0.0, "small bud": 0.35, "medium bud": 0.9, "large bud": 1.5}[cell.phase] * first.radius
        if cell.phase == "unbudded":
            y0, x0 = first.y + first.radius * np.sin(turn), first.x + first.radius * np.cos(turn)
        else:
            y0, x0 = first.y + length / 2 * np.sin(turn), first.x + length / 2 * np.cos(turn)
        ends = [(y0, x0), (y0 - length * np.sin(turn), x0 - length * np.cos(turn))]
        between = 0.5 if length else 0.0
    (ya, xa), (yb, xb) = ends
    out = splat(w, np.array([ya, yb]), np.array([xa, xb]), 1.25 * style["size"])
    t = np.linspace(0, 1, 30)
    out += between * (0.3 + style["lines"]) * 0.4 * splat(w, ya + t * (yb - ya), xa + t * (xb - xa), 1.0)
    return out


PATTERNS: dict[str, Pattern] = {
    "cytoplasm": cytoplasm, "nuclei": nuclei, "mitochondria": mitochondria, "ER": er,
    "cytoplasm and nucleus": cytoplasm_and_nucleus, "cell periphery": cell_periphery,
    "vacuolar membrane": vacuolar_membrane, "nucleolus": nucleolus, "Golgi": golgi, "bud neck": bud_neck,
    "nuclear periphery": nuclear_periphery, "vacuole": vacuole, "actin": actin, "spindle": spindle,
    "endosome": endosome, "peroxisome": peroxisome, "bud tip": bud_tip,
}  # fmt: skip
