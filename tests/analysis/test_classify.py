"""Leave-one-out kNN against scikit-learn, and intervals against a hand-computed case."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import LeaveOneGroupOut, LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from pci_core.analysis.classify import (
    PAPER_TABLE_1,
    balanced_accuracy,
    by_layer,
    independent_groups,
    knn_benchmark,
    knn_table,
    neighbours,
    recall_by_class,
    save_table,
    scorable,
    standardise,
    vote,
)
from pci_core.errors import CellTableError, UnknownNameError


def made_up(n: int = 120, classes: int = 4) -> anndata.AnnData:
    rng = np.random.default_rng(0)
    code = rng.integers(0, classes, n)
    x = rng.normal(size=(n, 6)) + code[:, None] * 0.6
    obs = pd.DataFrame({"location": [f"c{c}" for c in code], "image": [f"i{i // 10}" for i in range(n)]}, index=[str(i) for i in range(n)])
    return anndata.AnnData(x.astype(np.float32), obs=obs)


@pytest.mark.parametrize("k", [1, 5, 11])
def test_leave_one_out_equals_scikit_learn(k: int) -> None:
    adata = made_up()
    score, predicted = knn_benchmark(adata, "location", k=k)
    x, y = standardise(adata.X), adata.obs["location"].to_numpy()
    expected = cross_val_predict(KNeighborsClassifier(k, algorithm="brute"), x, y, cv=LeaveOneOut())
    np.testing.assert_array_equal(predicted, expected)
    assert score.accuracy == pytest.approx(balanced_accuracy_score(y, expected), abs=1e-12)


def test_leaving_out_the_own_image_equals_scikit_learn() -> None:
    adata = made_up()
    _, predicted = knn_benchmark(adata, "location", k=5, leave_out="image")
    x, y, groups = standardise(adata.X), adata.obs["location"].to_numpy(), adata.obs["image"].to_numpy()
    expected = cross_val_predict(KNeighborsClassifier(5, algorithm="brute"), x, y, groups=groups, cv=LeaveOneGroupOut())
    np.testing.assert_array_equal(predicted, expected)


def test_standardising_leaves_constant_features_at_zero() -> None:
    x = np.array([[1.0, 5.0], [3.0, 5.0]])
    np.testing.assert_array_equal(standardise(x), [[-1, 0], [1, 0]])


def test_neighbours_and_votes_by_hand() -> None:
    x = np.array([[0.0], [1.0], [3.0], [7.0]], np.float32)
    near = neighbours(x, 2)
    np.testing.assert_array_equal(near, [[1, 2], [0, 2], [1, 0], [2, 1]])
    np.testing.assert_array_equal(neighbours(x, 2, np.array([0, 0, 1, 1])), [[2, 3], [2, 3], [1, 0], [1, 0]])
    np.testing.assert_array_equal(neighbours(x, 1, np.zeros(4, int)), [[-1]] * 4)  # nobody else to ask
    np.testing.assert_array_equal(vote(near, np.array([0, 0, 1, 1]), 2), [0, 0, 0, 0])  # a tie goes to the lower class
    np.testing.assert_array_equal(vote(np.array([[-1]]), np.array([0]), 1), [-1])


def test_interval_by_hand() -> None:
    # class 0: two images, all right and all wrong; class 1: two images, both all right.
    # Drawing two images of class 0 gives recall 0, 1/2 or 1 with probability 1/4, 1/2, 1/4.
    code, groups = np.repeat([0, 0, 1, 1], 5), np.repeat([0, 1, 2, 3], 5)
    predicted = np.where(groups == 1, 1, code)
    score = balanced_accuracy(code, predicted, groups)
    assert (score.accuracy, score.low, score.high) == (0.75, 0.5, 1.0)
    assert (score.n_cells, score.n_classes, score.n_groups) == (20, 2, 4)


def test_no_interval_from_a_single_image() -> None:
    score = balanced_accuracy(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]))
    assert np.isnan(score.low) and score.accuracy == 1


def test_bad_labels_are_named() -> None:
    adata = made_up()
    with pytest.raises(UnknownNameError, match="'locatoin'. Did you mean location"):
        knn_benchmark(adata, "locatoin")
    with pytest.raises(CellTableError, match="no more than k = 50 cells"):
        knn_benchmark(adata, "location", k=50)
    adata.obs["one"] = "x"
    with pytest.raises(CellTableError, match="1 class"):
        knn_benchmark(adata, "one")
    adata.X[3, 2] = np.nan
    with pytest.raises(CellTableError, match="NaN"):
        knn_benchmark(adata, "location")


def test_groups_that_share_nothing_but_the_class() -> None:
    adata = made_up()
    assert independent_groups(adata.obs, "location") == "image"
    adata.obs["field"] = [f"f{i // 5}" for i in range(adata.n_obs)]
    adata.obs["protein"] = adata.obs["image"]  # every protein is a single image, as in the toy sets
    assert independent_groups(adata.obs, "protein") == "field"


def test_a_class_of_a_single_image_is_not_scored_where_images_are_left_out() -> None:
    obs = pd.DataFrame({"location": ["a"] * 6 + ["b"] * 6 + ["c"] * 6 + ["d"] * 2, "image": list("uuuvvvwwwxxxyyyyyyzz")})
    assert scorable(obs, "location", k=3).tolist() == [True] * 12 + [False] * 8  # c: one image, d: two cells
    obs["image"] = obs["location"]
    assert scorable(obs.assign(field="f"), "location", k=3).tolist() == [True] * 18 + [False] * 2


def test_table_has_both_ways_of_leaving_out_and_skips_cells_of_several_terms() -> None:
    adata = made_up()
    adata.obs["location"] = adata.obs["location"].astype(object)
    adata.obs.iloc[:7, adata.obs.columns.get_loc("location")] = ["c0;c1"] * 4 + ["small"] * 3  # three are too few for k = 5
    table = knn_table({"a": adata}, "location", k=5)
    assert table["left_out"].tolist() == ["cell", "image"]
    assert set(table["n_cells"]) == {113} and (table["low"] <= table["accuracy"]).all() and (table["accuracy"] <= table["high"]).all()
    recalls = recall_by_class({"a": adata}, "location", k=5)
    assert recalls["recall"].mean() == pytest.approx(table["accuracy"][1])
    assert recalls["n_cells"].sum() == 113


def test_layout_by_layer() -> None:
    rows = [
        {"left_out": left, "network": network, "layer": layer, "accuracy": 0.6, "low": low, "high": 0.7}
        for left, low in (("cell", 0.5), ("image", float("nan")))
        for network in ("trained", "untrained")
        for layer in PAPER_TABLE_1
    ]
    table = by_layer(pd.DataFrame(rows))
    assert table.columns.tolist() == list(PAPER_TABLE_1)
    assert table.loc[("own cell left out", "trained"), "conv4"] == "0.60 (0.50–0.70)"
    assert table.loc[("own image left out", "untrained"), "conv1"] == "0.60"
    assert table.loc[("own cell left out", "paper, other cells"), "conv4"] == "0.88"


def test_tables_are_written_twice(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [1, 2]})
    save_table(table, tmp_path / "x.y")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "x.y.parquet"), table)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "x.y.csv"), table)
