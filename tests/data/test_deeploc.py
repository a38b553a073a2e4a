"""DeepLoc's HDF5 files: small ones of the same form, what is in them and what must not be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from deeploc_files import CLASSES, info, read, write_file

from pci_core import recipe
from pci_core.data import sources
from pci_core.data.deeploc import deeploc_cells, deeploc_size
from pci_core.data.measured import sort_columns
from pci_core.errors import DatasetError, RecipeError


def test_cells_classes_and_splits(tmp_path: Path) -> None:
    folder = tmp_path / "datasets"
    folder.mkdir()
    written = {s: write_file(folder / f"Chong_{s}_set.hdf5", seed=i) for i, s in enumerate(("train", "valid", "test"))}
    write_file(folder / "wt2017_test_set.hdf5", classes=["OTHER"])  # the archive holds other screens' sets beside
    cells = read(folder, tmp_path / "cells")
    assert (len(cells), cells.crops.dtype, cells.crops.shape[1:]) == (36, np.uint16, (2, 64, 64))
    row = cells.table.reset_index().set_index("cell_id").loc["Chong_valid_set_00007"]
    assert (row["split"], row["location_in_source"], row["location"]) == ("valid", "SPINDLE_POLE", "SPINDLE")
    np.testing.assert_array_equal(cells.crops[row["index"]].ravel(), written["valid"]["data1"][7])  # GFP first, then RFP
    assert sorted(cells.table["location"].unique()) == ["ER", "NUCLEI", "SPINDLE"]
    assert cells.info["merged_classes"] == {"SPINDLE": ["SPINDLE", "SPINDLE_POLE"]}
    assert cells.table["image"].nunique() == 36  # nothing tells which cells share a well
    assert "cell" in cells.info["image_is"] and cells.info["source"]["files"][0] == "Chong_test_set.hdf5"
    assert deeploc_size(sources.with_path(recipe.load("chong"), folder)) == (36, 36)


def test_names_of_classes_as_texts_in_an_array(tmp_path: Path) -> None:
    path = tmp_path / "one.h5"
    write_file(path, Index1_columns=CLASSES)
    with h5py.File(path, "a") as file:
        del file.attrs["Index1_columns"]
        assert file["Index1_columns"].dtype.kind == "O"  # h5py's texts of any length
    assert set(read(path, tmp_path / "cells").table["location"]) == {"ER", "NUCLEI", "SPINDLE"}


def test_cells_without_class_of_two_or_with_nan_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "Chong_test_set.hdf5"
    content = write_file(path)
    index, data = content["Index1"].copy(), content["data1"].copy()
    index[0], index[1], data[2, 5], data[3, 9] = 0, 1, np.nan, np.inf
    write_file(path, Index1=index, data1=data)
    cells = read(path, tmp_path / "cells")
    left = json.loads((tmp_path / "cells" / "dataset.json").read_text())["left_out"]
    assert (left["cells_without_class"], left["cells_of_several_classes"], left["cells_with_nan_or_infinite_pixels"]) == (1, 1, 2)
    assert len(cells) == 8 and cells.crops.dtype == np.uint16


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (np.full((12, 8192), 7, np.uint8), "uint8"),
        (np.full((12, 8192), 70000, np.int32), "float32"),
        (np.full((12, 8192), -1, np.int16), "float32"),
        (np.full((12, 8192), 0.25), "float32"),
    ],
)
def test_type_of_the_crops(tmp_path: Path, data: np.ndarray, expected: str) -> None:
    write_file(tmp_path / "one.hdf5", data1=data)
    cells = read(tmp_path / "one.hdf5", tmp_path / "cells")
    assert cells.crops.dtype == expected and (np.asarray(cells.crops) == data[0, 0]).all()


def test_cells_of_one_well_are_one_image(tmp_path: Path) -> None:
    n = 12
    told = {"ORF": [f"YAL{i % 3:03d}C" for i in range(n)], "Plate": ["1"] * 6 + ["2"] * 6, "Well": ["A1", "A2", "A3"] * 4}
    write_file(tmp_path / "Chong_train_set.hdf5", n, **info(n, told))
    cells = read(tmp_path / "Chong_train_set.hdf5", tmp_path / "cells")
    assert cells.info["image_is"] == "well" and list(cells.table["image"].unique()) == ["1_A1", "1_A2", "1_A3", "2_A1", "2_A2", "2_A3"]
    assert (cells.table.groupby("image")["orf"].nunique() == 1).all() and (cells.table["protein"] == cells.table["orf"]).all()
    assert cells.table["x"].between(0, 1000).all()
    assert cells.table["cell_id"].tolist()[:2] == ["Chong_train_set_00000", "Chong_train_set_00003"]  # the well's cells side by side
    with h5py.File(tmp_path / "Chong_train_set.hdf5") as file:
        np.testing.assert_array_equal(cells.crops[1].ravel(), file["data1"][3])
    assert cells.info["provided"]["columns"] == 2
    others = cells.info["left_out"]["info_columns_that_are_no_features"]
    assert others == ["Cells_Location_Center_X", "Cells_Location_Center_Y", "ObjectNumber", "Plate"]


def test_what_columns_are() -> None:
    names = ["ImageNumber", "cells_Location_Center_X", "cells_AreaShape_Area", "cells_AreaShape_Orientation", "Image_Count_Cells",
             "cells_Intensity_MeanIntensity_GFP", "Neighbors_NumberOfNeighbors_5", "nwellidf", "Parent_Nuclei", "AreaShape_Center_Y",
             "Image_FileName_GFP", "Texture_Entropy_GFP_3", "RadialCV"]  # fmt: skip
    columns = sort_columns(names, {"Image_FileName_GFP"})
    assert columns.features == [
        "cells_AreaShape_Area", "cells_AreaShape_Orientation", "cells_Intensity_MeanIntensity_GFP", "Neighbors_NumberOfNeighbors_5",
        "Texture_Entropy_GFP_3", "RadialCV",
    ]  # fmt: skip
    assert columns.told["site"] == "Image_FileName_GFP" and columns.told["well"] == "nwellidf"
    assert set(columns.features) | set(columns.others) | {"Image_FileName_GFP"} == set(names)


def test_files_with_different_measurements_have_none(tmp_path: Path) -> None:
    write_file(tmp_path / "Chong_a_train.hdf5", **info(12))
    write_file(tmp_path / "Chong_b_test.hdf5")
    cells = read(tmp_path, tmp_path / "cells")
    assert cells.info["provided"] == "Chong_b_test.hdf5 has no 'Info1'" and len(cells) == 24


# --- bad input


def vlen_objects() -> np.ndarray:
    out = np.empty(12, dtype=h5py.vlen_dtype(np.uint8))  # as PyTables keeps pickled objects
    out[:] = [np.frombuffer(b"\x80\x04cos\nsystem", np.uint8)] * 12
    return out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data1": np.zeros((12, 8000))}, r"expected numbers \(cells, 8192\)"),
        ({"data1": np.zeros((12, 2, 64, 64))}, "expected numbers"),
        ({"data1": np.full((12, 8192), b"x")}, "expected numbers"),
        ({"data1": None}, "no 'data1'"),
        ({"Index1": None}, "'Index1' is missing"),
        ({"Index1": np.ones((12, 3))}, "4 names of classes"),
        ({"Index1": np.full((12, 4), 0.3)}, "other values than 0 and 1"),
        ({"Index1": vlen_objects()}, "Objects are refused"),
        ({"Info1": vlen_objects(), "Info1_columns": ["a"]}, "Objects are refused"),
        ({"Info1": np.full((12, 1), b"x" * 2000), "Info1_columns": ["a"]}, "2000 characters"),
        ({"attrs": {"data1_columns": "RFP channel 64x64, GFP channel 64x64 flattened"}}, "expected GFP first"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_file(tmp_path / "Chong.hdf5", **change)
    with pytest.raises(DatasetError, match=message):
        read(tmp_path / "Chong.hdf5", tmp_path / "cells")
    assert not (tmp_path / "cells").exists()


@pytest.mark.parametrize("kind", ["soft", "external", "virtual", "raw", "references", "empty", "bomb"])
def test_what_is_not_in_the_file_is_not_read(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "Chong.hdf5", tmp_path / "other.h5"
    content = write_file(other)
    write_file(path, data1=None)
    with h5py.File(path, "a") as file:
        if kind == "soft":
            file["elsewhere"] = content["data1"]
            file["data1"] = h5py.SoftLink("/elsewhere")
        elif kind == "external":
            file["data1"] = h5py.ExternalLink("other.h5", "/data1")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((12, 8192), "f8")
            layout[:] = h5py.VirtualSource(str(other), "data1", (12, 8192))
            file.create_virtual_dataset("data1", layout)
        elif kind == "raw":
            (tmp_path / "raw.bin").write_bytes(b"\0" * 12 * 8192 * 8)
            file.create_dataset("data1", (12, 8192), "f8", external=str(tmp_path / "raw.bin"))
        elif kind == "references":
            file.create_dataset("data1", (12, 8192), h5py.ref_dtype)
        elif kind == "empty":
            file.create_dataset("data1", (12, 8192), "f8")  # promised but never written
        else:
            file.create_dataset("data1", (1_000_000, 8192), "f8", chunks=(64, 8192), compression="gzip")
    with pytest.raises(DatasetError):
        read(path, tmp_path / "cells")


def test_cut_file_and_other_file(tmp_path: Path) -> None:
    write_file(tmp_path / "Chong.hdf5")
    whole = (tmp_path / "Chong.hdf5").read_bytes()
    (tmp_path / "cut.hdf5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.hdf5").write_text("not found")
    for name in ("cut", "text"):
        with pytest.raises(DatasetError, match="Download it again"):
            read(tmp_path / f"{name}.hdf5", tmp_path / "cells")


def test_nothing_there_other_classes_and_other_channels(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="pci info chong"):
        read(tmp_path / "none", tmp_path / "cells")
    with pytest.raises(DatasetError, match="no HDF5 file"):
        read(tmp_path, tmp_path / "cells")
    write_file(tmp_path / "Chong_a.hdf5")
    write_file(tmp_path / "Chong_b.hdf5", classes=["ER", "NUCLEI", "SPINDLE", "GHOST"])
    with pytest.raises(DatasetError, match="GHOST, SPINDLE_POLE"):
        read(tmp_path, tmp_path / "cells")
    with pytest.raises(RecipeError, match="64 px"):
        deeploc_cells(recipe.load("chong").replace(crop={"resize": 32}), tmp_path / "cells")


def test_no_cell_is_left(tmp_path: Path) -> None:
    write_file(tmp_path / "Chong.hdf5", Index1=np.zeros((12, 4), np.uint8))
    with pytest.raises(DatasetError, match="none of 12 cells"):
        read(tmp_path / "Chong.hdf5", tmp_path / "cells")
