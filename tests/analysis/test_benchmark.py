"""The benchmark of all feature sets: the same cells for all, seeds, supervised sets in their own spaces, what is left out."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from pci_core.analysis import crossval
from pci_core.analysis.benchmark import benchmark
from pci_core.analysis.classify import knn_table
from pci_core.analysis.crossval import cross_validate, make_folds
from pci_core.analysis.result import RECALLS, SCORES, Benchmark
from pci_core.analysis.scores import row_shares
from pci_core.errors import CellTableError, DatasetError, UnknownNameError

QUICK = {"quiet": True, "jobs": 1, "draws": 200}


def cells(n: int = 240) -> pd.DataFrame:
    image = np.arange(n) // 10  # 24 images of 10 cells; classes of 6 images, proteins of 2
    obs = pd.DataFrame(
        {"image": [f"i{i}" for i in image], "protein": [f"p{i // 2}" for i in image], "location": [f"c{i % 4}" for i in image // 2]}
    )
    return obs.set_axis([f"cell{i}" for i in range(n)])


def made_up(seed: int = 0, obs: pd.DataFrame | None = None) -> anndata.AnnData:
    obs = cells() if obs is None else obs
    rng = np.random.default_rng(seed)
    code = pd.factorize(obs["location"], sort=True)[0]
    x = rng.normal(size=(len(obs), 6)) + code[:, None] * 0.5 + rng.normal(size=(100, 6))[pd.factorize(obs["image"])[0]] * 0.5
    return anndata.AnnData(x.astype(np.float32), obs=obs)


def supervised() -> anndata.AnnData:
    adata = made_up(7)
    image = pd.factorize(adata.obs["image"])[0]
    adata.obs["fold"] = image % 3
    adata.obs.loc[adata.obs["image"] == "i5", "fold"] = -1
    said = adata.obs["location"].where(np.arange(adata.n_obs) % 5 > 0, "c0")
    adata.obs["supervised_predicted"] = said.where(adata.obs["fold"] >= 0, "")
    for f in range(3):
        adata.obsm[f"fold_{f}"] = made_up(20 + f).X
    adata.uns["pci"] = {"folds": np.int64(3), "label": "location", "split_by": "image"}
    return adata


def only(scores: pd.DataFrame, **where: object) -> pd.Series:
    for column, value in where.items():
        scores = scores[scores[column] == value]
    assert len(scores) == 1
    return scores.iloc[0]


def test_knn_rows_are_those_of_the_table_that_scores_one_set() -> None:
    sets = {"a": made_up(0), "b": made_up(1)}
    found = benchmark(sets, "location", classifiers=["knn"], ks=[11, 1], quiet=True)
    expected = knn_table(sets, "location")
    columns = ["features", "left_out", "accuracy", "low", "high", "n_cells", "n_classes", "n_groups", "n_features", "n_seeds"]
    pd.testing.assert_frame_equal(found.scores.query("k == 11")[columns].reset_index(drop=True), expected[columns])
    assert found.scores.columns.tolist() == list(SCORES) and found.recalls.columns.tolist() == list(RECALLS)
    assert len(found.scores) == 2 * 2 * 2 and set(found.confusion) == {(s, w) for s in "ab" for w in ("cell", "image")}
    row = only(found.scores, features="b", k=11, left_out="image")
    shares = found.recalls.query("features == 'b' and k == 11 and left_out == 'image'")
    assert shares["recall"].mean() == pytest.approx(row["accuracy"]) and shares["n_cells"].sum() == 240
    np.testing.assert_allclose(np.diag(row_shares(found.confusion["b", "image"])), shares["recall"])


def test_cross_validated_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossval, "TREES", 10)  # for speed
    adata = made_up()
    found = benchmark({"a": adata}, "location", classifiers=["logistic", "forest"], seed=3, **QUICK)
    assert not found.confusion and set(found.scores["k"]) == {0}
    names, code = np.unique(adata.obs["location"], return_inverse=True)
    for left_out, groups in (("cell", None), ("image", pd.factorize(adata.obs["image"])[0])):
        for kind in ("logistic", "forest"):
            predicted = cross_validate(kind, adata.X, code, make_folds(code, groups, seed=3), seed=3, jobs=1)
            row = only(found.scores, classifier=kind, left_out=left_out)
            assert row["accuracy"] == pytest.approx(balanced_accuracy_score(code, predicted))


def test_own_protein_left_out() -> None:
    adata = made_up()
    found = benchmark({"a": adata}, "location", classifiers=["knn"], ks=[5], leave_out_protein=True, **QUICK)
    assert found.scores["left_out"].tolist() == ["cell", "image", "protein"]
    assert found.scores["n_groups"].tolist() == [24, 24, 12]  # what is left out together is drawn together
    x, y, protein = StandardScaler().fit_transform(adata.X), adata.obs["location"].to_numpy(), adata.obs["protein"].to_numpy()
    predicted = np.empty_like(y)
    for p in np.unique(protein):
        own = protein == p
        predicted[own] = KNeighborsClassifier(5, algorithm="brute").fit(x[~own], y[~own]).predict(x[own])
    assert found.scores["accuracy"][2] == pytest.approx(balanced_accuracy_score(y, predicted))
    with pytest.raises(CellTableError, match="class of one protein"):
        benchmark({"a": adata}, "protein", classifiers=["knn"], ks=[5], leave_out_protein=True, **QUICK)


def test_several_seeds_of_one_set() -> None:
    sets = [made_up(0), made_up(1), made_up(2)]
    found = benchmark({"conv4": sets}, "location", classifiers=["knn"], ks=[11], **QUICK)
    each = [knn_table({"a": a}, "location")["accuracy"] for a in sets]
    np.testing.assert_allclose(found.scores["accuracy"], np.mean(each, axis=0))
    assert set(found.scores["n_seeds"]) == {3} and found.confusion["conv4", "cell"].to_numpy().sum() == 720


def test_supervised_sets_are_scored_in_the_space_of_each_fold() -> None:
    adata = supervised()
    found = benchmark({"a": made_up(), "supervised": adata}, "location", classifiers=["knn", "logistic"], ks=[5], **QUICK)
    assert set(found.scores["n_cells"]) == {230}  # the cells that no fold tested are out for all sets
    assert found.omitted["what"].tolist()[0] == "cells that 'supervised' never tested" and found.omitted["n_cells"].tolist()[0] == 10
    mine = found.scores[found.scores["features"] == "supervised"]
    assert mine[["classifier", "left_out"]].to_numpy().tolist() == [["knn", "image"], ["logistic", "image"], ["end_to_end", "image"]]
    used = (adata.obs["fold"] >= 0).to_numpy()
    fold, y = adata.obs["fold"].to_numpy()[used], adata.obs["location"].to_numpy()[used]
    predicted = np.empty_like(y)
    for f in range(3):
        x, train = adata.obsm[f"fold_{f}"][used], fold != f
        scaler = StandardScaler().fit(x[train])
        model = KNeighborsClassifier(5, algorithm="brute").fit(scaler.transform(x[train]), y[train])
        predicted[~train] = model.predict(scaler.transform(x[~train]))
    assert only(mine, classifier="knn")["accuracy"] == pytest.approx(balanced_accuracy_score(y, predicted))
    said = adata.obs["supervised_predicted"].to_numpy()[used]
    assert only(mine, classifier="end_to_end")["accuracy"] == pytest.approx(balanced_accuracy_score(y, said))


def test_supervised_sets_have_no_row_that_leaks() -> None:
    # images of one protein stand in different folds: with the own protein left out there is no such row
    found = benchmark({"supervised": supervised()}, "location", classifiers=["knn"], ks=[5], leave_out_protein=True, **QUICK)
    assert set(found.scores["left_out"]) == {"image"}
    assert "'supervised' with the own protein left out" in found.omitted["what"].tolist()
    adata = supervised()
    adata.uns["pci"]["label"] = "protein"
    with pytest.raises(CellTableError, match="'supervised' was trained on 'protein', not on 'location'"):
        benchmark({"supervised": adata}, "location", classifiers=["knn"], **QUICK)


def test_all_sets_are_scored_on_the_same_cells_and_the_rest_is_counted() -> None:
    obs = cells()
    obs["location"] = obs["location"].astype(object)
    obs.iloc[100:104, 2], obs.iloc[104:106, 2], obs.iloc[12:13, 2] = "", "c1;c2", "few"
    obs.iloc[80:92, 2] = "lonely"
    obs.iloc[80:92, 0] = "i8"  # also the two that were of image i9
    a = made_up(0)
    a.obs, short = obs, made_up(1)[12:].copy()
    short.obs = short.obs[[]]  # without a label: the table is the other's
    short.X[:, 3] = 4.0
    found = benchmark({"a": a, "short": short}, "location", classifiers=["knn"], ks=[1, 11, 50, 300], **QUICK)
    told = dict(zip(found.omitted["what"], found.omitted["n_cells"], strict=True))
    assert told == {
        "cells of 'a'": 12,
        "cells without 'location'": 4,
        "cells with several terms of 'location'": 2,
        "class 'few'": 1,
        "class 'lonely'": 12,
        "k = 50": 35,  # c0: 60 cells less 12 not in both, one few, 12 lonely
        "k = 300": 209,
        "1 of 6 features of 'short'": 209,
    }
    assert set(found.scores["n_cells"]) == {209} and set(found.scores["k"]) == {1, 11, 50}
    tiny = benchmark({"a": a}, "location", classifiers=["knn"], ks=[100], **QUICK).omitted.set_index("what")
    assert "class of one image" in tiny.loc["class 'few'", "why"] and "4 classes have no more than k cells" in tiny.loc["k = 100", "why"]


def test_a_class_needs_more_cells_than_the_papers_k() -> None:
    adata = made_up()
    adata.obs["location"] = adata.obs["location"].where(~adata.obs["image"].isin(["i0", "i1"]), "small")
    adata = adata[np.r_[0:6, 10:15, 20:240]].copy()  # 11 cells of two images
    found = benchmark({"a": adata}, "location", classifiers=["knn"], **QUICK)
    assert found.omitted.iloc[0].tolist() == ["class 'small'", 11, "class too small: 11 cells, more than 11 are needed"]
    assert set(found.scores["n_classes"]) == {4}
    assert set(benchmark({"a": adata}, "location", classifiers=["knn"], ks=[5], **QUICK).scores["n_classes"]) == {5}


def test_bad_input_is_named() -> None:
    adata = made_up()
    with pytest.raises(UnknownNameError, match="'knnn'. Did you mean knn"):
        benchmark({"a": adata}, "location", classifiers=["knnn"], **QUICK)
    with pytest.raises(UnknownNameError, match="k = 0"):
        benchmark({"a": adata}, "location", ks=[0, 5], **QUICK)
    with pytest.raises(UnknownNameError, match="'imag'. Did you mean image"):
        benchmark({"a": adata}, "location", group="imag", **QUICK)
    one = adata.copy()
    one.obs["location"] = "only"
    with pytest.raises(CellTableError, match=r"1 class\(es\)"):
        benchmark({"a": one}, "location", **QUICK)
    flat = adata.copy()
    flat.X[:] = 1
    with pytest.raises(CellTableError, match="'a': all 6 features are the same"):
        benchmark({"a": flat}, "location", classifiers=["knn"], **QUICK)
    adata.X[3, 2] = np.nan
    with pytest.raises(CellTableError, match="'a' holds NaN or infinite values: 1 features, e.g. .'2'., of 1 cells"):
        benchmark({"a": adata}, "location", classifiers=["knn"], **QUICK)


def test_saved_whole_and_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adata = made_up()
    adata.obs["field"] = adata.obs["image"]
    found = benchmark({"a": adata}, "location", classifiers=["knn"], ks=[5], group="field", jobs=1, draws=0)
    assert "Scoring a: 240 cells in 4 classes of 'location'; left out: own cell, own field; knn with 1 processes" in capsys.readouterr().out
    path = found.save(tmp_path, "02_location")
    again = Benchmark.read(path)
    for name in ("scores", "recalls", "omitted"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(found, name))
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"02_location_{name}.parquet"), getattr(found, name))
        assert (tmp_path / f"02_location_{name}.csv").exists()
    pd.testing.assert_frame_equal(again.confusion["a", "field"], found.confusion["a", "field"])
    assert again.settings == found.settings and "NaN" not in path.read_text()
    path.write_text("{}")
    with pytest.raises(DatasetError, match="no readable benchmark"):
        Benchmark.read(path)
