"""Folders of fields named as a source hands them out: what fits becomes a field table, what does not is listed with its count."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pci_core import recipe
from pci_core.data import sources
from pci_core.data.folder import describe_layout, folder_fields, survey
from pci_core.data.folder_layout import join_key, with_well
from pci_core.data.simulate import plan_fields, simulate
from pci_core.errors import CellTableError, ImageError, RecipeError
from pci_core.imaging.build import build_cells
from pci_core.imaging.read import read_field
from pci_core.recipe import Recipe

SCREENS = ("cyclops", "nop1pr", "nup49")
Touch = Callable[..., Recipe]


@pytest.fixture
def touch(tmp_path: Path) -> Touch:
    """Make empty files and return the recipe that reads their folder."""

    def make(*paths: str, name: str = "cyclops", names: str = "") -> Recipe:
        root = tmp_path / "data"
        root.mkdir(exist_ok=True)
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
        if names:
            (root / "names.csv").write_text(names)
        return sources.with_path(recipe.load(name), root)

    return make


def both(stem: str, *channels: str) -> list[str]:
    return [f"{stem}_{c}.tif" for c in channels or ("gfp", "rfp")]


# --- the embedded recipes


def test_recipes_hold_the_numbers_of_the_paper() -> None:
    for name in SCREENS:
        spec = recipe.load(name)
        assert (spec.crop.size, spec.crop.min_fraction, spec.crop.max_fraction, spec.crop.min_cells) == (64, 0.05, 0.95, 30)
        assert (spec.preprocess.protein, spec.preprocess.structural) == ("minmax", "minmax")
        assert spec.fields.um_per_px == 0.0  # the paper does not say
    hpa = recipe.load("hpa")
    # 512 px and 400 px at full size, segmented at a quarter of it
    assert (hpa.crop.size * hpa.fields.downscale, hpa.segmentation.min_area * hpa.fields.downscale**2, hpa.crop.min_cells) == (512, 400, 5)
    assert (hpa.preprocess.structural, hpa.preprocess.floor) == ("clip", 0.05)
    for name in (*SCREENS, "hpa", "chong"):
        t = recipe.load(name).training
        assert (t.epochs, t.batch_size, t.learning_rate, t.width, t.holdout) == (30, 64, 1e-4, 1.0, 0.0)


@pytest.mark.parametrize("name", SCREENS)
def test_examples_are_what_the_patterns_read(name: str, touch: Touch) -> None:
    spec = recipe.load(name)
    lines = describe_layout(spec)  # the folder is not there: what is expected, and nothing found
    assert all(any(e in line for line in lines) for e in spec.source.examples) and not any("found" in line for line in lines)
    assert {survey(touch(e, name=name)).unmatched == [] for e in spec.source.examples} == {True}
    assert spec.source.note and spec.credit and spec.licence


@pytest.mark.parametrize(
    ("name", "marker", "stem"),
    [
        ("cyclops", "rfp", "plate01/{well}_{field}"),
        ("nop1pr", "bf", "{protein}/{protein}_{field}"),
        ("nup49", "RFP", "out/p1/{well}_{field}"),
    ],
)
def test_fields_laid_out_as_in_the_screens_become_cells(name: str, marker: str, stem: str, tmp_path: Path) -> None:
    modality = {"cyclops": "rfp", "nop1pr": "brightfield", "nup49": "nup49"}[name]
    source = recipe.load("simulated-yeast").replace(source={"modality": modality, "fields_per_image": 2, "proteins": 17}).source
    plans = [p for p in plan_fields(source) if p.meta["image"] in {q.meta["image"] for q in plan_fields(source)[:3]}]
    simulate(source, tmp_path / "drawn", jobs=1, progress=False, plans=plans)
    root = tmp_path / "data"
    proteins = list(dict.fromkeys(p.meta["protein"] for p in plans))
    for plan in plans:
        field = tifffile.imread(tmp_path / "drawn" / "images" / plan.filename)
        i = proteins.index(plan.meta["protein"])
        number = 1 + [p for p in plans if p.meta["image"] == plan.meta["image"]].index(plan)
        path = root / stem.format(well=f"B{i + 2:02d}", protein=f"YAL00{i}C", field=number)
        path.parent.mkdir(parents=True, exist_ok=True)
        for channel, plane in zip(("GFP" if marker == "RFP" else "gfp", marker), field, strict=True):
            tifffile.imwrite(path.with_name(f"{path.name}_{channel}.tif"), plane)
    (root / "names.csv").write_text("well,protein,location\n" + "".join(f"B{i + 2},{p},somewhere\n" for i, p in enumerate(proteins)))
    if "protein" in stem:
        (root / "names.csv").write_text("Protein,Location\n" + "".join(f"YAL00{i}C,somewhere\n" for i in range(len(proteins))))
    spec = sources.with_path(recipe.load(name), root)
    table, base = sources.field_table(spec)
    assert len(table) == len(plans) and table["image"].nunique() == 2 and set(table["location"]) == {"somewhere"}
    cells = build_cells(table, base, spec, tmp_path / "cells", jobs=1, progress=False)
    assert [c.name for c in cells.channels] == [c.name for c in spec.channels] and cells.crops.shape[1:] == (2, 64, 64)
    assert len(cells) >= 60 and cells.table["image"].nunique() == 2
    assert set(cells.table["protein"]) == ({f"YAL00{i}C" for i in range(2)} if "protein" in stem else set(proteins))
    assert cells.info["left_out"]["files_not_matched"]["files"] == 0 and cells.info["left_out"]["min_cells"] == 30
    assert cells.um_per_px is None


# --- what becomes a field


def test_wells_by_row_and_column_and_a_table_of_names(touch: Touch) -> None:
    names = "Plate,Well,ORF,Protein,Location\nPLATE01,G20,YAL001C,TFC3,nucleus\n"
    names += "plate01,H1,YAL002W,VPS8,endosome\nplate01,P24,YAL003W,EFB1,cytosol\n"
    spec = touch(*both("plate01/007020000_1"), *both("plate01/007020000_2"), *both("plate01/H01_1"), *both("plate01/C03_1"), names=names)
    table, root = folder_fields(spec)
    assert root == (spec.source_path).resolve()
    assert sorted(table["field"]) == ["plate01_C03_1", "plate01_G20_1", "plate01_G20_2", "plate01_H01_1"]
    by = table.set_index("field")
    assert by.loc["plate01_G20_2", ["image", "protein", "orf", "location", "path_gfp"]].tolist() == [
        "plate01_G20", "TFC3", "YAL001C", "nucleus", "plate01/007020000_2_gfp.tif"
    ]  # fmt: skip
    assert by.loc["plate01_H01_1", "protein"] == "VPS8"
    left = table.attrs["left_out"]
    assert left["images_without_protein"] == left["images_without_names_row"] == ["plate01_C03"]
    assert left["names_rows_without_files"] == ["plate01 p24"]


def test_what_does_not_fit_is_listed_and_counted(touch: Touch) -> None:
    spec = touch(
        *both("AAC1/AAC1_1"), *both("AAC1/AAC1_2", "gfp"), *both("AAC3/AAC3_1", "rfp"), *both("AAH1/AAH1_10"), *both("AAH1/AAH1_2"),
        "readme.txt", "AAC1/AAC1_1_dapi.tif", "AAC1/overview.jpg", "deep/er/notes.txt",
    )  # fmt: skip
    table, _ = folder_fields(spec)
    assert table["field"].tolist() == ["AAC1_1", "AAH1_2", "AAH1_10"] and table["image"].tolist() == ["AAC1", "AAH1", "AAH1"]
    left = table.attrs["left_out"]
    assert left["fields_lacking_channels"] == {"AAC1_2": ["rfp"], "AAC3_1": ["gfp"]}
    assert left["files_not_matched"]["by_suffix"] == {".txt": 2, ".tif": 1, ".jpg": 1}
    text = "\n".join(describe_layout(spec))
    for part in (
        "6 files of 3 fields of view of 2 images",
        "2 fields that lack a channel",
        "AAC1_2 (no rfp)",
        "4 files (2 .txt",
        "readme.txt",
    ):
        assert part in text, text


def test_a_channel_that_the_recipe_lacks_is_counted(touch: Touch, tmp_path: Path) -> None:
    wider = touch(*both("AAC1/AAC1_1", "gfp", "rfp", "dapi")).replace(
        source={"layout": ("(?:.+/)?(?P<protein>[^/_]+)_(?P<field>\\d+)_(?P<channel>\\w+)\\.tif",), "examples": ()}
    )
    found = survey(wider)
    assert found.other_channels == {"dapi": 1} and len(found.fields) == 1
    assert "dapi (1 files)" in "\n".join(describe_layout(wider))


def test_fields_of_one_file_after_the_other(tmp_path: Path) -> None:
    root = tmp_path / "flex"
    (root / "plate01").mkdir(parents=True)
    pages = np.random.default_rng(0).integers(0, 4000, (8, 20, 24)).astype(np.uint16)
    with tifffile.TiffWriter(root / "plate01" / "007020000.flex") as tiff:
        for page in pages:  # as a microscope writes it: one page after the other, GFP and RFP in turn
            tiff.write(page, photometric="minisblack", contiguous=False)
    spec = sources.with_path(recipe.load("cyclops"), root).replace(
        fields={"format": "stack", "order": ("gfp", "rfp")},
        source={
            "layout": (r"(?:.+/)?(?P<plate>[^/]+)/(?P<row>\d{3})(?P<column>\d{3})\d{3}\.flex",), "examples": ("plate01/007020000.flex",),
            "channels": (), "fields_per_file": 4,
        },
    )  # fmt: skip
    table, base = folder_fields(spec)
    assert table["field"].tolist() == [f"plate01_G20_{i}" for i in (1, 2, 3, 4)] and set(table["image"]) == {"plate01_G20"}
    for i, row in enumerate(table.to_dict("records")):
        np.testing.assert_array_equal(read_field({str(k): v for k, v in row.items()}, spec, base), pages[2 * i : 2 * i + 2])
    short = spec.replace(source={"fields_per_file": 5})
    last = folder_fields(short)[0].to_dict("records")[-1]
    with pytest.raises(ImageError, match="pages 9 to 10 are needed"):
        read_field({str(k): v for k, v in last.items()}, short, base)


def test_a_linked_folder_is_not_entered(touch: Touch) -> None:
    spec = touch(*both("AAC1/AAC1_1"))
    (spec.source_path / "AAC1" / "loop").symlink_to(spec.source_path, target_is_directory=True)
    assert len(survey(spec).fields) == 1


def test_a_run_makes_cells_again_when_the_table_of_names_changes(touch: Touch) -> None:
    spec = touch(*both("plate01/A01_1"), names="plate,well,protein\nplate01,A1,AAC1\n")
    first = folder_fields(spec)[0]
    (spec.source_path / "names.csv").write_text("plate,well,protein\nplate01,A1,AAC3\n")
    assert first["protein"].tolist() == ["AAC1"] and folder_fields(spec)[0]["protein"].tolist() == ["AAC3"]


def test_wells_and_keys() -> None:
    assert with_well({"row": "007", "column": "020"})["well"] == "G20" and with_well({"row": "B", "column": "3"})["well"] == "B03"
    assert with_well({"row": "27", "column": "1"})["well"] == "AA01" and "well" not in with_well({"plate": "x"})
    assert join_key({"plate": "007", "well": "a01"}, ["plate", "well"]) == join_key({"plate": "7", "well": "A1"}, ["plate", "well"])
    assert join_key({"protein": "AC01"}, ["protein"]) != join_key({"protein": "AC1"}, ["protein"])


def test_a_hundred_thousand_files_are_looked_through_in_seconds(touch: Touch, monkeypatch: pytest.MonkeyPatch) -> None:
    wells = [f"{r}{c:02d}" for r in "ABCDEFGHIJKLMNOP" for c in range(1, 25)]
    paths = [f"plate{p:02d}/{w}_{f}_{ch}.tif" for p in range(33) for w in wells for f in range(1, 5) for ch in ("gfp", "rfp")]
    monkeypatch.setattr("pci_core.data.folder.walk", lambda root, skip: paths)  # the disk is not what is measured
    spec = touch()
    began = time.process_time()
    found = survey(spec)
    assert (found.files, len(found.fields), len(found.images)) == (101_376, 50_688, 12_672)
    assert time.process_time() - began < 20  # 3 s where it was written; a quadratic step would take minutes


# --- bad input


def test_nothing_there_and_nothing_that_fits(touch: Touch, tmp_path: Path) -> None:
    spec = touch("images/0001.tif", "images/0002.tif")
    with pytest.raises(CellTableError, match=r"(?s)plate01/G20_1_gfp\.tif.*2 files \(2 \.tif\): images/0001\.tif") as caught:
        folder_fields(spec)
    assert "--data" in str(caught.value)
    with pytest.raises(CellTableError, match="is not there"):
        folder_fields(sources.with_path(spec, tmp_path / "none"))


def test_doubled_and_mixed_files(touch: Touch) -> None:
    with pytest.raises(CellTableError, match=r"AAC1_1_gfp\.tif and .*AAC1_1_gfp\.tif"):
        survey(touch("one/AAC1_1_gfp.tif", "two/AAC1_1_gfp.tif"))


def test_one_name_for_two_fields(touch: Touch) -> None:
    with pytest.raises(CellTableError, match="stand for more than one"):  # the well of both is G20
        survey(touch(*both("plate01/007020000_1"), *both("plate01/G20_1")))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("gene,place\nx,y\n", "no column to join by"),
        ("plate,well,protein\nplate01,A1,AAC1\nplate01,A01,AAC3\n", "different things of plate plate01, well A01"),
        ("well,protein\nA1,AAC1\n", "no column 'plate'"),
        ("plate,well,image\nplate01,A1,AAC1\n", "meaning of their own"),
        ("plate,well\nplate01,A1,AAC1\n", "3 values, the header 2"),
        ("plate,well\nplate01,A1\nplate01,A1,AAC1\n", "cannot be read"),
    ],
)
def test_tables_of_names_that_do_not_fit(touch: Touch, names: str, message: str) -> None:
    spec = touch(*both("plate01/A01_1"), *both("plate02/A01_1"), names=names)
    with pytest.raises(CellTableError, match=message):
        survey(spec)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"layout": ()}, "needs 'layout'"),
        ({"layout": ("(?P<well>",)}, "no regular expression"),
        ({"layout": (r"(?P<field>\d+)_(?P<channel>\w+)",)}, "neither a well"),
        ({"layout": (r"(?P<well>\w+)",)}, "needs the group"),
        ({"layout": (r"(?P<well>\w+)_(?P<channel>\w+)_(?P<image>\d)",)}, "meaning of its own"),
        ({"channels": ("gfp",)}, "each of the 2 channels"),
        ({"channels": ("gfp", "GFP|rfp")}, "a word twice"),
        ({"examples": ("nothing.tif",)}, "'examples' must name"),
        ({"fields_per_file": 4}, "format = 'stack'"),
    ],
)
def test_recipes_that_contradict_themselves(touch: Touch, source: dict[str, object], message: str) -> None:
    spec = touch(*both("plate01/A01_1")).replace(source={"examples": (), **source})
    with pytest.raises(RecipeError, match=message):
        survey(spec)


def test_left_out_files_stand_in_the_dataset(own_recipe: Path) -> None:
    text = (
        own_recipe.read_text()
        .replace('kind = "table"', 'kind = "folder"')
        .replace('path = "fields.csv"', "path = \".\"\nlayout = ['(?P<protein>i\\d)_f(?P<field>\\d)\\.tif']")
    )
    own_recipe.write_text(
        text.replace('method = "labels"', 'method = "nuclei"\nchannel = "marker"').replace("min_cells = 2", "min_cells = 1")
    )
    spec = recipe.load(own_recipe)
    cells = build_cells(*folder_fields(spec), spec, own_recipe.parent / "cells", jobs=1, progress=False)
    left = json.loads((own_recipe.parent / "cells" / "dataset.json").read_text())["left_out"]
    assert left["files_not_matched"]["by_suffix"] == {".tif": 8, ".csv": 1, ".toml": 1} and len(cells) > 0
