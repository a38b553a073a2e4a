"""Simulated fields of budding yeast in 17 location classes, with one of three structural markers.

A field is a 16-bit TIFF of two planes: the tagged protein, then the structural channel of
``Source.modality``: ``rfp`` (a cytosolic red protein), ``brightfield`` or ``nup49`` (the nuclear pores), the
three kinds of yeast collections in the paper ("Datasets, Preprocessing, and Training"). The cells and the
protein plane of a seed are the same in all three.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from scipy import ndimage

from pci_core.data.simulate.frame import FieldPlan, RenderedField, field_seed
from pci_core.data.simulate.optics import expose, smooth_noise
from pci_core.data.simulate.yeast_patterns import PATTERNS, cytosol, patchy, ring, step
from pci_core.data.simulate.yeast_proteins import LEVELS, PHENOTYPES, TWO, Protein, draw_proteins
from pci_core.data.simulate.yeast_shapes import PAD, Window, place
from pci_core.errors import unknown_name
from pci_core.recipe import Source
from pci_core.storage import atomic_path

SHAPE = (512, 512)
CANVAS = (SHAPE[0] + 2 * PAD, SHAPE[1] + 2 * PAD)
_FIELD = slice(PAD, PAD + SHAPE[0]), slice(PAD, PAD + SHAPE[1])
MODALITIES = ("rfp", "brightfield", "nup49")
OFFSET, GAIN = 180.0, 16000.0  # camera counts in the dark, and for one unit of signal
_COLUMNS = 24  # wells in a row of a 384-well plate
_WELLS = 384


def plan(source: Source) -> list[FieldPlan]:
    """List the fields of a recipe.

    Parameters
    ----------
    source : Source
        ``proteins``, ``images_per_protein``, ``fields_per_image``, ``modality``, ``seed``.

    Returns
    -------
    list of FieldPlan
        Fields of one image next to each other. Nothing in them depends on the modality.

    Raises
    ------
    UnknownNameError
        No such modality.
    """
    _modality(source)
    plans = []
    for i, protein in enumerate(draw_proteins(source.proteins, source.seed)):
        for j in range(source.images_per_protein):
            image = protein.name if source.images_per_protein == 1 else f"{protein.name}_{j + 1}"
            place_, plate = (i * source.images_per_protein + j) % _WELLS, (i * source.images_per_protein + j) // _WELLS
            meta = {
                "image": image,
                "protein": protein.name,
                "ensembl": "",
                "antibody": "",
                "cell_line": "",
                "location": ";".join(filter(None, (protein.first, protein.second))),
                "plate": f"SIMY{plate + 1:02d}",
                "well": f"{chr(ord('A') + place_ // _COLUMNS)}{place_ % _COLUMNS + 1:02d}",
            }
            for k in range(source.fields_per_image):
                name = f"{image}_f{k + 1:02d}"
                extra = {"protein": protein, **protein.columns()}
                plans.append(FieldPlan(name, f"{name}.tif", meta, field_seed(source.seed, f"yeast {name}"), extra))
    return plans


def _modality(source: Source) -> str:
    modality = source.modality or "rfp"
    if modality not in MODALITIES:
        raise unknown_name("yeast modality", modality, MODALITIES)
    return modality


def render(plan: FieldPlan, source: Source) -> RenderedField:
    """Draw one field of view.

    Returns
    -------
    RenderedField
        ``pixels`` (2, 512, 512) uint16: protein, structural. ``labels``: a mother and its bud are one cell,
        cells whose centre lies outside the field have a label but no row. ``truth``: one row a cell,
        ``y``, ``x`` of the mother's centre, ``sim_cell`` (label), ``sim_location`` (what this cell shows),
        ``sim_fraction`` (share of the signal in the second location), ``sim_phenotype`` (``typical``; ``second``
        or ``low`` for proteins that vary; ``diffuse`` where the cell's phase does not show the pattern; ``dead``),
        ``sim_phase`` (cell cycle), ``sim_focus`` (additional blur, px), ``sim_level`` (relative abundance), and of
        the field's protein plane ``sim_background`` and ``sim_blur`` (px).

    Raises
    ------
    UnknownNameError
        No such modality.
    """
    modality = _modality(source)
    protein: Protein = plan.extra["protein"]
    # separate streams, so that cells and protein do not depend on the modality
    shapes, patterns, optics, marker, camera = (np.random.default_rng(s) for s in np.random.SeedSequence(plan.seed).spawn(5))
    texture = smooth_noise(CANVAS, 2.0, shapes)
    signal, structure, best = (np.zeros(CANVAS, np.float32) for _ in range(3))
    labels = np.zeros(CANVAS, np.uint16)
    rows = []
    for label, cell in enumerate(place(SHAPE, shapes), start=1):
        w = Window(cell, texture)
        at = w.rows, w.columns
        own, truth = _protein_signal(w, protein, patterns)
        signal[at] += _defocused(own, cell.defocus)
        structure[at] += _defocused(_STRUCTURE[modality](w, marker), cell.defocus)
        inside = w.depth > best[at]
        labels[at][inside] = label
        best[at][inside] = w.depth[inside]
        y, x = cell.mother.y, cell.mother.x
        if 0 <= y <= SHAPE[0] - 1 and 0 <= x <= SHAPE[1] - 1:
            where = {"field": plan.field, "y": y, "x": x, "sim_cell": label}
            rows.append({**where, **truth, "sim_phase": cell.phase, "sim_focus": round(cell.defocus, 3)})
    exposed, settings = _protein_camera(signal[_FIELD], optics)
    pixels = np.stack([exposed, _structural_camera(structure[_FIELD], modality, camera)])
    return RenderedField(pixels, pd.DataFrame(rows).assign(**settings), np.ascontiguousarray(labels[_FIELD]))


def _protein_signal(w: Window, protein: Protein, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, object]]:
    cell, style = w.cell, protein.style
    first, phenotype, fraction = protein.first, "typical", 0.0
    level = float(np.exp(rng.normal(0, style["spread"])))
    other = bool(rng.random() < protein.mean)
    if protein.kind == TWO:
        fraction = float(rng.beta(12 * protein.mean, 12 * (1 - protein.mean)))
    elif protein.kind == PHENOTYPES and other:
        first, phenotype = protein.second, "second"
    elif protein.kind == LEVELS and other:
        level, phenotype = 0.12 * level, "low"
    own = PATTERNS[first](w, rng, style)
    image = np.zeros_like(w.depth) if own is None else own / max(float(own.sum()), 1e-6)
    shown = [own is not None]
    if protein.kind == TWO:
        second = PATTERNS[protein.second](w, rng, style)
        shown.append(second is not None)
        image = (1 - fraction) * image + (0 if second is None else fraction * second / max(float(second.sum()), 1e-6))
    diffuse = cytosol(w, style["exclude"])
    if cell.dead:
        phenotype, image = "dead", 1.6 * w.thick * patchy(w, 0.25)
    elif not any(shown):
        phenotype, image = "diffuse", 0.25 * level * diffuse
    else:
        phenotype = phenotype if all(shown) else "diffuse"
        # of the same height for all classes, so that brightness alone does not tell them apart
        image = level * (_to_unit(image) + style["pool"] * diffuse)
    image = np.float32(protein.brightness) * image + np.float32(rng.uniform(0.012, 0.03)) * diffuse
    location = ";".join((first, protein.second)) if protein.kind == TWO else first
    return image.astype(np.float32, copy=False), {
        "sim_location": location,
        "sim_fraction": round(fraction, 4),
        "sim_phenotype": phenotype,
        "sim_level": round(level, 4),
    }


def _to_unit(image: np.ndarray) -> np.ndarray:
    """Scale so that the brightest 20 px, about the area of one spot, reach 1."""
    top = max(image.size - 20, 0)
    return image / max(float(np.partition(image, top, axis=None)[top]), 1e-9)


def _rfp(w: Window, rng: np.random.Generator) -> np.ndarray:
    """Cytosolic red protein: weaker in the vacuole, even across the nucleus."""
    level = np.exp(rng.normal(-0.1, 0.35)) * (1.8 if w.cell.dead else 1.0)
    exclude = 0.0 if w.cell.dead else rng.uniform(0.3, 0.65)
    out: np.ndarray = (0.5 * level * cytosol(w, exclude, rng.uniform(0.95, 1.15)) * patchy(w, 0.04)).astype(np.float32)
    return out


def _nup49(w: Window, rng: np.random.Generator) -> np.ndarray:
    """Red nuclear pores: a beaded ring, and weak haze of the cytosol."""
    level = 0.5 * np.exp(rng.normal(-0.1, 0.35))
    if w.cell.dead:
        out: np.ndarray = (level * w.thick * patchy(w, 0.25)).astype(np.float32)
        return out
    pores = np.clip(1 + 0.6 * w.texture[::-1, ::-1], 0.15, 3)  # mirrored: not the beads of the protein plane
    out = (level * (ring(w.nucleus, 0.5, 0.8) * pores + 0.12 * cytosol(w, 0.5))).astype(np.float32)
    return out


def _brightfield(w: Window, rng: np.random.Generator) -> np.ndarray:
    """Light that a cell bends: a bright rim inside, a dark one at the edge, a faint outer ring."""
    contrast, shift = 0.11 * np.exp(rng.normal(0, 0.2)), rng.normal(0, 0.5)
    image = 1.2 * ring(w.depth, 2.6 + shift, 1.4) - 1.5 * ring(w.depth, -0.6 + shift, 1.4) + 0.35 * ring(w.depth, -5.0 + shift, 1.7)
    inner = 0.12 * w.texture - 0.25 * ring(w.vacuole, 0, 1.0) + 0.15 * step(w.vacuole, 3) + (-0.5 if w.cell.dead else 0.1)
    out: np.ndarray = (contrast * (image + inner * step(w.depth - 3, 3))).astype(np.float32)
    return out


_STRUCTURE = {"rfp": _rfp, "nup49": _nup49, "brightfield": _brightfield}


def _defocused(image: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, sigma, mode="constant", truncate=3.0) if sigma > 0.3 else image


@lru_cache(maxsize=1)
def _wide() -> np.ndarray:
    """Weights (512, 64) that blur by 12 px from a grid eight times coarser."""
    distance = np.arange(SHAPE[0])[:, None] - (np.arange(SHAPE[0] // 8) * 8 + 3.5)
    weights = np.exp(-0.5 * (distance / 12.0) ** 2)
    out: np.ndarray = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return out


def _hazy(signal: np.ndarray, share: float) -> np.ndarray:
    """Add the wide part of a widefield microscope's spread function, on a coarse grid."""
    coarse = signal.reshape(SHAPE[0] // 8, 8, SHAPE[1] // 8, 8).mean(axis=(1, 3))
    out: np.ndarray = np.float32(1 - share) * signal + np.float32(share) * (_wide() @ coarse @ _wide().T)
    return out


def _counts(exposed: np.ndarray) -> np.ndarray:
    return np.clip(OFFSET + GAIN * exposed, 0, 65535).astype(np.uint16)


def _protein_camera(signal: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, float]]:
    blur_px, background = float(rng.uniform(0.8, 1.5)), float(rng.uniform(0.03, 0.05))
    light = expose(_hazy(signal, 0.18), rng, blur_px=blur_px, background=background, photons=500, read_noise=0.008, illumination=0.12)
    return _counts(light), {"sim_background": background, "sim_blur": blur_px}


def _structural_camera(structure: np.ndarray, modality: str, rng: np.random.Generator) -> np.ndarray:
    blur_px = float(rng.uniform(0.9, 1.9))
    if modality == "brightfield":
        focus = float(rng.uniform(0.6, 1.3)) * (-1 if rng.random() < 0.2 else 1)  # beyond focus, bright and dark change places
        uneven = 0.5 + focus * structure + 0.02 * smooth_noise(SHAPE, 60.0, rng) + 0.006 * smooth_noise(SHAPE, 3.0, rng)
        return _counts(expose(np.maximum(uneven, 0), rng, blur_px=blur_px, background=0, photons=3000, read_noise=0.004, illumination=0.06))
    return _counts(expose(_hazy(structure, 0.18), rng, blur_px=blur_px, background=0.04, photons=400, read_noise=0.01, illumination=0.12))


def write(rendered: RenderedField, path: str | Path) -> None:
    """Save a field as a two-page TIFF (protein, structural), uint16, whole or not at all."""
    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, rendered.pixels, photometric="minisblack", metadata={"axes": "CYX"})
