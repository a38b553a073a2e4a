"""Robustness to the cell line: ranks by hand, a shift between lines that scaling within lines takes away, the paper's figures."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from pci_core.analysis import cell_lines
from pci_core.analysis.distances import ALL_TERMS
from pci_core.errors import AnalysisNeedsError, CellTableError, UnknownNameError


def shifted(shift: float, seed: int = 0, proteins: int = 5, each: int = 4) -> anndata.AnnData:
    """Three locations and an own place for each protein; the second cell line lies `shift` away in every feature."""
    rng = np.random.default_rng(seed)
    rows, x = [], []
    for t in range(3):
        for p in range(proteins):
            place = 2 * np.eye(8)[t] + 1.5 * rng.normal(size=8)
            for line in range(2):
                for _ in range(each):
                    rows.append((f"{t}{p}{line}", f"P{t}{p}", "XY"[line], f"term {t}"))
                    x.append(place + shift * line + rng.normal(size=8))
    obs = pd.DataFrame(rows, columns=["image", "protein", "cell_line", "location"], index=[f"c{i}" for i in range(len(rows))])
    return anndata.AnnData(np.array(x, np.float32), obs=obs)


def small(adata: anndata.AnnData, **more: bool) -> cell_lines.Robustness:
    return cell_lines.robustness(adata, term_pairs=200, line_pairs=2000, draws=100, **more)


def test_a_shift_between_lines_costs_and_scaling_takes_it_away() -> None:
    adata = shifted(3.0)
    over_all, within = small(adata), small(adata, within_line=True)
    difference = over_all.lines.set_index("what")["value"]
    assert difference[cell_lines.DIFFERENCE] == pytest.approx(difference[cell_lines.DIFFERENT] - difference[cell_lines.SAME])
    assert over_all.lines["low"].iloc[2] > 0  # the interval of the difference is above zero
    assert abs(within.lines["value"].iloc[2]) < over_all.lines["value"].iloc[2] / 3
    assert (
        over_all.nearest.set_index("what").loc[cell_lines.FIRST, "value"] < within.nearest.set_index("what").loc[cell_lines.FIRST, "value"]
    )
    assert (within.lines["value"][:2] < -0.3).all() and len(over_all.terms) == 4


def test_without_a_shift_nothing_is_lost() -> None:
    lines = small(shifted(0.0)).lines.set_index("what")
    assert lines.loc[cell_lines.DIFFERENCE, "low"] < 0.1 and abs(lines.loc[cell_lines.DIFFERENCE, "value"]) < 0.15


def test_ranks_by_hand() -> None:
    # in line Y, p stands at 0, q at 2, r at 5; in line X, p at 0 (nearest p), q at 4.5 (r 0.5, q 2.5 away), and no r
    rows = [
        ("i1", "p", "X", 0.0),
        ("i2", "q", "X", 4.5),
        ("i3", "p", "Y", -1.0),
        ("i4", "p", "Y", 1.0),
        ("i5", "q", "Y", 2.0),
        ("i6", "r", "Y", 5.0),
    ]
    images = pd.DataFrame(rows, columns=["image", "protein", "cell_line", "x"]).set_index("image")
    images["location"] = ["a", "b", "a", "a", "b", "a"]
    ranks = cell_lines.line_ranks(images[["x"]].to_numpy(np.float32), images, np.arange(6))
    x_to_y = ranks[ranks["cell_line"] == "X"].set_index("protein")
    assert x_to_y["rank"].to_dict() == {"p": 1.0, "q": 2.0} and (x_to_y["n_candidates"] == 3).all()
    assert x_to_y["n_same_location"].to_dict() == {"p": 2, "q": 1}
    y_to_x = ranks[ranks["cell_line"] == "Y"].set_index("protein")
    assert set(y_to_x.index) == {"p", "q"} and y_to_x["rank"].to_dict() == {"p": 1.0, "q": 2.0}  # q of Y at 2 is 2 from p, 2.5 from q
    tied = images.assign(x=0.0)
    assert (cell_lines.line_ranks(tied[["x"]].to_numpy(np.float32), tied, np.arange(6))["rank"] == [2.0, 2.0, 1.5, 1.5]).all()
    with pytest.raises(AnalysisNeedsError, match="a protein with images in two cell lines"):
        cell_lines.line_ranks(images[["x"]].to_numpy(np.float32), images.assign(cell_line="X"), np.arange(6))


def test_what_ranks_say() -> None:
    ranks = pd.DataFrame({"protein": list("aabb"), "rank": [1.0, 3.0, 6.0, 1.5], "n_candidates": 10, "n_same_location": [1, 1, 2, 2]})
    told = cell_lines.summarise_ranks(ranks, draws=200).set_index("what")
    assert told["value"].to_dict() == {cell_lines.MEDIAN: 2.25, cell_lines.FIRST: 0.5, cell_lines.FIVE: 0.75}
    assert told["chance"].to_dict() == pytest.approx({cell_lines.MEDIAN: 5.5, cell_lines.FIRST: 0.1, cell_lines.FIVE: 0.5})
    assert told["location_only"].to_dict() == pytest.approx({cell_lines.MEDIAN: 1.25, cell_lines.FIRST: 0.75, cell_lines.FIVE: 1.0})
    assert (told["low"] <= told["value"]).all() and (told["value"] <= told["high"]).all() and (told["n_proteins"] == 2).all()


def test_scaled_within_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(["a", "b"], 20)
    x = rng.normal(size=(40, 3)) * np.where(groups == "a", 1, 9)[:, None] + 4
    out = cell_lines.scaled(x, groups)
    for group in "ab":
        np.testing.assert_allclose(out[groups == group].mean(0), 0, atol=1e-6)  # float32
        np.testing.assert_allclose(out[groups == group].std(0), 1, atol=1e-6)


def test_bad_cells() -> None:
    adata = shifted(1.0)
    adata.X[3, 2] = np.nan
    with pytest.raises(CellTableError, match=r"1 features hold NaN or infinite values, e.g. \['2'\]"):
        small(adata)
    one = shifted(1.0)
    with pytest.raises(AnalysisNeedsError, match="these cells have 1 cell lines"):
        small(one[one.obs["cell_line"] == "X"].copy())
    with pytest.raises(UnknownNameError, match="unknown column 'place'"):
        cell_lines.robustness(one, label="place")


def test_folds_of_a_supervised_set_are_not_mixed() -> None:
    adata = shifted(1.0)
    twice = anndata.concat([adata, adata], index_unique="-")
    twice.obs["fold"] = np.repeat([0, 1], adata.n_obs)
    twice.obsm["fold_0"] = np.vstack([adata.X, 100 * np.ones_like(adata.X)])  # of cells it was trained on
    pd.testing.assert_frame_equal(small(twice).terms, small(adata).terms)


def test_the_papers_figures() -> None:
    assert cell_lines.paper_distances("conv3") == {
        ALL_TERMS: -0.574,
        "same cell line": -0.4855,
        "different cell lines": -0.3953,
        "difference": 0.0902,
    }
    assert cell_lines.paper_distances("autoencoder_conv2+seed=1")[ALL_TERMS] == -0.281
    assert cell_lines.paper_distances("vgg16_block4_conv1_protein")[ALL_TERMS] == -0.325
    for other in ("untrained_conv3", "conv2", "vgg16_fc1_rgb", "designed"):
        assert cell_lines.paper_distances(other) == {}


def test_side_by_side() -> None:
    r = small(shifted(1.0))
    table = cell_lines.side_by_side({"conv3": dict.fromkeys(cell_lines.SCALINGS, r), "mine": {cell_lines.SCALINGS[0]: r}})
    assert len(table) == 3 * 7 and table["paper"].notna().sum() == 4  # only conv3, and only as the paper scales
    wide = cell_lines.laid_out(table)
    assert list(wide.index.get_level_values(0)) == ["conv3", "conv3", "mine"] and wide.shape == (3, 6)
    assert wide.iloc[0]["difference, paper (other cells)"] == "0.090" and wide.iloc[2]["difference, paper (other cells)"] == ""
    assert "difference, paper (other cells)" not in cell_lines.laid_out(table[table["features"] == "mine"])
