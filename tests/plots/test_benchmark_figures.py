"""Figures of the benchmark: what stands where, beside which figure of the paper, and what cannot be drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pci_core import plots
from pci_core.errors import CellTableError, UnknownNameError

Texts = Callable[[Figure], str]
SETS = {"conv4": 0.6, "pixels": 0.2, "my+table": 0.7, "autoencoder_conv2": 0.4}


def scores(sets: dict[str, float] | None = None, ways: tuple[str, ...] = ("cell", "image"), **more: object) -> pd.DataFrame:
    rows = [
        {"features": name, "classifier": "knn", "k": 11, "left_out": way, "accuracy": value - 0.1 * i, "low": value - 0.1 * i - 0.04,
         "high": value - 0.1 * i + 0.06, "n_cells": 4321, "n_classes": 5, "n_groups": 40, "n_features": 8, "n_seeds": 1, **more}
        for name, value in (sets or SETS).items()
        for i, way in enumerate(ways)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def rows_of(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.axes[0].get_yticklabels()]


def marks(figure: Figure, marker: str, panel: int = 0) -> list[tuple[float, float]]:
    """Points drawn with a marker, (x, y)."""
    return [
        (float(x), float(y))
        for line in figure.axes[panel].lines
        if line.get_marker() == marker
        for x, y in zip(np.atleast_1d(line.get_xdata()), np.atleast_1d(line.get_ydata()), strict=True)
    ]


def test_accuracy_is_sorted_without_leaks_and_says_what_is_missing(texts: Texts) -> None:
    paper = {"conv4": 0.8798, "designed": 0.6204, "pixels": float("nan")}
    missing = {"vgg16_block4_conv1_protein": "ImageNet weights were not to be had"}
    figure = plots.feature_set_accuracy(scores(), 0.2, "Sets", paper, missing=missing, note="SIMULATED cells")
    assert rows_of(figure) == ["my (table)", "PCI conv4", "autoencoder conv2", "pixels", "designed", "VGG16 conv4_1, protein"]
    told = texts(figure)
    for part in (
        "Sets",
        "4,321 cells, 5 classes, 40 images",
        "SIMULATED cells",
        "own image left out",
        "paper (other cells)",
        "chance (0.20)",
    ):
        assert part in told
    assert "not computed on these cells" in told and "ImageNet weights were not to be had" in told
    drawn = dict(marks(figure, "D"))
    assert set(drawn) == {0.8798, 0.6204}  # what the paper does not give is not drawn
    assert round(drawn[0.8798]) == 1 and round(drawn[0.6204]) == 4  # each in the row of its set


def test_bars_are_the_intervals() -> None:
    figure = plots.feature_set_accuracy(scores({"conv4": 0.5}, ("cell",)), 0.2, "t")
    bars = figure.axes[0].containers[0][2][0].get_segments()
    np.testing.assert_allclose(bars[0][:, 0], [0.46, 0.56])
    without = scores({"conv4": 0.5}, ("cell",), low=np.nan, high=np.nan)
    bars = plots.feature_set_accuracy(without, 0.2, "t").axes[0].containers[0][2][0].get_segments()
    np.testing.assert_allclose(bars[0][:, 0], [0.5, 0.5])


@pytest.mark.parametrize("n", [2, 40])
def test_any_number_of_rows(n: int, texts: Texts) -> None:
    figure = plots.feature_set_accuracy(scores({f"set{i}": 0.2 + i / 100 for i in range(n)}), 0.2, "t")
    texts(figure)
    assert len(rows_of(figure)) == n


def test_a_set_without_the_papers_way_keeps_its_row(texts: Texts) -> None:
    table = pd.concat([scores({"conv4": 0.6}), scores({"supervised": 0.8}, ("image",))])
    figure = plots.feature_set_accuracy(table, 0.2, "t")
    assert rows_of(figure) == ["supervised", "PCI conv4"] and "–" in texts(figure).split("|")


def test_three_ways_of_leaving_out(texts: Texts) -> None:
    told = texts(plots.feature_set_accuracy(scores(ways=("cell", "landmark_group", "protein")), 0.2, "t"))
    assert "own landmark group left out" in told and "own protein left out" in told and "40 landmark groups" in told
    with pytest.raises(CellTableError, match="4 ways"):
        plots.feature_set_accuracy(scores(ways=("cell", "a", "b", "c", "d")), 0.2, "t")


def test_tables_that_cannot_be_drawn() -> None:
    with pytest.raises(UnknownNameError, match="unknown column 'accuracy'"):
        plots.feature_set_accuracy(scores().drop(columns="accuracy"), 0.2, "t")
    with pytest.raises(CellTableError, match=r"no score of .*'k': 5.*holds .*\[11\]"):
        plots.feature_set_accuracy(scores(), 0.2, "t", k=5)
    with pytest.raises(CellTableError, match="8 scores stand twice"):
        plots.feature_set_accuracy(pd.concat([scores(), scores()]), 0.2, "t")
    with pytest.raises(CellTableError, match="no scores of VGG16"):
        plots.vgg16_layers(scores(), "t")


def test_vgg16_layers_in_order_with_fc1_apart(texts: Texts) -> None:
    names = [f"vgg16_{layer}_{way}" for way in ("protein", "rgb") for layer in ("block5_conv3", "block1_conv1", "fc1")]
    table = scores({name: 0.3 + i / 20 for i, name in enumerate(names)} | {"conv4": 0.9})
    figure = plots.vgg16_layers(table, "VGG16", paper={"vgg16_fc1_protein": 0.6564}, chance=0.2)
    told = texts(figure)
    assert "protein as grey" in told and "channels mapped to RGB" in told and "concatenated" not in told
    lines = [c.lines[0] for c in figure.axes[0].containers]
    protein, fc1 = lines[0], lines[1]
    assert list(np.round(protein.get_xdata().astype(float))) == [0, 12] and list(protein.get_ydata()) == pytest.approx([0.35, 0.3])
    assert float(fc1.get_xdata()[0]) > 13 and fc1.get_linestyle() == "None"
    assert marks(figure, "D") == [(13.4, 0.6564)] and not marks(figure, "D", 1)  # the paper leaves out the cell alone


def test_accuracy_by_k(texts: Texts) -> None:
    table = pd.concat([scores({n: v + k / 1000 for n, v in SETS.items()}, k=k) for k in (1, 11, 50)])
    figure = plots.accuracy_by_k(table, "by k", {"conv4": {1: 0.8551, 5: 0.8789, 50: 0.858}}, chance=0.2)
    told = texts(figure)
    assert "by k" in told and "PCI conv4" in told
    panel = [axes.get_title() for axes in figure.axes].index("PCI conv4")
    assert marks(figure, "D", panel) == [(0.0, 0.8551), (2.0, 0.858)]  # k = 5 is not ours
    assert [t.get_text() for t in figure.axes[panel].get_xticklabels()] == ["1", "11", "50"]


def test_classifiers(texts: Texts) -> None:
    table = pd.concat([
        scores(), scores(classifier="logistic", k=0), scores(classifier="forest", k=0), scores(k=5),
        scores({"supervised": 0.9}, ("image",), classifier="end_to_end", k=0),
    ])  # fmt: skip
    figure = plots.classifiers(table, "supp. 2", {"logistic": {"conv4": 0.9134, "designed": 0.69}}, chance=0.2)
    told = texts(figure)
    assert "random forest" in told and "network's own output" in told and "folds of single cells" in told
    assert rows_of(figure)[:2] == ["my (table)", "PCI conv4"] and rows_of(figure)[-1] == "supervised"
    (x, y), = marks(figure, "D")  # fmt: skip
    assert x == 0.9134 and round(y) == 1
    assert marks(figure, "*", 1) and not marks(figure, "*", 0)


def recalls(n: int = 3, sets: tuple[str, ...] = ("pixels", "conv4")) -> pd.DataFrame:
    rows = [
        {"features": s, "label": f"class {c}", "recall": (c + i) / (n + 2), "n_cells": 10 + c, "left_out": way}
        for i, s in enumerate(sets)
        for c in range(n)
        for way in ("cell", "field")
    ]
    return pd.DataFrame(rows).assign(classifier="knn", k=11)


def test_recall_heatmap(texts: Texts) -> None:
    figure = plots.recall_heatmap(recalls(), "by class", note="real cells")
    told = texts(figure).split("|")
    assert rows_of(figure) == ["mean over classes", "class 2 (n = 12)", "class 1 (n = 11)", "class 0 (n = 10)"]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["PCI conv4", "pixels"]  # best first
    assert told[:4] == ["40", "20", "60", "40"]  # percent: the means, then class 2
    assert "33 cells, 3 classes" in told[-1] and "real cells" in told[-1] and "own field left out" in told[-1]
    texts(plots.recall_heatmap(recalls(21, tuple(f"s{i}" for i in range(12))), "many"))
    assert "own cell left out" in texts(plots.recall_heatmap(recalls(), "t", left_out="cell"))
    with pytest.raises(CellTableError, match="no score"):
        plots.recall_heatmap(recalls(), "t", left_out="protein")


def test_confusion(texts: Texts) -> None:
    matrix = pd.DataFrame([[3, 1, 0], [0, 400, 1], [0, 0, 0]], list("abc"), ["a", "b", "(none)"])
    figure = plots.confusion(matrix, "who for whom")
    told = texts(figure).split("|")
    assert [t.get_text() for t in figure.axes[0].texts] == [
        "75",
        "25",
        "",
        "",
        "100",
        "",
    ]  # 1 of 401 is below half a percent; c has no cells
    assert "who for whom" in told
    assert rows_of(figure) == ["a (n = 4)", "b (n = 401)", "c (n = 0)"] and "405 cells, 2 classes" in told[-1]
    for bad in (matrix * 0, matrix - 1, matrix.iloc[:0]):
        with pytest.raises(CellTableError, match="confusion matrix needs counts"):
            plots.confusion(bad, "t")


def test_umaps_leave_out_what_was_not_laid_out_and_tell_classes_apart(texts: Texts) -> None:
    rng = np.random.default_rng(0)
    labels = np.array([f"class {i:02d}" for i in range(21)] * 4 + [""] * 2)
    plane = rng.normal(size=(len(labels), 2))
    part = plane.copy()
    part[:10] = np.nan
    figure = plots.umaps({"conv4": plane, "classic": part}, labels, "maps", note="SIMULATED cells")
    told = texts(figure)
    assert "PCI conv4 (n = 86)" in told and "classic (n = 76)" in told and "74–84 of 84 labelled cells, 21 classes" in told
    legend = figure.legends[0]
    styles = [(h.get_marker(), h.get_color()) for h in legend.legend_handles]
    assert len(styles) == 22 and len(set(styles)) == 22  # each class, and cells without a label
    assert {t.get_text() for t in figure.axes[0].texts} == {str(i) for i in range(1, 22)}


def test_maps_that_cannot_be_drawn() -> None:
    plane = np.zeros((36, 2))
    with pytest.raises(CellTableError, match="36 classes cannot be told apart"):
        plots.umaps({"a": plane}, [str(i) for i in range(36)], "t")
    with pytest.raises(CellTableError, match=r"shape \(36, 2\), expected \(3, 2\)"):
        plots.umaps({"a": plane}, ["x", "y", "z"], "t")
    with pytest.raises(CellTableError, match="no map"):
        plots.umaps({}, ["x"], "t")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("conv3_mean", "PCI conv3, mean"),
        ("untrained_conv1", "untrained conv1"),
        ("vgg16_fc1_rgb", "VGG16 fc1, rgb"),
        ("conv4+seed=1", "PCI conv4 (seed=1)"),
        ("my_own_table", "my_own_table"),
    ],
)
def test_names_of_feature_sets(name: str, label: str) -> None:
    assert plots.set_label(name) == label
