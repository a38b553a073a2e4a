"""Simulated human fields of view in the form of the Human Protein Atlas: plan, draw, save."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pci_core.data.simulate.frame import FieldPlan, RenderedField, field_seed
from pci_core.data.simulate.human_patterns import PATTERNS, SUBCLASSES, Traits, cytosol, microtubule_map
from pci_core.data.simulate.human_proteins import Kind, draw_proteins
from pci_core.data.simulate.human_shapes import LINES, SIDE, Scene, build_scene
from pci_core.data.simulate.human_tools import grain, noise, splat
from pci_core.data.simulate.optics import blur, expose
from pci_core.recipe import Source
from pci_core.storage import atomic_path

QUALITY = 92  # of the JPEG; chroma at full resolution, as it is in an atlas image reduced to a quarter
_WELLS = [f"{row}{column}" for row in "ABCDEFGH" for column in range(1, 13)]


def plan(source: Source) -> list[FieldPlan]:
    """List the fields of a screen: proteins x images (cell line and antibody) x fields.

    Parameters
    ----------
    source : Source
        ``proteins``, ``images_per_protein`` (cell lines first, then further antibodies),
        ``fields_per_image`` and ``seed``.

    Returns
    -------
    list of FieldPlan
        Fields of one image next to each other; each image has a well of its own.
    """
    proteins = draw_proteins(source.proteins)
    images = [(name, kind, k) for name, kind in proteins for k in range(source.images_per_protein)]
    # wells in random order, so that a plate (its light, its stain) says nothing about the location
    wells = np.random.default_rng(np.random.SeedSequence([source.seed, 1])).permutation(len(images))
    numbers = {name: i for i, (name, _) in enumerate(proteins)}
    plans = []
    for (name, kind, k), well in zip(images, wells, strict=True):
        rng = np.random.default_rng(field_seed(source.seed, f"protein {name}"))
        traits = [float(v) for v in rng.random(8).round(4)]
        mean_fraction = float(rng.uniform(0.15, 0.85).__round__(3))
        antibodies = max(1 + int(rng.random() < 0.45), -(-source.images_per_protein // len(LINES)))
        antibody = (k % len(LINES) + k // len(LINES)) % antibodies
        line = list(LINES)[k % len(LINES)]
        antibody_id = f"SIMA{numbers[name]:04d}{'abcdefghijklmnopqrstuvwxyz'[antibody % 26]}{antibody // 26 or ''}"
        stain = np.random.default_rng(field_seed(source.seed, f"antibody {antibody_id}"))
        plate, position = str(1 + int(well) // len(_WELLS)), _WELLS[int(well) % len(_WELLS)]
        meta = {
            "image": f"{name}_{antibody_id}_{line.replace(' ', '-')}",
            "protein": name,
            "ensembl": "",
            "antibody": antibody_id,
            "cell_line": line,
            "location": ";".join(kind.terms),
            "plate": plate,
            "well": position,
        }
        extra: dict[str, Any] = {
            "kind": dataclasses.asdict(kind),
            "traits": traits,
            "mean_fraction": mean_fraction,
            "sim_location": ";".join(kind.terms),
            "sim_subclass": kind.subclass,
            "sim_variation": kind.variation,
            "sim_strength": round(float(np.clip(stain.lognormal(-0.45, 0.5), 0.2, 1.6)), 3),
            "sim_haze": round(float(np.clip(stain.lognormal(-2.4, 0.8), 0.01, 0.35)), 3),
        }
        for number in range(1, source.fields_per_image + 1):
            field = f"{plate}_{position}_{number}"
            plans.append(FieldPlan(field, f"{field}_blue_red_green.jpg", meta, field_seed(source.seed, field), extra))
    return plans


def render(plan: FieldPlan, source: Source) -> RenderedField:
    """Draw one field.

    Parameters
    ----------
    plan : FieldPlan
        From `plan`.
    source : Source
        The same as for `plan`.

    Returns
    -------
    RenderedField
        ``pixels`` (512, 512, 3) uint8, red microtubules, green protein, blue nucleus; ``labels`` the nuclei;
        ``truth`` one row for each nucleus that is visible at least in part.
    """
    rng = plan.rng()
    scene = build_scene(LINES[plan.meta["cell_line"]], rng)
    n = len(scene)
    kind = Kind(**plan.extra["kind"])
    psf = float(rng.uniform(0.45, 0.95))
    focus = np.where(rng.random(n) < 0.07, rng.uniform(1.6, 3.2, n), 0.0)  # px of further blur

    tubules = blur(microtubule_map(scene, rng), psf)
    protein, cells = _protein(scene, kind, plan.extra, rng, psf)
    dna = blur(_dna(scene, rng), psf)
    for i in np.flatnonzero(focus):
        _defocus((tubules, protein, dna), scene, int(i), float(focus[i]))

    green = protein * np.float32(plan.extra["sim_strength"])
    haze = cytosol(scene, rng, (0.8, 0.5, 0.6, 0.9, 0.3, 0.5)) + 0.6 * scene.nucleus
    green += blur(haze * grain(rng, 0.35), psf) * np.float32(plan.extra["sim_haze"] * plan.extra["sim_strength"])
    red = tubules * np.float32(rng.uniform(0.55, 1.1) / scene.peak(tubules)) * scene.spread(rng.lognormal(0, 0.25, n))
    green += red * np.float32(rng.uniform(0, 0.02)) + dna * np.float32(rng.uniform(0, 0.03))
    green += _debris(rng, psf)

    light = np.random.default_rng(field_seed(source.seed, f"plate {plan.meta['plate']}")).uniform(0.04, 0.16)
    offset = float(rng.uniform(0.002, 0.02))
    first = expose(red, rng, blur_px=0, background=offset, photons=rng.uniform(400, 1200), read_noise=0.008, illumination=light)
    photons = float(rng.uniform(120, 900))
    channels = [
        first,
        expose(green, rng, blur_px=0, background=offset, photons=photons, read_noise=0.009, illumination=light),
        expose(dna, rng, blur_px=0, background=offset, photons=rng.uniform(200, 500), read_noise=0.008, illumination=light),
    ]
    pixels = np.clip(np.stack(channels, axis=-1) * 255 + 0.5, 0, 255).astype(np.uint8)
    camera = {"sim_background": offset, "sim_photons": photons, "sim_light": float(light), "sim_blur": psf}  # of the protein's plane
    return RenderedField(pixels, _truth(plan, scene, cells | {"sim_focus": focus} | camera), scene.nuclei.astype(np.uint16))


def write(rendered: RenderedField, path: str | os.PathLike[str]) -> None:
    """Save the pixels as an RGB JPEG, as the Human Protein Atlas serves its composites, whole or not at all."""
    with atomic_path(path) as temporary:
        Image.fromarray(rendered.pixels).save(temporary, format="JPEG", quality=QUALITY, subsampling="4:4:4")


def _draw(scene: Scene, term: str, subclass: str, rng: np.random.Generator, traits: Traits) -> np.ndarray:
    pattern = SUBCLASSES[term][subclass] if subclass else PATTERNS[term]
    return pattern(scene, rng, traits)


def _protein(scene: Scene, kind: Kind, extra: dict[str, Any], rng: np.random.Generator, psf: float) -> tuple[np.ndarray, dict[str, Any]]:
    """Draw the protein: (SIDE, SIDE) float32 with a typical cell's brightest pixel at 1, and the truth per cell."""
    n, terms = len(scene), kind.terms
    traits = np.clip(np.array(extra["traits"]) + rng.normal(0, 0.06, 8), 0, 1).tolist()
    parts = [blur(_draw(scene, term, kind.subclass, rng, traits), psf) for term in terms]
    phenotype = np.full(n, terms[0], dtype=object)
    fraction = np.full(n, np.nan)
    image = parts[0]
    if len(terms) == 2:
        if kind.variation == "location":
            second = rng.random(n) < 0.25 + 0.5 * extra["mean_fraction"]
            wanted = np.where(second, rng.beta(14, 1.6, n), rng.beta(1.6, 14, n))
        else:
            mean = extra["mean_fraction"]
            wanted = rng.beta(12 * mean, 12 * (1 - mean), n)
        first, other = scene.total(parts[0]), scene.total(parts[1])
        both = (first > 0) & (other > 0)
        wanted = np.where(both, wanted, np.where(first > 0, 0.0, 1.0))
        unit = np.median((first + other)[both]) if both.any() else 1.0
        image = parts[0] * scene.spread(unit * (1 - wanted) / np.maximum(first, 1e-6))
        image += parts[1] * scene.spread(unit * wanted / np.maximum(other, 1e-6))
        fraction = wanted
        if kind.variation == "location":
            phenotype = np.where(wanted > 0.5, terms[1], terms[0])
        else:
            phenotype[:] = ";".join(terms)
    level, low = rng.lognormal(0, 0.18, n), np.zeros(n, bool)
    if kind.variation == "intensity":
        low = rng.random(n) < 0.25 + 0.5 * extra["mean_fraction"]
        level = level * np.where(low, rng.uniform(0.04, 0.25, n), 1.0)
    image = image * np.float32(1 / scene.peak(image)) * scene.spread(level)
    return image, {"sim_fraction": fraction, "sim_phenotype": phenotype, "sim_intensity": level, "sim_low": low}


def _dna(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    scale, depth = scene.line.chromatin
    texture = 1 + np.float32(depth) * noise(rng, scale) + np.float32(0.08) * noise(rng, 1.2)
    dome = np.clip(0.55 + scene.rim / 14, 0, 1)  # flat on top, thinner towards the edge
    spared = 1 - np.float32(rng.uniform(0.45, 0.8)) * np.clip(0.5 + scene.nucleolus / 2.2, 0, 1)
    level = rng.uniform(0.35, 0.75) * rng.lognormal(0, 0.22, len(scene))
    out: np.ndarray = scene.nucleus * np.maximum(texture, 0.15) * dome * spared * scene.spread(level)
    return out


def _defocus(images: tuple[np.ndarray, ...], scene: Scene, i: int, sigma: float) -> None:
    """Blur one cell in place, in a window around it."""
    rows, columns = np.nonzero(scene.label == i + 1)
    if not len(rows):
        return
    pad = int(3 * sigma) + 1
    window = tuple(slice(max(2 * int(v.min()) - pad, 0), 2 * int(v.max()) + 2 + pad) for v in (rows, columns))
    mask = blur((scene.cell[window] == i + 1).astype(np.float32), 1.0)
    for image in images:
        image[window] += mask * (blur(image[window], sigma) - image[window])


def _debris(rng: np.random.Generator, psf: float) -> np.ndarray:
    """Specks of antibody on the glass."""
    number = rng.poisson(6)
    return blur(splat(rng.uniform(0, SIDE, number), rng.uniform(0, SIDE, number), rng.lognormal(0.3, 0.8, number)), psf + 0.3)


def _truth(plan: FieldPlan, scene: Scene, cells: dict[str, Any]) -> pd.DataFrame:
    index = np.flatnonzero(scene.nuclei)
    flat = scene.nuclei.ravel()[index]
    area = np.bincount(flat, minlength=len(scene) + 1)[1:]
    seen = np.flatnonzero(area > 0)
    with np.errstate(invalid="ignore"):
        y = np.bincount(flat, weights=index // SIDE, minlength=len(scene) + 1)[1:] / area
        x = np.bincount(flat, weights=index % SIDE, minlength=len(scene) + 1)[1:] / area
    frame = np.concatenate([scene.nuclei[[0, -1]].ravel(), scene.nuclei[:, [0, -1]].ravel()])
    cut = np.isin(np.arange(1, len(scene) + 1), frame)
    table = pd.DataFrame({"field": plan.field, "y": y, "x": x, "sim_cell": np.arange(1, len(scene) + 1)})
    for name in ("sim_location", "sim_subclass", "sim_variation", "sim_strength", "sim_haze"):
        table[name] = plan.extra[name]
    table = table.assign(**cells, sim_cell_line=plan.meta["cell_line"], sim_area=area, sim_border=cut)
    return table.iloc[seen].reset_index(drop=True)
