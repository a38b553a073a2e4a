"""How a protein of each location is spread over a human cell.

Each pattern is a function of the scene, the random generator and the protein's traits (eight numbers in
[0, 1] that all images of a protein share), and returns (SIDE, SIDE) float32, >= 0, in units of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pci_core.data.simulate.human_shapes import SIDE, Scene, double
from pci_core.data.simulate.human_tools import beside_nucleus, grain, noise, outward, scatter, splat, spots, walk
from pci_core.data.simulate.optics import blur

Traits = Sequence[float]
Pattern = Callable[[Scene, np.random.Generator, Traits], np.ndarray]


def cytosol(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """Thick beside the nucleus, fading to the edge, grainy, with pale holes where vesicles lie."""
    away = double(np.maximum(scene.away, 0))
    fall = 18 + 40 * t[0]
    body = (0.25 + 0.75 * np.exp(-away / np.float32(fall))) * np.clip(0.3 + scene.edge / (6 + 10 * t[1]), 0, 1)
    holes = 1 - 0.6 * np.clip(noise(rng, 3.0) - 1.0, 0, 1)
    body = body * holes * grain(rng, 0.15 + 0.25 * t[2]) * scene.cytoplasm
    out: np.ndarray = body + nucleoplasm(scene, rng, t) * np.float32(0.04 + 0.22 * t[3])
    return out


def nucleoplasm(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """The nucleus without its nucleoli (more or less), mottled."""
    spared = 1 - np.float32(0.35 + 0.6 * t[4]) * _nucleoli_mask(scene)
    mottled = np.maximum(1 + np.float32(0.1 + 0.25 * t[5]) * noise(rng, 3.5), 0.1)
    out: np.ndarray = scene.nucleus * spared * mottled * grain(rng, 0.1 + 0.2 * t[2])
    return out


def nuclear_membrane(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """A line along the nuclear edge, of uneven strength, with folds and a pale inside."""
    line = np.exp(-0.5 * ((scene.rim - 0.6) / np.float32(0.9 + 0.4 * t[0])) ** 2)
    folds = np.exp(-0.5 * (noise(rng, 14) / 0.045) ** 2) * (scene.rim > 0) * np.float32(0.35 * t[1])
    out: np.ndarray = (line + folds) * grain(rng, 0.3, 2.5) + nucleoplasm(scene, rng, t) * np.float32(0.08 + 0.22 * t[3])
    return out


def _nucleoli_mask(scene: Scene) -> np.ndarray:
    return np.clip(0.5 + scene.nucleolus / 1.8, 0, 1)


def nucleoli(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """Filled nucleoli over a pale nucleus."""
    filled = _nucleoli_mask(scene) * np.maximum(1 + 0.2 * noise(rng, 2.2), 0.2)
    return filled + nucleoplasm(scene, rng, t) * np.float32(0.03 + 0.17 * t[3])


def nucleoli_rim(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """A line around each nucleolus, its inside and the nucleus pale."""
    line = np.exp(-0.5 * ((scene.nucleolus - 0.3) / 1.0) ** 2) * (scene.rim > 1)
    uneven = np.maximum(1 + 0.35 * noise(rng, 2.5), 0.15)
    return line * uneven + nucleoplasm(scene, rng, t) * np.float32(0.06 + 0.14 * t[3]) + 0.10 * _nucleoli_mask(scene)


def fibrillar_center(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """A few dots in each nucleolus."""
    hub = scene.nucleoli
    number = rng.poisson(2.0 + 3 * t[0], len(hub)) + 1
    of = np.repeat(np.arange(len(hub)), number)
    r, turn = hub[of, 3] * 0.75 * np.sqrt(rng.random(len(of))), rng.uniform(0, 2 * np.pi, len(of))
    dots = spots(
        hub[of, 1] + r * np.sin(turn), hub[of, 2] + r * np.cos(turn), rng.uniform(0.7, 1.25, len(of)), rng.uniform(0.4, 1.0, len(of))
    )
    out: np.ndarray = dots * scene.nucleus + 0.12 * _nucleoli_mask(scene) + nucleoplasm(scene, rng, t) * np.float32(0.03 + 0.12 * t[3])
    return out


def speckles(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """Some dozens of irregular grains in the nucleus, none in the nucleoli."""
    field = noise(rng, 2.6 + 1.0 * t[0])
    grains = np.clip((field - np.float32(0.75 + 0.5 * t[1])) * 1.6, 0, 1)
    out: np.ndarray = grains * scene.nucleus * (1 - _nucleoli_mask(scene)) + nucleoplasm(scene, rng, t) * np.float32(0.08 + 0.30 * t[3])
    return out


def bodies(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """A handful of round dots in the nucleus."""
    number = rng.poisson(2 + 7 * t[0], len(scene)) + 1
    y, x, _ = scatter(scene, rng, np.clip(-scene.away - 3, 0, 1) * (scene.nucleolus[::2, ::2] < 0.5), number)
    dots = spots(y, x, rng.uniform(0.9, 1.3 + 0.6 * t[1], len(y)), rng.uniform(0.45, 1.0, len(y)))
    out: np.ndarray = dots * scene.nucleus + nucleoplasm(scene, rng, t) * np.float32(0.05 + 0.28 * t[3])
    return out


def reticulum(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """A net of sheets, dense beside the nucleus, with the nuclear envelope as a faint line."""
    away = double(np.maximum(scene.away, 0))
    net = np.exp(-((noise(rng, 2.6) / np.float32(0.65 + 0.3 * t[1])) ** 2))
    body = np.exp(-away / np.float32(10 + 16 * t[0])) * 0.9 + 0.1
    line = np.exp(-0.5 * ((scene.rim + 0.3) / 1.2) ** 2)
    patchy = np.maximum(1 + 0.35 * noise(rng, 12), 0.2)
    sheet = (0.25 + 0.75 * net) * body * np.clip(scene.edge / 8, 0, 1) * scene.cytoplasm * patchy * grain(rng, 0.2)
    out: np.ndarray = sheet + line * np.float32(0.2 + 0.4 * t[2]) + nucleoplasm(scene, rng, t) * np.float32(0.03 + 0.10 * t[3])
    return out


def golgi(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """Short ribbons in a crescent on one side of the nucleus."""
    number = rng.poisson(14 + 14 * t[0], len(scene)) + 4
    of = np.repeat(np.arange(len(scene)), number)
    width = rng.uniform(0.3, 0.55 + 0.5 * t[1], len(scene))[of]
    turn = scene.pole[of] + width * rng.standard_normal(len(of))
    y, x = beside_nucleus(scene, of, turn, np.abs(rng.normal(0, 4.5, len(of))) + 2.0)
    along = turn + np.pi / 2 + rng.normal(0, 0.7, len(of))
    py, px, fibre = walk(scene, rng, y, x, along, steps=7, length=rng.uniform(2, 7, len(of)), wiggle=0.45, stride=1.3)
    ribbons = blur(splat(py, px, rng.uniform(0.4, 1.0, len(of))[fibre]), 0.9)
    return ribbons * 3 * (1 - 0.8 * scene.nucleus) + cytosol(scene, rng, t) * np.float32(0.04 + 0.10 * t[3])


def mitochondria(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """Worms, crowded around the nucleus and pointing outwards."""
    away = np.maximum(scene.away, 0)
    weight = (scene.away > 1.5) * np.exp(-away / np.float32(14 + 18 * t[0])) * np.clip(scene.depth / 10, 0, 1)
    size = np.bincount(scene.label.ravel(), minlength=len(scene) + 1)[1:] * 4
    y, x, of = scatter(scene, rng, weight, np.clip(size / 75, 20, 150))
    cross = rng.normal(0, 0.6, len(y)) + np.pi / 2 * (rng.random(len(y)) < 0.35)
    turn = outward(scene, y, x, of) + cross
    length = rng.gamma(3, 1.0 + 1.8 * t[1], len(y)) + 1
    py, px, fibre = walk(scene, rng, y, x, turn, steps=18, length=length, wiggle=0.3, stride=1.2, margin=7)
    worms = blur(splat(py, px, rng.uniform(0.5, 1.0, len(y))[fibre]), 0.8) * (1 - scene.nucleus)
    out: np.ndarray = worms * 2.5 + cytosol(scene, rng, t) * np.float32(0.05 + 0.12 * t[3])
    return out


def vesicles_even(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """Many small dots all over the cytoplasm."""
    weight = (scene.away > 1) * (scene.depth > 2) * 1.0
    y, x, _ = scatter(scene, rng, weight, _by_size(scene, 55 + 60 * t[0]))
    dots = spots(y, x, rng.uniform(0.7, 1.1, len(y)), rng.uniform(0.3, 1.0, len(y)))
    return dots + cytosol(scene, rng, t) * np.float32(0.06 + 0.18 * t[3])


def vesicles_near(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """Dots crowded on one side of the nucleus, thinning out from it."""
    grid = np.mgrid[0:SIDE:2, 0:SIDE:2]
    toward = outward(scene, grid[0], grid[1], np.maximum(scene.label - 1, 0))
    side = 0.25 + np.exp(1.6 * (np.cos(toward - scene.pole[np.maximum(scene.label - 1, 0)]) - 1))
    weight = (scene.away > 0.5) * np.exp(-np.maximum(scene.away, 0) / np.float32(6 + 6 * t[0])) * side
    y, x, _ = scatter(scene, rng, weight, 28 + 36 * t[1])
    dots = spots(y, x, rng.uniform(0.8, 1.4, len(y)), rng.uniform(0.3, 1.0, len(y)))
    return dots + cytosol(scene, rng, t) * np.float32(0.05 + 0.14 * t[3])


def vesicles_large(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """Few large dots, some of them hollow."""
    weight = (scene.away > 2) * (scene.depth > 4) * np.exp(-np.maximum(scene.away, 0) / 40)
    y, x, _ = scatter(scene, rng, weight, _by_size(scene, 7 + 9 * t[0]))
    hollow = (rng.random(len(y)) < 0.15 + 0.4 * t[1]) * rng.uniform(1.8, 2.8, len(y))
    dots = spots(y, x, np.where(hollow > 0, 0.9, rng.uniform(1.4, 2.4, len(y))), rng.uniform(0.45, 1.0, len(y)), hollow)
    return dots * (1 - 0.8 * scene.nucleus) + cytosol(scene, rng, t) * np.float32(0.05 + 0.16 * t[3])


def _by_size(scene: Scene, count: float) -> np.ndarray:
    """Scale a number of organelles with the visible area of the cells, gently."""
    size = np.maximum(np.bincount(scene.label.ravel(), minlength=len(scene) + 1)[1:], 1)
    return count * np.sqrt(size / 2200)


def plasma_membrane(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """An uneven line along the cell's edge, double where cells touch, with short protrusions."""
    line = np.exp(-0.5 * ((scene.edge - 1.8) / np.float32(0.9 + 0.5 * t[0])) ** 2) * (scene.cell > 0)
    uneven = np.maximum(0.75 + 0.45 * noise(rng, 9) + 0.3 * noise(rng, 2), 0.05)
    y, x, of = scatter(scene, rng, (scene.depth < 5) * 1.0, _by_size(scene, 70 * t[1]))
    turn = outward(scene, y, x, of) + rng.normal(0, 0.5, len(y))
    hairs = walk(scene, rng, y, x, turn, steps=5, length=rng.uniform(2, 5, len(y)), wiggle=0.3)
    ruffles = blur(splat(hairs[0], hairs[1]), 0.7) * 0.8
    top = np.clip(noise(rng, 2.0) - 0.8, 0, 1) * np.float32(0.25 * t[2]) * np.clip(scene.edge / 3, 0, 1)
    return line * uneven + ruffles + top + cytosol(scene, rng, t) * np.float32(0.08 + 0.22 * t[3])


def cell_junctions(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """Broken lines where two cells touch; a lone cell shows little but haze."""
    seam = np.clip(1.7 * double(scene.contact.astype(np.float32)) - 0.7, 0, 1)
    broken = np.clip(0.55 + 0.7 * t[0] + 0.8 * noise(rng, 3.5), 0.02, 1.3)
    free = np.exp(-0.5 * ((scene.edge - 1.5) / 1.0) ** 2) * (scene.cell > 0)
    studs = np.clip(noise(rng, 3.0) - 1.0, 0, 1) * free * np.float32(0.35 * t[1])
    out: np.ndarray = seam * broken + studs + cytosol(scene, rng, t) * np.float32(0.06 + 0.16 * t[3])
    return out


def microtubule_map(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The tubulin of a field, for the red channel and for proteins that bind to it; about 1 where dense."""
    number, steps, wiggle, aligned = scene.line.fibres
    weight = np.exp(-np.abs(scene.away - 2) / 9) + 0.04 * (scene.away > 0)
    y, x, of = scatter(scene, rng, weight, number * rng.uniform(0.7, 1.3))
    turn = outward(scene, y, x, of) + rng.normal(0, 0.7, len(y))
    along = scene.axis[of] + np.where(np.cos(turn - scene.axis[of]) > 0, 0, np.pi) + rng.normal(0, 0.22, len(y))
    turn = np.where(rng.random(len(y)) < aligned, along, turn)
    length = steps * rng.uniform(0.35, 1.0, len(y))
    py, px, fibre = walk(scene, rng, y, x, turn, steps=steps, length=length, wiggle=wiggle, margin=4, stop=0.18)
    fibres = splat(py, px, rng.uniform(0.5, 1.0, len(y))[fibre])
    over = 1 - scene.spread(rng.uniform(0.45, 0.95, len(scene))) * scene.nucleus
    away = double(np.maximum(scene.away, 0))
    haze = (0.3 + 0.7 * np.exp(-away / 22)) * scene.cytoplasm * np.clip(0.3 + scene.edge / 10, 0, 1) * np.float32(scene.line.haze)
    out: np.ndarray = fibres * over * 0.8 + haze
    return out


def microtubules(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """Long fibres that radiate from beside the nucleus to the edge."""
    out: np.ndarray = microtubule_map(scene, rng) * grain(rng, 0.2 + 0.3 * t[0]) + cytosol(scene, rng, t) * np.float32(0.03 + 0.12 * t[3])
    return out


def actin_filaments(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """Straight parallel bundles across the cell, also over the nucleus, and the cortex under the membrane."""
    bundles = 9 if scene.line.name == "A-431" else 24
    y, x, of = scatter(scene, rng, (scene.depth > 1) * 1.0, bundles * (0.6 + 0.8 * t[0]))
    turn = (scene.axis + rng.normal(0, 0.35, len(scene)))[of] + rng.normal(0, 0.12, len(y)) + np.pi * (rng.random(len(y)) < 0.5)
    py, px, fibre = walk(scene, rng, y, x, turn, steps=40, length=rng.uniform(10, 40, len(y)), wiggle=0.015, stride=2.0, margin=1)
    lines = blur(splat(py, px, rng.uniform(0.3, 1.0, len(y))[fibre]), 0.6)
    cortex = np.exp(-0.5 * ((scene.edge - 2) / 1.5) ** 2) * (scene.cell > 0) * np.maximum(0.6 + 0.5 * noise(rng, 10), 0)
    share = 0.5 if scene.line.name == "A-431" else 0.2
    return lines * 1.4 + cortex * np.float32(share * (0.5 + t[1])) + cytosol(scene, rng, t) * np.float32(0.05 + 0.12 * t[3])


def intermediate_filaments(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """Wavy tangled fibres, a dense cage around the nucleus, short of the edge."""
    weight = (scene.away > 0) * np.exp(-np.maximum(scene.away, 0) / np.float32(9 + 8 * t[0])) * (scene.depth > 5)
    y, x, of = scatter(scene, rng, weight, _by_size(scene, 75))
    around = outward(scene, y, x, of) + np.pi / 2 + np.pi * (rng.random(len(y)) < 0.5) + rng.normal(0, 0.6, len(y))
    steps = 30
    py, px, fibre = walk(scene, rng, y, x, around, steps=steps, length=rng.uniform(8, steps, len(y)), wiggle=0.33, stride=1.7, margin=11)
    tangle = blur(splat(py, px, rng.uniform(0.4, 1.0, len(y))[fibre]), 0.55) * (1 - 0.75 * scene.nucleus)
    return tangle + cytosol(scene, rng, t) * np.float32(0.06 + 0.14 * t[3])


def centrosome(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """One or two dots beside the nucleus."""
    of = np.arange(len(scene))
    y, x = beside_nucleus(scene, of, scene.pole, rng.uniform(1, 8, len(scene)))
    twin = rng.random(len(scene)) < 0.6
    turn = rng.uniform(0, 2 * np.pi, len(scene))
    y, x = np.concatenate([y, (y + 3 * np.sin(turn))[twin]]), np.concatenate([x, (x + 3 * np.cos(turn))[twin]])
    dots = spots(y, x, rng.uniform(0.9, 1.5, len(y)), rng.uniform(0.7, 1.3, len(y)))
    near, far, _ = scatter(scene, rng, np.exp(-np.abs(scene.away) / 8), 10 * t[0])
    satellites = spots(near, far, 0.8, rng.uniform(0.1, 0.35, len(near)))
    out: np.ndarray = (
        dots * 1.2
        + satellites
        + cytosol(scene, rng, t) * np.float32(0.06 + 0.24 * t[3])
        + nucleoplasm(scene, rng, t) * np.float32(0.12 * t[1])
    )
    return out


def focal_adhesions(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """Short dashes at the cell's edge that point outwards."""
    weight = np.exp(-0.5 * ((scene.depth - 5) / 3.5) ** 2) * (scene.away > 3)
    y, x, of = scatter(scene, rng, weight, _by_size(scene, 14 + 22 * t[0]))
    turn = outward(scene, y, x, of) + rng.normal(0, 0.3, len(y))
    py, px, fibre = walk(scene, rng, y, x, turn, steps=7, length=rng.uniform(2, 7, len(y)), wiggle=0.05, stride=1.1, margin=0)
    return blur(splat(py, px, rng.uniform(0.4, 1.0, len(y))[fibre]), 0.9) * 3 + cytosol(scene, rng, t) * np.float32(0.06 + 0.18 * t[3])


def cytoplasmic_bodies(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """Some round dots in the cytoplasm over a visible cytosol."""
    y, x, _ = scatter(scene, rng, (scene.away > 2) * (scene.depth > 5) * 1.0, 3 + 8 * t[0])
    dots = spots(y, x, rng.uniform(1.0, 1.7, len(y)), rng.uniform(0.5, 1.0, len(y)))
    return dots + cytosol(scene, rng, t) * np.float32(0.15 + 0.25 * t[3])


def lipid_droplets(scene: Scene, rng: np.random.Generator, t: Traits) -> np.ndarray:
    """Clusters of small rings in the cytoplasm."""
    weight = (scene.away > 3) * (scene.depth > 5) * np.exp(-np.maximum(scene.away, 0) / 18)
    y, x, of = scatter(scene, rng, weight, 4 + 3 * t[0])
    copies = rng.poisson(5, len(y)) + 2
    of, y, x = np.repeat(of, copies), np.repeat(y, copies), np.repeat(x, copies)
    y, x = y + rng.normal(0, 5, len(y)), x + rng.normal(0, 5, len(y))
    rings = spots(y, x, 0.75, rng.uniform(0.4, 1.0, len(y)), rng.uniform(1.6, 2.8, len(y)))
    return rings * (1 - 0.9 * scene.nucleus) * (scene.cell > 0) + cytosol(scene, rng, t) * np.float32(0.06 + 0.14 * t[3])


PATTERNS: dict[str, Pattern] = {
    "Nucleoplasm": nucleoplasm,
    "Nuclear membrane": nuclear_membrane,
    "Nucleoli": nucleoli,
    "Nucleoli rim": nucleoli_rim,
    "Nucleoli fibrillar center": fibrillar_center,
    "Nuclear speckles": speckles,
    "Nuclear bodies": bodies,
    "Cytosol": cytosol,
    "Endoplasmic reticulum": reticulum,
    "Golgi apparatus": golgi,
    "Mitochondria": mitochondria,
    "Vesicles": vesicles_even,
    "Plasma membrane": plasma_membrane,
    "Cell Junctions": cell_junctions,
    "Microtubules": microtubules,
    "Actin filaments": actin_filaments,
    "Intermediate filaments": intermediate_filaments,
    "Centrosome": centrosome,
    "Focal adhesion sites": focal_adhesions,
    "Cytoplasmic bodies": cytoplasmic_bodies,
    "Lipid droplets": lipid_droplets,
}
SUBCLASSES: dict[str, dict[str, Pattern]] = {"Vesicles": {"even": vesicles_even, "perinuclear": vesicles_near, "large": vesicles_large}}
