"""Spoilt crops: told by their pixels, kept or left out by a stated rule, counted; doubled crops told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from pci_core import cli, flags, recipe
from pci_core.baselines import Measured
from pci_core.cells import CellDataset, CellWriter, Channel
from pci_core.errors import DatasetError, RecipeError
from pci_core.features import write_features

CHANNELS = (Channel("protein", "protein"), Channel("one", "structural"), Channel("two", "structural"))


def crops(n: int = 6, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    top = {"uint8": 200, "uint16": 3000, "float32": 1}[dtype]
    return (np.random.default_rng(seed).random((n, 3, 16, 16)) * top * 0.9).astype(dtype)


def table(n: int, image: str = "i") -> pd.DataFrame:
    return pd.DataFrame({"cell_id": [f"{image}{k}" for k in range(n)], "image": image})


def write(folder: Path, blocks: list[tuple[np.ndarray, pd.DataFrame]], rule: flags.Rule = flags.Rule()) -> CellDataset:  # noqa: B008
    with CellWriter(folder, CHANNELS, None, rule=rule) as writer:
        for block in blocks:
            writer.add(*block)
    return CellDataset(folder)


@pytest.mark.parametrize(("dtype", "full"), [("uint8", 255), ("uint16", 4095), ("uint16", 65535), ("float32", 1.0)])
def test_each_term_by_its_pixels(dtype: str, full: float) -> None:
    x = crops(8, dtype)
    x[1, 0] = x[1, 0, 0, 0]  # a protein channel of one value
    x[2, 1] = 7 if dtype != "float32" else 0.1  # one marker of two
    x[3, 1:] = 0
    x[4] = 0
    x[5, 0, :2, :4] = full  # 8 of 256 pixels: 3 %
    x[6, 0, 0, 0] = full  # one bright pixel is no saturation
    x[7, 1, :8] = full  # a marker may be saturated: the protein is what is measured
    said = flags.flag_crops(x, 1).tolist()
    assert said == ["", "constant protein", "constant marker", "empty", "constant protein;empty", "saturated", "", ""]


def test_rounding_alone_is_constant_and_a_little_more_is_not() -> None:
    x = crops(2)
    x[:, 0] = 50
    x[0, 0, 0, 0] = 51
    x[1, 0, 0, 0] = 52
    assert flags.flag_crops(x, 1).tolist() == ["constant protein", ""]


def test_a_plateau_that_is_no_full_scale_is_not_saturated() -> None:
    x = crops(1, "uint16")
    x[0, 0, :4] = 3500
    assert flags.flag_crops(x, 1).tolist() == [""]


def test_flagged_cells_are_kept_counted_and_carried_along(tmp_path: Path) -> None:
    x = crops()
    x[2, 0] = 9
    dataset = write(tmp_path / "d", [(x, table(6))])
    assert dataset.table["flag"].tolist() == ["", "", "constant protein", "", "", ""] and len(dataset) == 6
    assert dataset.info["flagged"]["cells"]["constant protein"] == 1 and dataset.info["flagged"]["left_out"] == 0
    assert flags.told(dataset.info["flagged"]).startswith("cells flagged: 1 constant protein of 6; kept")
    write_features(dataset, Measured(np.zeros((6, 1), np.float32), ["f"], {}), tmp_path / "f.h5ad", {})
    assert pd.read_parquet(tmp_path / "f.parquet")["Metadata_flag"].tolist() == dataset.table["flag"].tolist()


def test_left_out_with_images_that_then_have_too_few(tmp_path: Path) -> None:
    a, b, c = crops(5, seed=1), crops(3, seed=2), crops(3, seed=3)
    a[:2, 0] = 9
    b[0, 1:] = 0  # two are left: fewer than three
    blocks = [(a[:3], table(5, "a")[:3]), (a[3:], table(5, "a")[3:]), (np.concatenate([b, c]), pd.concat([table(3, "b"), table(3, "c")]))]
    dataset = write(tmp_path / "d", blocks, flags.Rule(leave_out=True, min_cells=3))
    assert dataset.table["cell_id"].tolist() == ["a2", "a3", "a4", "c0", "c1", "c2"]
    np.testing.assert_array_equal(dataset.crops, np.concatenate([a[2:], c]))
    said = dataset.info["flagged"]
    assert said["left_out"] == 3 and said["images_below_min_cells_then"] == {"b": 2} and said["cells_seen"] == 11
    assert "left out, and 2 more in images that then had too few" in flags.told(said)


def test_nothing_left_is_an_error_and_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="6 of 6 cells are flagged"):
        write(tmp_path / "d", [(np.zeros((6, 3, 8, 8), np.uint8), table(6))], flags.Rule(leave_out=True))
    assert not list(tmp_path.iterdir())


def test_a_column_flag_of_the_users_own_is_kept_beside_ours(tmp_path: Path) -> None:
    x = crops(3)
    x[0, 0] = 9
    dataset = write(tmp_path / "d", [(x, table(3).assign(flag=["out of focus", "", None]))])
    assert dataset.table["flag"].tolist() == ["out of focus;constant protein", "", ""]


def test_a_crop_in_two_images_is_told(tmp_path: Path) -> None:
    x = crops(6)
    x[5] = x[1]
    x[3], x[4] = 0, 0  # two empty crops are no double
    rows = pd.concat([table(4, "a"), table(2, "b")])
    said = write(tmp_path / "d", [(x, rows)]).info["flagged"]
    assert said["doubled"] == 1 and said["doubled_examples"] == [["a1", "b1"]]
    assert "WARNING: 1 crops stand in two images, e.g. a1 and b1" in flags.told(said)


def test_cells_of_an_earlier_version_say_that_nobody_looked() -> None:
    assert "not looked at" in flags.told(None)
    assert not flags.flagged_rows(table(2)).any()


def test_the_key_changes_no_hash_at_its_default() -> None:
    spec = recipe.load("simulated-human")
    assert spec.section_hash("crop") == spec.replace(crop={"flagged": "keep"}).section_hash("crop")
    assert spec.section_hash("crop") != spec.replace(crop={"flagged": "leave out"}).section_hash("crop")
    with pytest.raises(RecipeError, match="leave out"):
        spec.replace(crop={"flagged": "leave"})


@pytest.mark.parametrize(("choice", "kept"), [("keep", 32), ("leave out", 31)])
def test_from_a_field_to_the_command_line(
    own_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, choice: str, kept: int
) -> None:
    path = own_recipe.parent / "i0_f0.tif"
    field = tifffile.imread(path)
    field[0, 2:26, 2:26] = 77  # all of the first cell's crop
    tifffile.imwrite(path, field, photometric="minisblack")
    own_recipe.write_text(own_recipe.read_text().replace("min_cells = 2", f'min_cells = 2\nflagged = "{choice}"'))
    monkeypatch.setattr("sys.argv", ["pci", "cells", str(own_recipe), "--runs", str(tmp_path / "runs"), "--jobs", "1", "--quiet"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr().out
    assert not end.value.code and f": {kept} cells of 4 images" in said and "cells flagged: 1 constant protein of 32" in said


def test_the_same_whatever_the_blocks(tmp_path: Path) -> None:
    x = crops(7)
    x[3, 0] = 4
    one = write(tmp_path / "one", [(x, table(7))])
    many = write(tmp_path / "many", [(x[i : i + 2], table(7)[i : i + 2]) for i in range(0, 7, 2)])
    assert one.sha256 == many.sha256
