"""From a field table to a CellDataset: contents, what is left out, truth, workers, errors."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile

from pci_core import recipe as recipes
from pci_core.cells import CellDataset
from pci_core.errors import CellTableError, DatasetError, ImageError, RecipeError
from pci_core.imaging.build import build_cells, match_truth

CENTRES = [(24, 24), (24, 70), (70, 24), (72, 72)]


def make_recipe(**sections: Any) -> recipes.Recipe:
    content: dict[str, Any] = {
        "name": "made-up",
        "title": "t",
        "channels": [{"name": "protein", "role": "protein"}, {"name": "nucleus", "role": "structural"}],
        "source": {"kind": "table", "path": "fields.csv"},
        "fields": {"format": "stack", "order": ["protein", "nucleus"], "um_per_px": 0.2},
        "segmentation": {"method": "nuclei", "channel": "nucleus", "sigma": 1.0, "min_area": 30, "fill_holes": 10},
        "crop": {"size": 32, "resize": 16, "min_cells": 2},
    }
    return recipes.parse({k: {**v, **sections.get(k, {})} if isinstance(v, dict) else v for k, v in content.items()}, "made-up")


def write_fields(folder: Path, cells: list[int], per_image: int = 2) -> pd.DataFrame:
    """Write one 100x100 px field for each number of cells; an image is `per_image` fields in a row."""
    yy, xx = np.mgrid[:100, :100]
    rows = []
    for i, n in enumerate(cells):
        rng = np.random.default_rng(i)
        field = rng.integers(100, 110, (2, 100, 100)).astype(np.uint16)
        field[1] = 100
        for y, x in CENTRES[:n]:
            field[1][np.hypot(yy - y, xx - x) < 7] = 3000
        field[0] += np.uint16(i)
        tifffile.imwrite(folder / f"f{i}.tif", field, photometric="minisblack")
        rows.append(
            {"field": f"f{i}", "image": f"i{i // per_image}", "path": f"f{i}.tif", "protein": f"P{i // per_image}", "sim_kind": "drawn"}
        )
    return pd.DataFrame(rows)


def test_cells_lie_where_they_were_drawn_with_their_fields_metadata(tmp_path: Path) -> None:
    fields = write_fields(tmp_path, [4, 3])
    got = build_cells(fields, tmp_path, make_recipe(), tmp_path / "out", jobs=1, progress=False)
    assert got.crops.shape == (7, 2, 16, 16) and got.crops.dtype == np.uint16
    assert got.um_per_px == pytest.approx(0.4)
    assert got.table["cell_id"].tolist() == ["f0_001", "f0_002", "f0_003", "f0_004", "f1_001", "f1_002", "f1_003"]
    assert set(got.table["protein"]) == {"P0"} and set(got.table["sim_kind"]) == {"drawn"} and "path" not in got.table
    # the threshold may move an outline by a pixel, the same all around
    np.testing.assert_allclose(got.table.loc[:3, ["y", "x"]], CENTRES, atol=0.3)
    whole = tifffile.imread(tmp_path / "f0.tif")[:, 8:40, 8:40].astype(float)
    np.testing.assert_array_equal(got.crops[0], np.rint(whole.reshape(2, 16, 2, 16, 2).mean(axis=(2, 4))))
    assert got.info["recipe"] == "made-up" and got.info["versions"]["scikit-image"]
    got.verify()


def test_images_stay_together_whatever_the_order_of_the_table(tmp_path: Path) -> None:
    fields = write_fields(tmp_path, [3, 3, 3, 3]).iloc[[2, 0, 3, 1]]
    got = build_cells(fields, tmp_path, make_recipe(), tmp_path / "out", jobs=1, progress=False)
    assert got.table["field"].drop_duplicates().tolist() == ["f2", "f3", "f0", "f1"]
    assert got.starts.tolist() == [0, 6, 12]


def test_what_is_left_out_is_counted_listed_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fields = write_fields(tmp_path, [4, 0, 1, 0])
    flat = np.full((2, 100, 100), 9, np.uint16)
    tifffile.imwrite(tmp_path / "f3.tif", flat, photometric="minisblack")
    with caplog.at_level(logging.INFO):
        got = build_cells(
            fields, tmp_path, make_recipe(crop={"size": 50, "resize": 48, "min_cells": 1}), tmp_path / "out", jobs=1, progress=False
        )
    left = json.loads((tmp_path / "out" / "dataset.json").read_text())["left_out"]
    assert len(got) == 1
    assert left["fields_without_cells"] == ["f1", "f3"]
    assert left["fields_without_crops"] == ["f2"]
    assert left["fields_with_a_constant_channel"] == {"f1": ["nucleus"], "f3": ["protein", "nucleus"]}
    assert left["images_below_min_cells"] == {"i1": 0}
    assert left["cells_found"] == 5
    assert left["cells"] == {"below_min_fraction": 0, "above_max_fraction": 0, "over_edge": 4, "in_left_out_images": 0}
    assert "2 fields without cells: f1, f3" in caplog.text and "1 images below min_cells: i1" in caplog.text


def test_all_images_below_the_minimum(tmp_path: Path) -> None:
    fields = write_fields(tmp_path, [4, 1, 0, 2])
    with pytest.raises(DatasetError, match=r"none of 2 images has the 6 cells.*'i0', has 5.*7 cells were found in all; 1 fields have none"):
        build_cells(fields, tmp_path, make_recipe(crop={"min_cells": 6}), tmp_path / "out", jobs=1, progress=False)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".writing-*"))


def test_area_filter(tmp_path: Path) -> None:
    fields = write_fields(tmp_path, [4, 4])
    with pytest.raises(DatasetError, match="below_min_fraction 8"):
        build_cells(fields, tmp_path, make_recipe(crop={"min_fraction": 0.5}), tmp_path / "out", jobs=1, progress=False)


def test_downscaled_fields(tmp_path: Path) -> None:
    fields = write_fields(tmp_path, [4, 4])
    recipe = make_recipe(fields={"downscale": 2}, segmentation={"min_area": 10, "sigma": 0.5}, crop={"size": 16, "resize": 16})
    truth = pd.DataFrame([{"field": "f0", "y": y, "x": x, "sim_cell": i} for i, (y, x) in enumerate(CENTRES)])
    got = build_cells(fields, tmp_path, recipe, tmp_path / "out", truth=truth, jobs=1, progress=False)
    assert got.um_per_px == pytest.approx(0.4)
    np.testing.assert_allclose(got.table.loc[:3, ["y", "x"]], (np.array(CENTRES) - 0.5) / 2, atol=0.5)
    assert got.table["sim_matched"].tolist() == [True] * 4 + [False] * 4


def test_result_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    fields = write_fields(tmp_path, [4, 3, 2, 4])
    a, b = (build_cells(fields, tmp_path, make_recipe(), tmp_path / f"out{j}", jobs=j, progress=False) for j in (1, 2))
    np.testing.assert_array_equal(a.crops, b.crops)
    pd.testing.assert_frame_equal(a.table, b.table)
    assert a.info["files"]["crops.npy"] == b.info["files"]["crops.npy"]


def test_truth_is_joined_to_the_nearest_cell(tmp_path: Path) -> None:
    fields = write_fields(tmp_path, [4, 2])
    truth = pd.DataFrame(
        [
            {"field": "f0", "y": 25.0, "x": 26.0, "sim_location": "nucleoli", "sim_fraction": 0.3, "sim_kind": "cell"},
            {"field": "f0", "y": 27.0, "x": 24.0, "sim_location": "farther", "sim_fraction": 0.9, "sim_kind": "cell"},
            {"field": "f0", "y": 70.0, "x": 34.5, "sim_location": "too far", "sim_fraction": 0.9, "sim_kind": "cell"},
        ]
    )
    got = build_cells(fields, tmp_path, make_recipe(), tmp_path / "out", truth=truth, jobs=1, progress=False).table
    assert got["sim_matched"].tolist() == [True] + [False] * 5
    assert got["sim_location"].tolist() == ["nucleoli"] + [""] * 5
    assert got["sim_fraction"].iloc[0] == 0.3 and got["sim_fraction"].iloc[1:].isna().all()
    assert got["sim_kind"].iloc[0] == "cell"


def test_each_true_cell_goes_to_one_found_cell() -> None:
    found, true = np.array([[0.0, 0.0], [0.0, 4.0]]), np.array([[0.0, 3.0]])
    assert match_truth(found, true, np.full(2, 10.0)).tolist() == [-1, 0]
    assert match_truth(found, np.array([[0.0, 3.0], [0.0, 5.0]]), np.full(2, 10.0)).tolist() == [1, 0]
    assert match_truth(found, np.empty((0, 2)), np.full(2, 10.0)).tolist() == [-1, -1]
    assert match_truth(found, true, np.array([2.0, 0.5])).tolist() == [-1, -1]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_unreadable_field_stops_with_its_name_and_leaves_the_old_dataset(tmp_path: Path, jobs: int) -> None:
    fields = write_fields(tmp_path, [4, 4, 4, 4])
    old = build_cells(fields.iloc[:2], tmp_path, make_recipe(), tmp_path / "out", jobs=1, progress=False)
    (tmp_path / "f3.tif").write_bytes((tmp_path / "f3.tif").read_bytes()[:9000])
    with pytest.raises(ImageError, match=r"f3\.tif"):
        build_cells(fields, tmp_path, make_recipe(), tmp_path / "out", jobs=jobs, progress=False)
    assert CellDataset(tmp_path / "out").sha256 == old.sha256
    assert not list(tmp_path.glob(".writing-*"))


def test_bad_tables_and_recipes(tmp_path: Path) -> None:
    fields = write_fields(tmp_path, [4, 4])
    for table, what in (
        (fields.drop(columns="image"), "image"),
        (fields.iloc[:0], "0 rows"),
        (pd.concat([fields, fields]), "more than once"),
    ):
        with pytest.raises(CellTableError, match=what):
            build_cells(table, tmp_path, make_recipe(), tmp_path / "out", jobs=1, progress=False)
    with pytest.raises(RecipeError, match="segmentation channel 'nuclei'"):
        build_cells(fields, tmp_path, make_recipe(segmentation={"channel": "nuclei"}), tmp_path / "out", jobs=1, progress=False)
    with pytest.raises(RecipeError, match="must name each channel"):
        build_cells(fields, tmp_path, make_recipe(fields={"order": ["nucleus"]}), tmp_path / "out", jobs=1, progress=False)
    with pytest.raises(CellTableError, match="true cells lacks y, x"):
        truth = pd.DataFrame({"field": ["f0"]})
        build_cells(fields, tmp_path, make_recipe(), tmp_path / "out", truth=truth, jobs=1, progress=False)


def test_fields_of_different_depth_are_refused(tmp_path: Path) -> None:
    fields = write_fields(tmp_path, [4, 4])
    tifffile.imwrite(tmp_path / "f1.tif", tifffile.imread(tmp_path / "f1.tif").astype(np.float32), photometric="minisblack")
    with pytest.raises(ImageError, match=r"differ in bit depth: 1 uint16 \(e\.g\. f0\); 1 float32 \(e\.g\. f1\)"):
        build_cells(fields, tmp_path, make_recipe(), tmp_path / "out", jobs=1, progress=False)


def test_real_hpa_field_becomes_cells(test_data: Path, tmp_path: Path) -> None:
    channels = [{"name": n, "role": "structural" if i else "protein"} for i, n in enumerate(("green", "blue", "red"))]
    recipe = recipes.parse(
        {
            "name": "hpa",
            "title": "HPA",
            "channels": channels,
            "source": {"kind": "table", "path": "fields.csv"},
            "fields": {"format": "separate", "um_per_px": 0.08, "downscale": 4},
            "segmentation": {"method": "nuclei", "channel": "blue", "sigma": 2.0, "min_area": 100, "fill_holes": 300},
            "crop": {"size": 128, "resize": 64, "min_cells": 5},
        },
        "hpa",
    )
    row = {"field": "57_F11_1", "image": "57_F11", **{f"path_{c}": f"hpa-fields/57_F11_1_{c}.png" for c in ("green", "blue", "red")}}
    got = build_cells(pd.DataFrame([row]), test_data, recipe, tmp_path / "out", jobs=1, progress=False)
    assert len(got) == 6 and got.crops.shape[1:] == (3, 64, 64) and got.um_per_px == pytest.approx(0.64)
    assert got.info["left_out"]["cells"]["over_edge"] == 4
    middle = got.crops[:, 1, 28:36, 28:36].mean(axis=(1, 2))
    assert (middle > got.crops[:, 1].mean(axis=(1, 2))).all()  # a nucleus lies in the middle of each crop
