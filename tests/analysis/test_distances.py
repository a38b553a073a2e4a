"""Distances of images: against scipy, against hand-computed scores, and that the pairs drawn are the ones asked for."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from pci_core.analysis import distances
from pci_core.analysis.image_distances import mean_distances
from pci_core.errors import AnalysisNeedsError, CellTableError, ParameterError, UnknownNameError


def cells(rows: list[tuple[str, str, str, str]], each: int = 2, seed: int = 0) -> anndata.AnnData:
    """Make cells from (image, protein, cell line, location)."""
    obs = pd.DataFrame(rows, columns=["image", "protein", "cell_line", "location"]).loc[np.repeat(np.arange(len(rows)), each)]
    obs.index = [f"c{i}" for i in range(len(obs))]
    return anndata.AnnData(np.random.default_rng(seed).normal(size=(len(obs), 5)).astype(np.float32), obs=obs)


def grid(proteins: int = 4, terms: str = "ab", lines: str = "XY") -> anndata.AnnData:
    """Every protein of every term in every line, one image each."""
    return cells([(f"{t}{p}{c}", f"{t}{p}", c, t) for t in terms for p in range(proteins) for c in lines])


def test_only_proteins_of_one_shared_term_are_compared() -> None:
    rows = [(f"{t}{p}", f"{t}{p}", "X", t) for t in "ab" for p in range(3)]
    rows += [("d", "both", "X", "a;b"), ("e", "rare", "X", "c"), ("n", "none", "X", ""), ("?", "", "X", "a")]
    rows += [("v1", "varied", "X", "a"), ("v2", "varied", "Y", "b")]  # of one term in each image, but not of one
    images = distances.image_table(cells(rows), min_proteins=3)
    assert list(images.index[images["term"] != ""]) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert "?" not in images.index and images.loc["d", "location"] == "a;b" and (images["n_cells"] == 2).all()
    with pytest.raises(AnalysisNeedsError, match="at least 4 proteins of that value alone; found 0 .*'a': 3.*Lower min_proteins"):
        distances.image_table(cells(rows), min_proteins=4)


def test_what_a_table_must_not_have() -> None:
    adata = grid()
    with pytest.raises(ParameterError, match="at least 2"):
        distances.image_table(adata, min_proteins=1)
    with pytest.raises(UnknownNameError, match="unknown column 'locations'. Did you mean location"):
        distances.image_table(adata, "locations")
    adata.obs.iloc[0, adata.obs.columns.get_loc("location")] = "b"
    with pytest.raises(CellTableError, match=r"image 'a0X' have several values of 'location' \(a, b\)"):
        distances.image_table(adata)


def test_pairs_of_terms_are_what_was_asked_for() -> None:
    images = distances.image_table(grid(terms="abc"))
    pairs = distances.draw_term_pairs(images, 200, seed=1)
    one, two = images.iloc[pairs["a"]].reset_index(drop=True), images.iloc[pairs["b"]].reset_index(drop=True)
    assert (one["term"] == pairs["term"]).all() and ((one["term"] == two["term"]) == pairs["same"]).all()
    assert (one["protein"] != two["protein"]).all()
    assert (pairs.assign(other=two["term"]).groupby(["term", "other"]).size() == 200).all()  # 200 for each of the nine
    same = set(zip(one["protein"][pairs["same"]], two["protein"][pairs["same"]], strict=True))
    assert len(same) == 3 * 4 * 3  # every ordered pair of different proteins of a term occurs
    pd.testing.assert_frame_equal(pairs, distances.draw_term_pairs(images, 200, seed=1))
    with pytest.raises(ParameterError, match="number of pairs is 0"):
        distances.draw_term_pairs(images, 0)


@pytest.mark.parametrize("same_line", [True, False])
def test_pairs_of_lines_are_what_was_asked_for(same_line: bool) -> None:
    rows = [(f"{t}{p}{c}", f"{t}{p}", c, t) for t in "ab" for p in range(4) for c in "XY"]
    rows += [(f"many{i}", "a0", "X", "a") for i in range(20)]  # a protein with many images must not be drawn more often
    images = distances.image_table(cells(rows))
    pairs = distances.draw_line_pairs(images, same_line, 4000, seed=2)
    one, two = images.iloc[pairs["a"]].reset_index(drop=True), images.iloc[pairs["b"]].reset_index(drop=True)
    assert ((one["cell_line"] == two["cell_line"]) == same_line).all() and (one["protein"] != two["protein"]).all()
    assert ((one["term"] == two["term"]) == pairs["same"]).all() and (pairs["same"].sum(), len(pairs)) == (4000, 8000)
    if not same_line:
        # of a0's 22 images 21 are of line X, so its weight is 21/22 there and 1/22 in Y, and it stands for one protein in all
        share = (one["protein"] == "a0")[pairs["same"]].mean()
        assert abs(share - 1 / 8) < 0.03  # 4,000 draws: standard error 0.005; by images it would be far above


def test_pairs_of_lines_that_are_not_there() -> None:
    with pytest.raises(AnalysisNeedsError, match="two proteins of one location in different cell lines; these cells have 1 cell lines"):
        distances.draw_line_pairs(distances.image_table(grid(lines="X")), same_line=False, n=10)
    without = grid()
    del without.obs["cell_line"]
    with pytest.raises(AnalysisNeedsError, match="these cells have 0 cell lines"):
        distances.draw_line_pairs(distances.image_table(without), same_line=True, n=10)


def test_scores_by_hand() -> None:
    images = distances.image_table(cells([(f"{t}{p}", f"{t}{p}", "X", t) for t in "ab" for p in range(2)]), min_proteins=2)
    pairs = pd.DataFrame({"same": [True, True, False, False, False, False], "a": [0, 1, 0, 0, 1, 1], "b": [1, 0, 2, 3, 2, 3]})
    distance = np.array([2.0, 2.0, 4.0, 6.0, 4.0, 6.0])
    found = distances.score_pairs(pairs, distance, images, np.ones((1, 4)))
    assert (found.same, found.expected, found.sd) == pytest.approx((2, 5, 1))
    assert (found.normalised[0], found.relative[0]) == pytest.approx((-3, -0.6))
    # a1 not drawn and b0 twice: no pair of two different proteins of a is left; those with b0 count twice
    weighted = distances.score_pairs(pairs[2:].assign(same=[True, False, False, False]), distance[2:], images, np.array([[1, 1, 2, 1.0]]))
    assert weighted.same == pytest.approx(4) and weighted.expected == pytest.approx((6 * 1 + 4 * 2 + 6 * 1) / 4)
    assert np.isnan(distances.score_pairs(pairs, distance, images, np.array([[1, 0, 2, 1.0]])).normalised[0])


def test_weights_keep_the_size_of_each_term() -> None:
    images = distances.image_table(cells([(f"{t}{p}", f"{t}{p}", "X", t) for t, n in (("a", 3), ("b", 5)) for p in range(n)]))
    weights = distances.protein_weights(images, 50, seed=3)
    assert weights.shape == (51, 8) and (weights[0] == 1).all()
    assert (weights[:, :3].sum(1) == 3).all() and (weights[:, 3:].sum(1) == 5).all() and (weights[1:] == 0).any()


def test_no_location_scores_zero_and_a_strong_one_below() -> None:
    adata = cells([(f"{t}{p}", f"{t}{p}", "X", t) for t in "abc" for p in range(12)], each=6)
    images = distances.image_table(adata)
    pairs = distances.draw_term_pairs(images, 300)
    code = images.index.get_indexer(adata.obs["image"])
    weights = distances.protein_weights(images, 200)

    def score(x: np.ndarray) -> pd.DataFrame:
        found = mean_distances(x.astype(np.float32), code, pairs["a"].to_numpy(), pairs["b"].to_numpy())
        return distances.score_terms(pairs, found, images, weights)

    nothing = score(np.asarray(adata.X)).iloc[-1]
    assert nothing["term"] == distances.ALL_TERMS and nothing["low"] < 0 < nothing["high"] and abs(nothing["normalised"]) < 0.3
    by_term = score(np.asarray(adata.X) + 3 * np.eye(5)[pd.factorize(adata.obs["location"])[0]])
    assert (by_term["normalised"] < -1).all() and (by_term["high"] < 0).all() and (by_term["relative"] < 0).all()
    assert by_term["normalised"].iloc[-1] == pytest.approx(by_term["normalised"].iloc[:-1].mean())
    assert by_term["n_cells"].tolist() == [72, 72, 72, 216] and by_term["n_proteins"].tolist() == [12, 12, 12, 36]


def test_an_interval_needs_half_of_its_draws() -> None:
    many = [10**9]  # proteins: plain percentiles
    assert distances.interval(np.array([1.0, *np.arange(101)]), many) == pytest.approx((1.0, 2.5, 97.5))
    low, high = distances.interval(np.array([1.0, *np.arange(101)]), [10])[1:]
    assert low < 1.5 and high > 98.5  # of few proteins they stand further out
    assert np.isnan(distances.interval(np.array([1.0, 2.0, np.nan, np.nan])[:], many)[1:]).all()
    assert np.isnan(distances.interval(np.array([1.0]), many)[1])
