"""Feature sets of different cells, and tables that users bring: joined by id, or refused with a reason."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from pci_core.analysis.join import join, left_out_by_reading, read_table
from pci_core.errors import CellTableError, UnknownNameError

IDS = [f"00{i}" for i in range(6)]


def feature_set(ids: list[str], start: float = 0.0, **obs: list[str]) -> anndata.AnnData:
    x = (np.array([float(i) for i in ids])[:, None] + [start, 10.0]).astype(np.float32)
    return anndata.AnnData(x, obs=pd.DataFrame({"cell_id": ids, **obs}, index=ids), obsm={"twice": 2 * x})


def run_set() -> anndata.AnnData:
    return feature_set(IDS, location=list("aabbcc"), image=list("uvwxyz"))


def test_different_cells_are_joined_by_id_in_one_order_and_the_difference_is_told() -> None:
    own = feature_set(["004", "001", "009", "002"], 5.0, location=["wrong"] * 4, stain=list("pqrs"))
    joined = join({"run": [run_set(), run_set()], "own": own}, "location")
    run, _ = joined.feature_sets["run"]
    other = joined.feature_sets["own"][0]
    assert run.obs_names.tolist() == other.obs_names.tolist() == ["001", "002", "004"]
    np.testing.assert_array_equal(other.X, [[6, 11], [7, 12], [9, 14]])
    np.testing.assert_array_equal(other.obsm["twice"], 2 * other.X)
    assert other.obs["location"].tolist() == ["a", "b", "c"] and other.obs["image"].tolist() == ["v", "w", "y"]  # of the run, not its own
    assert other.obs["stain"].tolist() == ["q", "s", "p"] and "stain" not in run.obs
    assert joined.report.to_dict("list") == {
        "features": ["run", "own"],
        "n_cells": [6, 4],
        "n_joined": [3, 3],
        "n_left_out": [3, 1],
    }
    assert joined.text == "3 cells are in every feature set. Left out because another lacks them: run 3 of 6, own 1 of 4."


def test_equal_cells_are_left_as_they_are() -> None:
    a, b = run_set(), feature_set(IDS[::-1], 1.0)
    joined = join({"table": b, "run": a}, "location")  # the set with the label gives the order
    assert joined.feature_sets["table"][0].obs_names.tolist() == IDS
    assert joined.text == "All 2 feature sets have the same 6 cells."
    np.testing.assert_array_equal(a.X, run_set().X)


def test_what_cannot_be_joined_is_refused() -> None:
    with pytest.raises(CellTableError, match="no cell of 'run' is in 'own': ids like .'000', '001'. against .'x'"):
        join({"run": run_set(), "own": anndata.AnnData(np.ones((1, 1), np.float32), obs=pd.DataFrame(index=["x"]))}, "location")
    with pytest.raises(CellTableError, match="no cell is in all of run, a, b"):
        join({"run": run_set(), "a": feature_set(IDS[:2]), "b": feature_set(IDS[2:])}, "location")
    with pytest.raises(CellTableError, match="'own': 1 cell ids occur more than once"):
        join({"run": run_set(), "own": feature_set(["001", "001"])}, "location")
    with pytest.raises(UnknownNameError, match="'locaton'. Did you mean location"):
        join({"run": run_set()}, "locaton")
    with pytest.raises(CellTableError, match="no feature set"):
        join({}, "location")


def user_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "cell_id": IDS,
            "Metadata_plate": range(6),
            "image": range(6),
            "x": range(6),
            "note": list("nnnnnn"),
            "sim_strength": np.arange(6.0),
            "good": [True] * 6,
            "size": [1, 2, 3, 4, 5, 6],
            "shape": [0.5, 1, 2, 3, 4, 5],
        }
    )


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".csv.gz", ".h5ad"])
@pytest.mark.parametrize("id_column", ["cell_id", "Metadata_cell_id"])
def test_every_kind_of_table_gives_the_same_features(suffix: str, id_column: str, tmp_path: Path) -> None:
    table, path = user_table().rename(columns={"cell_id": id_column}), tmp_path / f"own{suffix}"
    if suffix == ".parquet":
        table.set_index(id_column).to_parquet(path)  # ids in the index
    elif suffix == ".h5ad":
        anndata.AnnData(table[["size", "shape"]].set_axis(table[id_column]), obs=table[[id_column]].set_axis(table[id_column])).write(path)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    adata = read_table(path)
    assert adata.var_names.tolist() == ["size", "shape"] and adata.obs["cell_id"].tolist() == IDS  # ids like 001 stay texts
    np.testing.assert_array_equal(adata.X, user_table()[["size", "shape"]])
    assert adata.X.dtype == np.float32 and left_out_by_reading(adata) == ""
    joined = join({"run": run_set(), "own": adata}, "location")
    assert joined.feature_sets["own"][0].obs["location"].tolist() == list("aabbcc")


def test_h5ad_without_id_column_takes_the_names_of_its_rows(tmp_path: Path) -> None:
    anndata.AnnData(np.ones((2, 1), np.float32), obs=pd.DataFrame(index=["001", "005"])).write(tmp_path / "a.h5ad")
    assert read_table(tmp_path / "a.h5ad").obs["cell_id"].tolist() == ["001", "005"]


def test_values_that_are_not_finite_are_left_out_and_counted(tmp_path: Path) -> None:
    table = user_table().assign(ratio=[1, np.nan, 1, 1, 1, 1], huge=[1e300, 1, 1, 1, 1, 1])
    table.loc[4, ["size", "shape", "ratio", "huge", "sim_strength"]] = np.nan  # a cell without any value
    table.to_csv(tmp_path / "own.csv", index=False)
    adata = read_table(tmp_path / "own.csv")
    assert adata.var_names.tolist() == ["size", "shape"] and adata.n_obs == 5 and "004" not in adata.obs_names
    assert np.isfinite(adata.X).all()
    told = "Left out of own.csv: 2 columns that are NaN or infinite for some cell, e.g. ratio, huge; 1 cells without any value."
    assert left_out_by_reading(adata) == told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="cell_id"), "no column or index 'cell_id'"),
        (lambda t: t.assign(cell_id=["1"] * 6), "5 values of 'cell_id' occur more than once"),
        (lambda t: t.assign(cell_id=["1", None, *"3456"]), "1 rows have no 'cell_id'"),
        (lambda t: t[["cell_id", "image", "note", "good"]], "no numeric column"),
        (lambda t: t.assign(size=[np.nan, *range(5)], shape=[*range(5), np.inf]), "every one of 2 numeric columns"),
    ],
)
def test_bad_tables_are_refused(change: object, message: str, tmp_path: Path) -> None:
    change(user_table()).to_csv(tmp_path / "own.csv", index=False)  # type: ignore[operator]
    with pytest.raises(CellTableError, match=message) as caught:
        read_table(tmp_path / "own.csv")
    assert "own.csv" in str(caught.value)


@pytest.mark.parametrize("name", ["a.parquet", "a.h5ad", "a.csv.gz", "a.csv", "a.pkl", "a"])
def test_unreadable_files_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CellTableError, match="is not there|unknown kind"):
        read_table(tmp_path / name)
    (tmp_path / name).write_bytes(b"" if name == "a.csv" else b"\x80\x04nonsense\xff")
    with pytest.raises(CellTableError, match="cannot be read as|unknown kind"):
        read_table(tmp_path / name)
