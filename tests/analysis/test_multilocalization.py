"""The score between two locations: hand-computed, without the own protein, and the errors of tables that do not allow it."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from pci_core.analysis import multilocalization as two
from pci_core.errors import AnalysisNeedsError, CellTableError, ParameterError, UnknownNameError


def cells(x: list[list[float]] | np.ndarray, location: list[str], protein: list[str], **more: object) -> anndata.AnnData:
    ids = [f"c{i}" for i in range(len(location))]
    obs = pd.DataFrame({"cell_id": ids, "image": protein, "protein": protein, "location": location, **more}, index=ids)
    return anndata.AnnData(np.asarray(x, np.float32), obs=obs)


def many(seed: int = 0, n: int = 12, shift: float = 3.0) -> anndata.AnnData:
    """Eight proteins of one location or the other, four of both, in five dimensions; fractions lie along the first."""
    rng = np.random.default_rng(seed)
    rows, location, protein, fraction = [], [], [], []
    for p in range(12):
        kind = ("A", "B", "A;B")[0 if p < 4 else 1 if p < 8 else 2]
        f = np.zeros(n) if kind == "A" else np.ones(n) if kind == "B" else rng.random(n)
        rows.append(rng.normal(size=(n, 5)) * [0.4, 1, 1, 1, 1] + np.outer(f, [shift, 0, 0, 0, 0]))
        location += [kind] * n
        protein += [f"P{p}"] * n
        fraction += list(f)
    return cells(np.concatenate(rows), location, protein, fraction_b=fraction)


def test_the_papers_score_by_hand() -> None:
    # means of the cells alone: A at (0, 0), B at (4, 0); the cell of both at (1, 0) is 1 from A and 3 from B
    x = [[-1, 0], [1, 0], [3, 0], [5, 0], [1, 0], [3, 0]]
    found = two.score(cells(x, ["A", "A", "B", "B", "A;B", "A;B"], list("pqrstu")), "a", "b", scaled=False)
    assert found.loc["c4", "paper"] == pytest.approx(np.log(1 / 3))  # nearer to the first: negative
    assert found.loc["c5", "paper"] == pytest.approx(np.log(3 / 1))
    assert found.loc["c4", "ratio"] == pytest.approx(found.loc["c4", "paper"])  # its own protein is in neither mean
    assert found.loc["c0", "paper"] == pytest.approx(np.log(1 / 5))
    assert found.loc["c0", "ratio"] == pytest.approx(np.log(2 / 5))  # A's mean without protein p is at (1, 0)
    assert found.loc["c4", "projection"] == pytest.approx(-0.5)  # between -1 at A and 1 at B
    assert found["set"].tolist() == ["first", "first", "second", "second", "both", "both"]
    assert found.attrs["unit"] == "protein"


def test_a_protein_alone_elsewhere_is_left_out_of_the_mean_too() -> None:
    x = [[-1, 0], [1, 0], [3, 0], [5, 0], [1, 0], [1, 0]]
    found = two.score(cells(x, ["A", "A", "B", "B", "A;B", "A;B"], list("pqrspt")), "A", "B", scaled=False)
    assert found.loc["c4", "ratio"] == pytest.approx(np.log(np.finfo(float).tiny) - np.log(3))  # without p the mean of A is the cell
    assert found.loc["c5", "ratio"] == pytest.approx(np.log(1 / 3))


def test_swapping_the_locations_turns_the_sign() -> None:
    adata = many()
    one, other = two.score(adata, "A", "B"), two.score(adata, "B", "A")
    for name in ("paper", "ratio", "projection"):
        assert np.allclose(one[name], -other[name], atol=1e-9)


def test_scores_see_no_fraction_and_no_cell_of_both() -> None:
    adata = many()
    found = two.score(adata, "A", "B", scaled=False)
    changed = adata.copy()
    both = (changed.obs["location"] == "A;B").to_numpy()
    changed.obs["fraction_b"] = np.random.default_rng(1).permutation(changed.obs["fraction_b"].to_numpy())
    changed.X[np.flatnonzero(both)[1:]] += 50  # all cells of both but one are elsewhere: that one's score must stay
    again = two.score(changed, "A", "B", scaled=False)
    kept = np.append(np.flatnonzero(~both), np.flatnonzero(both)[0])
    for name in two.SCORES:
        assert np.allclose(found[name].to_numpy()[kept], again[name].to_numpy()[kept], atol=1e-6)


def test_scaling_is_by_all_cells() -> None:
    adata = many()
    stretched = adata.copy()
    stretched.X = stretched.X * np.array([1, 100, 1, 1, 1], np.float32)
    # float32 sums of larger numbers: equal to some 1e-5 only
    assert np.allclose(two.score(adata, "A", "B")["ratio"], two.score(stretched, "A", "B")["ratio"], atol=1e-3)
    assert not np.allclose(
        two.score(adata, "A", "B", scaled=False)["ratio"], two.score(stretched, "A", "B", scaled=False)["ratio"], atol=0.1
    )


def test_which_cells_belong_to_a_pair() -> None:
    obs = pd.DataFrame(
        {"location": ["cytosol", "Cytosol", "Nuclei", "nuclei", "Nuclei; CYTOSOL", "cytosol;nuclei", "cytosol;nuclei;ER", ""]}
    )
    assert two.members(obs, "Cytosol", "Nuclei").tolist() == ["first", "first", "second", "second", "both", "both", "", ""]


def test_a_table_without_the_pair_names_those_it_has() -> None:
    obs = many().obs
    with pytest.raises(AnalysisNeedsError, match=r"'Cytosol' and 'B'.*'A\|B' \(48 cells\).*-p pairs"):
        two.members(obs, "Cytosol", "B")
    with pytest.raises(AnalysisNeedsError, match="needs the column 'place'.*location"):
        two.members(obs, "A", "B", label="place")
    with pytest.raises(AnalysisNeedsError, match="no cells of two locations"):
        two.members(obs[obs["location"] == "A"], "A", "B")


def test_what_is_left_out_together() -> None:
    obs = pd.DataFrame({"image": list("aabbcd"), "protein": list("ppqqrs"), "location": ["A", "A", "A", "A", "B", "B"]})
    sets = np.array(["first"] * 4 + ["second"] * 2)
    assert two.find_unit(obs, sets)[1] == "protein"
    one = obs.assign(protein=list("ppppqq"))
    assert two.find_unit(one, sets)[1] == "image"
    fields = one.assign(image=list("aaaabb"), field=list("uuvvwx"))
    assert two.find_unit(fields, sets)[1] == "field"
    with pytest.raises(AnalysisNeedsError, match="at least two images or fields"):
        two.find_unit(fields.drop(columns="field"), sets)
    joined = obs.drop(columns="protein").assign(twin=list("111122"), image=list("aabbcd"))
    with pytest.raises(AnalysisNeedsError):
        two.find_unit(joined, sets, "twin")  # images that share a group are one


def test_known_fractions() -> None:
    obs = pd.DataFrame(
        {
            "sim_location": ["A", "B", "A;B", "A;B", "A;B", "C", "A;B"],
            "sim_fraction": [np.nan, np.nan, 0.3, 0.4, 0.6, np.nan, 0.9],
            "sim_matched": [True, True, True, False, True, True, True],
            "sim_phenotype": ["A", "B", "A;B", "A;B", "diffuse", "C", "B"],
        }
    )
    nan = np.nan
    assert np.array_equal(two.known_fraction(obs, "a", "b"), [0, 1, 0.3, nan, nan, nan, 0.9], equal_nan=True)
    assert np.allclose(two.known_fraction(obs, "B", "A"), [1, 0, 0.7, nan, nan, nan, 0.1], equal_nan=True)
    given = obs.assign(fraction_b=[0, 1, 0.25, 0.5, 0.75, 0, 0.5])
    assert two.known_fraction(given, "A", "B").tolist() == [0, 1, 0.25, 0.5, 0.75, 0, 0.5]
    assert np.isnan(two.known_fraction(obs[["sim_location"]], "A", "B")).all()


def test_pairs_are_read() -> None:
    assert two.parse_pairs("A|B, C | D,") == [("A", "B"), ("C", "D")]
    for bad in ("A", "A|", "A|B|C", "A|a", "", ","):
        with pytest.raises(ParameterError):
            two.parse_pairs(bad)


def test_features_must_be_numbers() -> None:
    adata = many()
    adata.X[3, 1] = np.nan
    with pytest.raises(CellTableError, match="NaN"):
        two.score(adata, "A", "B")


def test_means_by_protein_and_the_images_shown() -> None:
    scores = two.score(many(), "A", "B")
    table = two.summary(scores, ["protein", "cell_line"])
    assert list(table["protein"]) == sorted(table["protein"], key=lambda p: scores.loc[scores["protein"] == p, "ratio"].mean())
    assert set(table["protein"]) == {"P8", "P9", "P10", "P11"} and (table["n_cells"] == 12).all()
    one = scores[scores["protein"] == "P9"]
    row = table[table["protein"] == "P9"].iloc[0]
    assert row["mean"] == pytest.approx(one["ratio"].mean()) and row["sd"] == pytest.approx(np.std(one["ratio"], ddof=1))
    assert row["fraction_mean"] == pytest.approx(one["fraction"].mean())
    with pytest.raises(UnknownNameError, match="Did you mean ratio"):
        two.summary(scores, ["protein"], "ration")
    shown = two.examples(scores, 3)
    assert len(shown) == 3 and shown == [i for i in two.summary(scores, ["image"])["image"] if i in shown]
    crops = two.example_cells(scores, shown[:1], 4)[shown[0]]
    assert len(crops) == 4 and crops.is_monotonic_increasing and crops.iloc[0] == scores.loc[scores["image"] == shown[0], "ratio"].min()
