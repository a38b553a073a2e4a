"""The yeast simulator: what a plan holds, what a field looks like, and that both follow from the seed alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from pci_core import recipe
from pci_core.data.simulate import simulate, yeast
from pci_core.data.simulate.frame import META, FieldPlan, RenderedField
from pci_core.data.simulate.yeast_patterns import PATTERNS
from pci_core.data.simulate.yeast_proteins import CLASSES, MARKERS, PARTNERS, PHENOTYPES, TWO, draw_proteins
from pci_core.data.simulate.yeast_shapes import Window, grow, place
from pci_core.errors import PCIError, UnknownNameError
from pci_core.recipe import Source

SOURCE = Source(kind="simulate", organism="yeast", modality="rfp", proteins=68, fields_per_image=2, seed=3)


@pytest.fixture(scope="module")
def plans() -> list[FieldPlan]:
    return yeast.plan(SOURCE)


def of_kind(plans: list[FieldPlan], kind: str) -> FieldPlan:
    return next(p for p in plans if p.extra["sim_kind"] == kind)


def render(plan: FieldPlan, modality: str = "rfp") -> RenderedField:
    return yeast.render(plan, replace(SOURCE, modality=modality))


def test_all_17_classes_have_markers_partners_and_a_pattern() -> None:
    assert len(CLASSES) == 17
    assert set(PATTERNS) == set(PARTNERS) == set(CLASSES)
    assert {p for partners in PARTNERS.values() for p in partners} <= set(CLASSES)
    names = [n for markers in MARKERS.values() for n in markers]
    assert len(names) == len(set(names))


def test_plan_has_the_columns_and_unique_fields(plans: list[FieldPlan]) -> None:
    assert len(plans) == 136
    assert len({p.field for p in plans}) == len({p.filename for p in plans}) == len({p.seed for p in plans}) == 136
    assert all(set(p.meta) == set(META) for p in plans)
    table = pd.DataFrame([p.meta for p in plans])
    assert set(";".join(table["location"]).split(";")) == set(CLASSES)
    assert (table.groupby("image")["well"].nunique() == 1).all()
    assert not table.drop_duplicates("image")[["plate", "well"]].duplicated().any()


def test_more_images_a_protein_are_images_of_their_own() -> None:
    plans = yeast.plan(replace(SOURCE, proteins=17, images_per_protein=2))
    assert len({p.meta["image"] for p in plans}) == 34
    assert len({p.meta["protein"] for p in plans}) == 17


def test_shares_of_the_kinds_and_who_carries_a_real_name() -> None:
    proteins = draw_proteins(68, 0)
    kinds = pd.Series([p.kind for p in proteins]).value_counts()
    assert kinds[TWO] == 10  # 15 % of 68
    assert kinds[PHENOTYPES] + kinds["two levels"] == 7  # 10 %
    assert len({p.name for p in proteins}) == 68
    for p in proteins:
        assert p.name.startswith("SIMY") == (p.kind != "one location")
        assert bool(p.second) == (p.kind in (TWO, PHENOTYPES))
    brightness = np.array([p.brightness for p in proteins])
    assert brightness.max() / brightness.min() > 8  # an order of magnitude: drawn log-uniform over 12.5


def test_a_field_is_two_planes_of_16_bit_with_enough_cells(plans: list[FieldPlan]) -> None:
    field = render(plans[0])
    assert field.pixels.shape == (2, 512, 512)
    assert field.pixels.dtype == np.uint16
    assert field.labels.shape == (512, 512)
    assert field.labels.dtype == np.uint16
    truth = field.truth
    assert 25 <= len(truth) <= 80
    assert truth["sim_cell"].is_unique
    y, x = truth["y"].round().astype(int), truth["x"].round().astype(int)
    assert (field.labels[y, x] == truth["sim_cell"]).all()  # a centre lies in its own label
    # The marker fills the cells. The factor 3 is far below what is drawn (about 8), far above 1.
    inside, outside = field.pixels[1][field.labels > 0], field.pixels[1][field.labels == 0]
    assert np.median(inside) - yeast.OFFSET > 3 * (np.median(outside) - yeast.OFFSET)


def test_cells_are_as_large_as_in_the_real_crops() -> None:
    cells = [c for seed in range(6) for c in place((512, 512), np.random.default_rng(seed))]
    diameter = 2 * np.array([c.mother.radius for c in cells])
    # Median of the authors' yeast crops: 35 px, where 64 px hold an average cell; blur adds a little to a drawn body.
    assert 33 < np.median(diameter) < 43
    budded = np.mean([c.bud is not None for c in cells])
    assert 0.45 < budded < 0.75  # drawn at 0.6 of the cells, of about 340


def test_cells_touch_but_do_not_lie_on_one_another() -> None:
    cells = place((512, 512), np.random.default_rng(0))
    bodies = [(i, b) for i, c in enumerate(cells) for b in c.bodies]
    gaps = [np.hypot(a.y - b.y, a.x - b.x) - a.radius - b.radius for i, a in bodies for j, b in bodies if i < j]
    assert min(gaps) >= -1.5 - 1e-9
    assert sum(g < 3 for g in gaps) > 5


def test_cells_and_protein_are_the_same_in_the_three_modalities(plans: list[FieldPlan]) -> None:
    fields = [render(plans[10], m) for m in yeast.MODALITIES]
    for other in fields[1:]:
        assert np.array_equal(fields[0].pixels[0], other.pixels[0])
        assert np.array_equal(fields[0].labels, other.labels)
        pd.testing.assert_frame_equal(fields[0].truth, other.truth)
        assert not np.array_equal(fields[0].pixels[1], other.pixels[1])


def test_brightfield_is_grey_with_a_rim_and_nup49_is_in_the_nucleus(plans: list[FieldPlan]) -> None:
    bright, pores = render(plans[10], "brightfield"), render(plans[10], "nup49")
    grey = (np.median(bright.pixels[1]) - yeast.OFFSET) / yeast.GAIN
    assert 0.4 < grey < 0.6  # 0.5 under uneven light of 6 %
    # A ring of 6 px around a nucleus is a small part of the cell: the brightest 5 % of the pixels inside stand out.
    inside = pores.pixels[1][pores.labels > 0] - yeast.OFFSET
    assert np.percentile(inside, 98) > 4 * np.median(inside)


@pytest.mark.parametrize("name", CLASSES)
def test_a_pattern_stays_in_the_cell_and_is_finite(name: str) -> None:
    rng = np.random.default_rng(5)
    style = draw_proteins(17, 0)[0].style
    texture = rng.standard_normal(yeast.CANVAS, dtype=np.float32)
    shown = 0
    for cell in place((512, 512), rng)[:30]:
        w = Window(cell, texture)
        image = PATTERNS[name](w, rng, style)
        if image is None or not image.any():
            continue
        shown += 1
        assert image.shape == w.depth.shape
        assert np.isfinite(image).all()
        assert image.min() >= 0
        # spots have tails: 3 px around the cell hold all but a tenth of the light
        assert image[w.depth > -3].sum() > 0.9 * image.sum()
    assert shown >= 8  # the rarest, bud tip, is in about half of the cells


def test_two_locations_have_a_fraction_and_phenotypes_a_second_location(plans: list[FieldPlan]) -> None:
    plan = of_kind(plans, TWO)
    truth = render(plan).truth
    assert (truth["sim_location"] == plan.meta["location"]).all()
    assert truth["sim_fraction"].between(0, 1).all()
    # Beta with 12 pseudo-counts: sd of a cell <= 0.14, of the mean of 25 cells <= 0.03; 0.15 is five of them
    assert abs(truth["sim_fraction"].mean() - plan.extra["sim_mean"]) < 0.15
    assert truth["sim_fraction"].std() > 0.03
    plan = of_kind(plans, PHENOTYPES)
    truth = render(plan).truth
    alive = truth[truth["sim_phenotype"] != "dead"]
    assert set(alive["sim_location"]) == set(plan.meta["location"].split(";"))
    assert (alive.loc[alive["sim_phenotype"] == "second", "sim_location"] == plan.meta["location"].split(";")[1]).all()


def test_bud_neck_is_diffuse_in_unbudded_cells_only() -> None:
    plan = next(p for p in yeast.plan(SOURCE) if p.meta["location"] == "bud neck")
    truth = pd.concat([render(plan).truth, render(replace(plan, seed=1)).truth])
    assert set(truth.loc[truth["sim_phenotype"] == "diffuse", "sim_phase"]) == {"unbudded"}


def test_same_bytes_for_one_and_two_workers_and_other_seed_other_cells(tmp_path: Path) -> None:
    source = replace(SOURCE, proteins=9, fields_per_image=1)
    for jobs in (1, 2):
        simulate(source, tmp_path / str(jobs), jobs=jobs, labels=True, progress=False)
    one, two = ({p.name: p.read_bytes() for p in sorted((tmp_path / j).rglob("*.*")) if p.is_file()} for j in "12")
    assert len(one) == 9 * 2 + 2  # images, labels, two tables
    assert one == two
    plan, again = yeast.plan(source)[0], yeast.plan(replace(source, seed=4))[0]
    assert plan.seed != again.seed
    assert not np.array_equal(render(plan).labels, render(again).labels)


def test_written_field_reads_back(tmp_path: Path, plans: list[FieldPlan]) -> None:
    field = render(plans[3])
    yeast.write(field, tmp_path / "a.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), field.pixels)
    with tifffile.TiffFile(tmp_path / "a.tif") as handle:
        assert len(handle.pages) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_unknown_modality_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean brightfield"):
        yeast.plan(replace(SOURCE, modality="brightfeld"))
    assert issubclass(UnknownNameError, PCIError)


@pytest.mark.parametrize(
    ("name", "modality"), [("simulated-yeast", "rfp"), ("simulated-yeast-brightfield", "brightfield"), ("simulated-yeast-nup49", "nup49")]
)
def test_recipes_of_the_three_modalities(name: str, modality: str) -> None:
    found = recipe.load(name)
    assert found.source.modality == modality
    assert [c.name for c in found.channels] == ["protein", modality]
    assert found.segmentation.channel == modality
    assert found.fields.order == ("protein", modality)
    assert found.simulated


def test_a_cell_cut_by_the_border_is_drawn_as_in_the_middle() -> None:
    # brightness is scaled over the whole cell; scaled over the visible part, a spot outside would make the rest glare
    texture = np.zeros(yeast.CANVAS, np.float32)
    for protein in draw_proteins(17, 0):
        drawn = []
        for y in (256, -10):
            cell = grow(np.random.default_rng(1))
            cell.shift(y, 256)
            image, _ = yeast._protein_signal(Window(cell, texture), protein, np.random.default_rng(2))
            drawn.append(image)
        assert drawn[0].shape == drawn[1].shape
        assert drawn[0].max() == pytest.approx(drawn[1].max(), rel=0.02)  # float32 coordinates differ in the last digits
