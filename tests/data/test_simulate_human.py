"""Simulated human fields: the plan covers what the analyses need, and the pixels show what the truth says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from pci_core import recipe
from pci_core.data.simulate import FieldPlan, human
from pci_core.data.simulate.human_patterns import PATTERNS
from pci_core.data.simulate.human_proteins import MARKERS, draw_proteins
from pci_core.data.simulate.human_shapes import LINES, Scene, build_scene
from pci_core.recipe import Source

PAPER = {
    "Nucleoplasm", "Nuclear membrane", "Nucleoli", "Nucleoli rim", "Nucleoli fibrillar center", "Nuclear speckles", "Nuclear bodies",
    "Cytosol", "Endoplasmic reticulum", "Golgi apparatus", "Mitochondria", "Vesicles", "Plasma membrane", "Cell Junctions",
    "Microtubules", "Actin filaments", "Intermediate filaments", "Centrosome",
}  # fmt: skip
SOURCE = recipe.load("simulated-human").source
TRAITS = (0.5,) * 8


@pytest.fixture(scope="module")
def plans() -> list[FieldPlan]:
    return human.plan(SOURCE)


@pytest.fixture(scope="module", params=list(LINES))
def scene(request: pytest.FixtureRequest) -> Scene:
    return build_scene(LINES[request.param], np.random.default_rng(5))


def _find(plans: list[FieldPlan], location: str, variation: str = "") -> list[FieldPlan]:
    return [p for p in plans if p.meta["location"] == location and p.extra["sim_variation"] == variation]


def test_the_recipe_covers_every_location(plans: list[FieldPlan]) -> None:
    proteins = {p.meta["protein"]: p for p in plans}
    assert len(proteins) == SOURCE.proteins == 120
    locations = [p.meta["location"] for p in proteins.values()]
    assert set(PATTERNS) >= PAPER and len(PATTERNS) >= 20
    assert {x for x in locations if ";" not in x} == set(PATTERNS)
    assert {p.extra["sim_subclass"] for p in proteins.values() if p.meta["location"] == "Vesicles"} == {"even", "perinuclear", "large"}
    assert 5 <= locations.count("Nucleoli rim") <= 8
    assert locations.count("Cytosol;Nucleoplasm") >= 5 and locations.count("Nucleoli;Nucleoplasm") >= 5
    assert 0.15 <= np.mean([";" in x for x in locations]) <= 0.2
    variable = [p.extra["sim_variation"] for p in proteins.values()]
    assert {"location", "intensity"} <= set(variable) and 0.07 <= np.mean([bool(v) for v in variable]) <= 0.13
    assert {"MKI67", "NCL", "LMNB1", "GOLGA2", "TOMM20"} <= set(proteins)


def test_an_image_is_one_protein_line_antibody_and_well(plans: list[FieldPlan]) -> None:
    by_image: dict[str, list[FieldPlan]] = {}
    for p in plans:
        by_image.setdefault(p.meta["image"], []).append(p)
        assert re.fullmatch(r"\d+_[A-H]\d+_\d+_blue_red_green\.jpg", p.filename)
        assert p.meta["ensembl"] == ""
    assert len({p.filename for p in plans}) == len(plans) == 720
    assert all(len(v) == 2 and len({tuple(p.meta.items()) for p in v}) == 1 for v in by_image.values())
    wells = {(v[0].meta["plate"], v[0].meta["well"]) for v in by_image.values()}
    sorts = {(v[0].meta["protein"], v[0].meta["cell_line"], v[0].meta["antibody"]) for v in by_image.values()}
    assert len(wells) == len(sorts) == len(by_image) == 360
    antibodies = [len({s[2] for s in sorts if s[0] == name}) for name in {s[0] for s in sorts}]
    assert 0.25 < np.mean([n > 1 for n in antibodies]) < 0.65


def test_many_images_of_a_protein_stay_different() -> None:
    plans = human.plan(Source(kind="simulate", proteins=2, images_per_protein=8, fields_per_image=1))
    assert len({p.meta["image"] for p in plans}) == 16


def test_names_are_unique_and_made_up_ones_say_so() -> None:
    names = [name for name, _ in draw_proteins(600)]
    assert len(set(names)) == 600
    known = {s for symbols in MARKERS.values() for s in symbols.split()}
    assert len(known) == sum(len(s.split()) for s in MARKERS.values()), "a gene stands at two locations"
    assert all(re.fullmatch(r"SIMH\d{4}", n) for n in names if n not in known)
    assert sum(kind.terms == ("Nucleoli rim",) for _, kind in draw_proteins(600)) == 8


@pytest.mark.parametrize("line", list(LINES))
def test_pixels_agree_with_truth(plans: list[FieldPlan], line: str) -> None:
    chosen = next(p for p in plans if p.meta["cell_line"] == line)
    drawn = human.render(chosen, SOURCE)
    assert drawn.pixels.shape == (512, 512, 3) and drawn.pixels.dtype == np.uint8
    assert (~drawn.truth["sim_border"]).sum() >= 8 and len(drawn.truth) <= 80
    blue = drawn.pixels[..., 2].astype(float)
    background = np.median(blue[drawn.labels == 0])
    for row in drawn.truth.itertuples():
        mask = drawn.labels == row.sim_cell
        assert mask.sum() == row.sim_area
        assert blue[mask].mean() > background + 25, "a nucleus is no brighter than the background"
        rows, columns = np.nonzero(mask)
        assert (rows.mean(), columns.mean()) == pytest.approx((row.y, row.x))
    inside = drawn.truth[~drawn.truth["sim_border"]]
    assert np.mean([drawn.labels[round(r.y), round(r.x)] == r.sim_cell for r in inside.itertuples()]) > 0.95  # beans may miss their centre
    width = 0.32 * np.sqrt(inside["sim_area"] * 4 / np.pi)  # µm
    assert 10 < width.median() < 20


def test_the_lines_differ() -> None:
    scenes = {name: [build_scene(line, np.random.default_rng(k)) for k in range(4)] for name, line in LINES.items()}
    count = {k: np.mean([len(s) for s in v]) for k, v in scenes.items()}
    size = {k: np.mean([np.median(np.bincount(s.label.ravel())[1:]) for s in v]) for k, v in scenes.items()}
    touching = {k: np.mean([s.contact.sum() / (s.label > 0).sum() for s in v]) for k, v in scenes.items()}
    assert count["A-431"] > 2 * count["U-2 OS"]
    assert size["U-2 OS"] > 2 * size["A-431"] and size["U-2 OS"] > 1.5 * size["U-251 MG"]
    assert touching["A-431"] > 2 * touching["U-251 MG"]


def _mean(image: np.ndarray, where: np.ndarray) -> float:
    return float(image[where].mean())


def test_each_pattern_lies_where_it_should(scene: Scene) -> None:
    rng = np.random.default_rng(0)
    image = {term: pattern(scene, rng, TRAITS) for term, pattern in PATTERNS.items()}
    for term, values in image.items():
        assert values.shape == (512, 512) and values.dtype == np.float32 and np.isfinite(values).all() and values.min() >= 0, term
    nucleus, nucleolus = scene.rim > 3, scene.nucleolus > 1
    plain = nucleus & (scene.nucleolus < -3)
    cytoplasm = (scene.rim < -3) & (scene.edge > 6)
    for term in ("Nucleoplasm", "Nuclear speckles", "Nuclear bodies", "Nucleoli", "Nucleoli fibrillar center"):
        assert _mean(image[term], nucleus) > 2 * _mean(image[term], cytoplasm), term
    for term in ("Cytosol", "Mitochondria", "Endoplasmic reticulum", "Golgi apparatus", "Vesicles", "Intermediate filaments"):
        assert _mean(image[term], cytoplasm) > 1.5 * _mean(image[term], nucleus), term
    for term in ("Nucleoli", "Nucleoli fibrillar center"):
        assert _mean(image[term], nucleolus) > 2 * _mean(image[term], plain), term
    for term in ("Nucleoplasm", "Nuclear speckles"):
        assert _mean(image[term], plain) > 1.3 * _mean(image[term], nucleolus), term
    rim = image["Nucleoli rim"]
    assert _mean(rim, np.abs(scene.nucleolus - 0.3) < 0.7) > 2 * _mean(rim, scene.nucleolus > 3)
    assert _mean(rim, np.abs(scene.nucleolus - 0.3) < 0.7) > 2 * _mean(rim, plain)
    assert _mean(image["Nuclear membrane"], np.abs(scene.rim) < 1) > 3 * _mean(image["Nuclear membrane"], scene.rim > 4)
    border = (scene.cell > 0) & (scene.edge < 3.5)
    assert _mean(image["Plasma membrane"], border) > 2 * _mean(image["Plasma membrane"], scene.edge > 6)
    seam = np.repeat(np.repeat(scene.contact, 2, 0), 2, 1)
    assert _mean(image["Cell Junctions"], seam) > 3 * _mean(image["Cell Junctions"], scene.edge > 6)
    assert _mean(image["Focal adhesion sites"], (scene.edge < 10) & (scene.cell > 0)) > _mean(
        image["Focal adhesion sites"], scene.edge > 14
    )


@pytest.mark.parametrize("variation", ["", "location"])
def test_the_measured_share_follows_the_true_fraction(plans: list[FieldPlan], variation: str) -> None:
    shares, fractions = [], []
    for chosen in _find(plans, "Cytosol;Nucleoplasm", variation)[:12:2]:
        drawn = human.render(chosen, SOURCE)
        green = drawn.pixels[..., 1].astype(float)
        scene = build_scene(LINES[chosen.meta["cell_line"]], chosen.rng())
        for row in drawn.truth[~drawn.truth["sim_border"]].itertuples():
            cell = scene.cell == row.sim_cell
            shares.append(green[cell & (scene.rim > 2)].mean() / green[cell & (scene.rim < -2)].mean())
            fractions.append(row.sim_fraction)
            if variation:
                assert row.sim_phenotype == ("Nucleoplasm" if row.sim_fraction > 0.5 else "Cytosol")
    # haze, noise and cells of other sizes stand between the two: the order agrees, not the value
    assert stats.spearmanr(shares, fractions).statistic > 0.8
    if variation:
        assert 0.1 < np.mean(np.array(fractions) > 0.5) < 0.9, "only one phenotype was drawn"


def test_intensity_varies_within_a_field(plans: list[FieldPlan]) -> None:
    truth = human.render(_find(plans, "Cytosol", "intensity")[0], SOURCE).truth
    assert truth["sim_low"].any() and not truth["sim_low"].all()
    assert truth.loc[truth["sim_low"], "sim_intensity"].max() < truth.loc[~truth["sim_low"], "sim_intensity"].min()


def test_signal_strength_does_not_give_the_location_away(plans: list[FieldPlan]) -> None:
    strength = {t: [p.extra["sim_strength"] for p in _find(plans, t)] for t in PATTERNS}
    ranges = [(min(v), max(v)) for v in strength.values()]
    assert max(low for low, _ in ranges) < min(high for _, high in ranges), "two locations do not overlap in strength"


def test_the_file_is_a_jpeg_close_to_the_pixels(plans: list[FieldPlan], tmp_path: Path) -> None:
    drawn = human.render(plans[0], SOURCE)
    again = human.render(plans[0], SOURCE)
    assert np.array_equal(drawn.pixels, again.pixels) and drawn.truth.equals(again.truth)
    human.write(drawn, tmp_path / plans[0].filename)
    with Image.open(tmp_path / plans[0].filename) as image:
        assert image.format == "JPEG" and image.mode == "RGB" and image.size == (512, 512)
        error = np.abs(np.asarray(image).astype(int) - drawn.pixels).mean()
    assert error < 6  # of 255; noise is what JPEG loses
