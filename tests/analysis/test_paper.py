"""The paper's figures: against the published file where there is one, and beside ours in tables."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from pci_core.analysis.paper import PAPER_FIGURE_2A, PAPER_KS, PAPER_SUPP_1, PAPER_SUPP_2, beside_paper, paper_figure


@pytest.mark.parametrize(
    ("name", "classifier", "k", "figure"),
    [
        ("conv1", "knn", 11, 0.4309),
        ("conv4", "knn", 11, 0.8798),
        ("conv4+seed=1", "knn", 25, 0.8720),
        ("conv4", "forest", 0, 0.8749),
        ("autoencoder_conv3", "knn", 50, 0.4719),
        ("vgg16_block4_conv1_protein", "logistic", 0, 0.8377),
        ("vgg16_fc1_protein", "knn", 11, 0.6564),
        ("designed", "knn", 1, 0.5716),
        ("cellprofiler", "logistic", 0, 0.80),
        ("supervised", "knn", 11, 0.9239),
        ("supervised", "knn", 5, 0.9225),
        ("supervised", "end_to_end", 0, 0.9402),
    ],
)
def test_our_names_find_the_papers_figures(name: str, classifier: str, k: int, figure: float) -> None:
    assert paper_figure(name, classifier, k) == figure


@pytest.mark.parametrize(
    ("name", "classifier", "k"),
    [
        ("conv3", "knn", 5),
        ("conv3", "forest", 0),
        ("conv4", "knn", 7),
        ("conv4_mean", "knn", 11),
        ("untrained_conv4", "knn", 11),
        ("pixels", "knn", 11),
        ("classic", "knn", 11),
        ("vgg16_block4_conv1_rgb", "knn", 11),
        ("vgg16_fc1_rgb", "knn", 11),
        ("vgg16_fc1_protein", "knn", 5),
        ("vgg16_block3_conv1_protein", "knn", 11),
        ("designed", "end_to_end", 0),
        ("designed", "other", 0),
    ],
)
def test_where_the_paper_has_no_figure_there_is_none(name: str, classifier: str, k: int) -> None:
    assert math.isnan(paper_figure(name, classifier, k))


def test_the_tables_agree_with_one_another() -> None:
    assert {f: by_k[11] for f, by_k in PAPER_SUPP_1.items() if f != "supervised"} == {
        f: v for f, v in PAPER_FIGURE_2A.items() if f != "supervised"
    }
    assert set(PAPER_SUPP_2["logistic"]) == set(PAPER_SUPP_2["forest"]) == set(PAPER_FIGURE_2A)
    assert all(tuple(by_k) == PAPER_KS for by_k in PAPER_SUPP_1.values())


def scores() -> pd.DataFrame:
    rows = [
        {"features": f, "classifier": "knn", "k": k, "left_out": w, "accuracy": 0.6, "low": low, "high": 0.7}
        for f in ("conv4", "pixels", "supervised")
        for k in (5, 11)
        for w, low in (("cell", float("nan")), ("image", 0.5))
        if not (f == "supervised" and w == "cell")
    ]
    return pd.DataFrame(rows)


def test_ways_of_leaving_out_side_by_side() -> None:
    table = beside_paper(scores().query("k == 11"))
    assert table.columns.tolist() == ["own cell left out", "own image left out", "paper (own cell left out, other cells)"]
    assert table.loc["conv4"].tolist() == ["0.60", "0.60 (0.50–0.70)", "0.88"]
    assert table.loc["pixels"].tolist() == ["0.60", "0.60 (0.50–0.70)", ""]
    assert table.loc["supervised"].tolist() == ["", "0.60 (0.50–0.70)", "0.92"]


def test_k_side_by_side_with_the_papers_only_beside_the_same_way() -> None:
    table = beside_paper(scores().query("left_out == 'cell' or features == 'supervised'"), "k")
    assert table.columns.tolist() == ["k = 5", "k = 5, paper", "k = 11", "k = 11, paper"]
    assert table.loc["conv4", "k = 5, paper"] == "0.88" and table.loc["pixels", "k = 5, paper"] == ""
    assert table.loc["supervised", "k = 5, paper"] == "0.92"
    other = beside_paper(scores().query("left_out == 'image' and features != 'supervised'"), "k")
    assert other.columns.tolist() == ["k = 5", "k = 11"]


def test_rows_that_do_not_fit_one_table_are_refused() -> None:
    with pytest.raises(ValueError, match="several rows for .*conv4"):
        beside_paper(scores())
