"""The figures of clusters show every protein, cluster and location that they say they show."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pci_core.analysis import trees
from pci_core.errors import CellTableError
from pci_core.plots import clusters as figures


def texts(figure: Figure) -> str:
    parts = [
        t.get_text() for a in figure.axes for t in (*a.texts, a.xaxis.label, a.yaxis.label, *a.get_xticklabels(), *a.get_yticklabels())
    ]
    return "\n".join([*parts, figure.get_suptitle(), figure.get_supxlabel()])


def made(n: int = 30, f: int = 8) -> tuple[np.ndarray, trees.Tree, trees.Tree, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(n, f)).astype(np.float32)
    rows, columns = trees.grow(x, [f"P{i}" for i in range(n)]), trees.grow(x.T, [f"f{i}" for i in range(f)])
    labels = np.zeros(n, int)
    labels[rows.order[: n // 3]], labels[rows.order[n // 2 :]] = 1, 2
    return x, rows, columns, labels


def test_the_heat_map_stands_in_dendrogram_order() -> None:
    x, rows, columns, labels = made()
    figure = figures.heat_map(x, rows, columns, labels, {1: "1 Nucleoli", 2: "2 Cytosol"}, "Title", note="SIMULATED cells", n_cells=900)
    image = next(a.images[0] for a in figure.axes if a.images)
    np.testing.assert_allclose(image.get_array(), np.clip(x[rows.order][:, columns.order], -2.5, 2.5))
    assert image.get_rasterized()
    told = texts(figure)
    for part in (
        "1 Nucleoli",
        "2 Cytosol",
        "900 cells, 30 proteins, 8 features",
        "2 clusters",
        "5 proteins in no cluster",
        "SIMULATED cells",
    ):
        assert part in told
    names = next(a for a in figure.axes if a.images).get_yticklabels()
    assert [t.get_text() for t in names] == [f"P{i}" for i in rows.order]
    # one fork of the dendrogram a merge, and the leaves where the rows are
    row_forks = max((c for a in figure.axes for c in a.collections), key=lambda c: len(c.get_paths()))
    assert len(row_forks.get_paths()) == 29
    assert yellow_is_positive()


def yellow_is_positive() -> bool:
    low, middle, high = (np.array(figures.YELLOW_BLUE(v)[:3]) for v in (0.0, 0.5, 1.0))
    return high[0] > 0.9 and high[2] < 0.6 and low[2] > 0.9 and middle.max() < 0.05


def test_a_large_heat_map_stays_small_and_names_what_leaves_room() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2500, 12)).astype(np.float32)
    rows = trees.grow(x, [f"P{i}" for i in range(2500)])
    labels = np.zeros(2500, int)
    labels[rows.order] = 1 + np.arange(2500) // 5  # 500 clusters of 5
    figure = figures.heat_map(x, rows, trees.grow(x.T, map(str, range(12))), labels, {}, "Title")
    assert "500 clusters, the " in texts(figure) and "largest that leave room named" in texts(figure)
    forks = max(len(c.get_paths()) for a in figure.axes for c in a.collections)
    assert forks == (rows.merges[:, 3] >= 2500 / 400).sum()  # smaller ones would lie on one another
    for kind, most in (("png", 1.5e6), ("svg", 3e6)):  # bytes; 2,500 forks as vectors alone would be larger
        out = io.BytesIO()
        figure.savefig(out, format=kind, dpi=100)
        assert out.tell() < most
    with pytest.raises(CellTableError, match="do not fit 2500 rows"):
        figures.heat_map(x[1:], rows, rows, labels, {}, "Title")


def test_composition_counts_proteins_of_one_location() -> None:
    labels = np.array([1, 1, 2, 2, 0, 1])
    locations = pd.Series(["a", "a", "b", "a", "b", "a;b"])
    figure = figures.composition(labels, locations, {1: "1 x", 2: "2 y"}, "Title")
    assert np.asarray(figure.axes[0].images[0].get_array()).tolist() == [[2, 1, 0], [0, 1, 1]]
    told = texts(figure)
    assert "a (3)" in told and "b (2)" in told and "1 x" in told and "in none" in told and "5 of 6 proteins" in told
    with pytest.raises(CellTableError, match="no protein has one annotated location"):
        figures.composition(labels, pd.Series([""] * 6), {}, "Title")


def test_stability_is_sorted_and_said() -> None:
    table = pd.DataFrame({"cluster": [1, 2, 3], "n_proteins": [5, 9, 3], "jaccard": [0.4, 0.9, 0.6]})
    table = table.assign(low=table["jaccard"] - 0.2, high=table["jaccard"] + 0.1, found_again=1.0, unit="image", draws=20)
    figure = figures.stability(table, {2: "2 Nucleoli"}, "Title", most=2)
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels == ["2 Nucleoli (n = 9)", "1 (n = 5)"]
    told = texts(figure).replace("\n", " ")
    assert "the 2 largest of 3 clusters" in told and "20 draws of every protein's images" in told
    with pytest.raises(CellTableError):
        figures.stability(table.iloc[:0], {}, "Title")
