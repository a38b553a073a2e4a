"""Scores of single-cell variability by hand, what is known of it, and branches against phenotypes."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pci_core.analysis import variability as vary
from pci_core.analysis import variability_truth as truth
from pci_core.errors import AnalysisNeedsError, CellTableError, ParameterError, UnknownNameError


def made(n: int = 20, proteins: int = 10, seed: int = 0) -> anndata.AnnData:
    """Proteins V0 and V1 have cells of two kinds; the others' cells spread around one point, S-proteins more in every cell."""
    rng = np.random.default_rng(seed)
    x, obs = [], []
    for p in range(proteins):
        kind = "V" if p < 2 else "S" if p < 5 else "P"
        for image in range(2):
            cells = rng.normal(size=(n, 8)) * (2.0 if kind == "S" else 0.5) + (np.array([12.0] + [0.0] * 7) if kind == "S" else 0)
            second = (np.arange(n) % 3 == 0) & (kind == "V")
            cells[second] += [0, 5, 0, 0, 0, 0, 0, 0]
            x.append(cells)
            one = {"protein": f"{kind}{p}", "image": f"{kind}{p}_{image}", "cell_line": "ab"[image], "location": "L"}
            phenotype = np.where(second, "two", "one")
            obs.append(pd.DataFrame({**one, "sim_phenotype": phenotype, "sim_variation": "location" if kind == "V" else ""}))
    table = pd.concat(obs, ignore_index=True)
    table.insert(0, "cell_id", [f"c{i}" for i in range(len(table))])
    return anndata.AnnData(np.concatenate(x).astype(np.float32), obs=table.set_index("cell_id", drop=False).rename_axis(None))


def test_spread_by_hand() -> None:
    # two images of five cells; scaled to unit variance over all ten cells by one standard deviation
    x = np.array([[-2.0], [-1], [0], [1], [2], [-4], [-2], [0], [2], [4]])
    obs = pd.DataFrame({"image": ["a"] * 5 + ["b"] * 5, "protein": ["p"] * 5 + ["q"] * 5}, index=[str(i) for i in range(10)])
    found = vary.image_scores(anndata.AnnData(x.astype(np.float32), obs=obs)).set_index("image")
    assert found.loc["a", "spread"] == pytest.approx(np.sqrt(10 / 4) / x.std(), rel=1e-5)  # float32 features
    assert found.loc["b", "spread"] == pytest.approx(2 * found.loc["a", "spread"], rel=1e-5)
    assert found.loc["b", "relative"] == pytest.approx(1, abs=1e-5) and found.loc["a", "relative"] == pytest.approx(-1, abs=1e-5)
    assert found["direction"].to_numpy() == pytest.approx([1, 1])  # there is one direction only
    assert found.loc["a", "combined"] == pytest.approx(found.loc["a", "relative"], abs=1e-5)
    symmetric = np.array([-2, -1, 0, 1, 2]) / np.sqrt(2)
    assert found.loc["a", "bimodality"] == pytest.approx(1 / (symmetric**4).mean(), rel=1e-4)


def test_variable_proteins_are_found_and_spread_ones_are_not() -> None:
    images = vary.image_scores(made(), neighbours=3)
    ranking = vary.protein_scores(images)
    assert set(ranking["protein"].head(2)) == {"V0", "V1"}
    assert set(vary.protein_scores(images, "spread")["protein"].head(3)) == {"S2", "S3", "S4"}  # plain spread is taken in
    assert (ranking["n_images"] == 2).all() and (ranking["n_cells"] == 40).all() and (ranking["location"] == "L").all()
    assert images["combined"].to_numpy() == pytest.approx(images["relative"] + np.log2(images["direction"]))


def test_few_cells_are_not_taken_for_one_direction() -> None:
    rng = np.random.default_rng(0)
    sizes = [6] * 20 + [60] * 20
    obs = pd.DataFrame({"image": np.repeat([f"i{i}" for i in range(40)], sizes)}, index=[str(i) for i in range(sum(sizes))])
    found = vary.image_scores(anndata.AnnData(rng.normal(size=(len(obs), 20)).astype(np.float32), obs=obs))
    small, large = found.loc[found["n_cells"] == 6, "direction"].mean(), found.loc[found["n_cells"] == 60, "direction"].mean()
    # like means, though the bare share of one direction would be three times that of the large images
    assert small == pytest.approx(1, abs=0.12) and large == pytest.approx(1, abs=0.12)


def test_truth_is_never_read() -> None:
    adata = made()
    blind = adata.copy()
    blind.obs = blind.obs.drop(columns=["sim_phenotype", "sim_variation"])
    pd.testing.assert_frame_equal(vary.image_scores(adata), vary.image_scores(blind))


def test_small_images_and_bad_values() -> None:
    adata = made()
    with pytest.raises(AnalysisNeedsError, match="at least 99 cells; the largest has 20"):
        vary.image_scores(adata, least=99)
    with pytest.raises(ParameterError):
        vary.image_scores(adata, neighbours=0)
    with pytest.raises(CellTableError, match="no feature varies"):
        vary.image_scores(anndata.AnnData(np.ones((400, 3), np.float32), obs=adata.obs))
    adata.X[0, 0] = np.inf
    with pytest.raises(CellTableError, match="infinite"):
        vary.image_scores(adata)


def test_the_image_to_look_at() -> None:
    images = vary.image_scores(made(), neighbours=3)
    best = vary.protein_scores(images)["protein"][0]
    own = images[images["protein"] == best].sort_values("combined")["image"].iloc[-1]
    assert vary.pick_image(images) == own and vary.pick_image(images, wanted=best) == own
    assert vary.pick_image(images, wanted="P7_1") == "P7_1"
    with pytest.raises(UnknownNameError, match="unknown protein or image of at least 20 cells 'V9'. Did you mean V"):
        vary.pick_image(images, wanted="V9")
    with pytest.raises(UnknownNameError, match="Did you mean combined"):
        vary.pick_image(images, "combine")
    with pytest.raises(UnknownNameError, match="Did you mean ward"):
        vary.check_choices("spread", "wards")


def test_the_papers_way() -> None:
    rng = np.random.default_rng(0)
    rows = [("A", p, 0.0, 0.2) for p in "ab"] + [("B", p, 5.0, 0.2) for p in "cd"]
    rows += [("A;B", "e", 2.5, 0.2), ("A;B", "f", 2.5, 2.0), ("A;B", "g", 2.5, 1.0)]
    x = np.concatenate([rng.normal(m, s, (10, 1)) for _, _, m, s in rows])
    table = pd.DataFrame([(t, p) for t, p, _, _ in rows for _ in range(10)], columns=["location", "protein"]).assign(
        image=lambda d: d["protein"]
    )
    table.index = table.index.astype(str)
    found = vary.location_spread(anndata.AnnData(x.astype(np.float32), obs=table), [("A", "B"), ("A", "C")])
    assert list(found["image"]) == ["f", "g", "e"] and (found["pair"] == "A and B").all()
    assert list(found.attrs["left_out"]) == ["A and C"] and "'A|B'" in found.attrs["left_out"]["A and C"]
    varies = pd.Series({"e": "", "f": "location", "g": ""})
    share, usual = truth.share_of_top(found, varies, 1, draws=20)
    assert share.value == 1 and usual == pytest.approx(1 / 3)
    assert truth.share_of_top(found, varies, 99, draws=0)[0].value == pytest.approx(1 / 3)
    with pytest.raises(ParameterError):
        truth.share_of_top(found, varies, 0)


def test_what_is_known_of_variation() -> None:
    obs = pd.DataFrame({"protein": list("aabbc"), "sim_variation": ["", "location", "", "", "intensity"]})
    assert truth.known_variation(obs).to_dict() == {"a": "location", "b": "", "c": "intensity"}
    yeast = pd.DataFrame({"protein": list("abc"), "sim_kind": ["two levels", "one location", "two phenotypes"]})
    assert truth.known_variation(yeast).to_dict() == {"a": "intensity", "b": "", "c": "location"}
    hpa = pd.DataFrame({"protein": list("abcd"), "Single-cell variation spatial": ["Nucleus", "", "no", None], "variable": [0, 1, 0, 0]})
    assert truth.known_variation(hpa).to_dict() == {"a": "variable", "b": "variable", "c": "", "d": ""}
    assert truth.known_variation(obs[["protein"]]) is None
    with pytest.raises(UnknownNameError):
        truth.known_variation(obs, "gene")


def test_what_is_known_of_phenotypes() -> None:
    obs = pd.DataFrame(
        {
            "sim_phenotype": ["A", "A", "dead", "A", ""],
            "sim_low": ["False", "True", "", "True", ""],
            "sim_matched": [True, True, True, False, True],
        }
    )
    assert truth.known_phenotype(obs).tolist() == ["A", "A, dim", "", "", ""]  # type: ignore[union-attr]
    assert truth.known_phenotype(obs[["sim_low"]]) is None


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_and_area_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    s, yes, rows = rng.integers(0, 8, 50).astype(float), rng.random(50) < 0.3, rng.integers(0, 50, 50)
    assert truth._precision(yes, s) == pytest.approx(average_precision_score(yes, s))
    assert truth._area(yes, s)(rows) == pytest.approx(roc_auc_score(yes[rows], s[rows]))


def test_detection_by_kind() -> None:
    names = list("abcdef")
    scores = pd.DataFrame({"protein": names, **dict.fromkeys(vary.SCORES, [6.0, 5, 4, 3, 2, 1])})
    known = pd.Series(["location", "", "intensity", "", "", ""], index=names)
    table = truth.detection(scores, known, draws=20).set_index(["score", "kind"])
    assert table.loc[("spread", "any"), "ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert table.loc[("spread", "location"), "ap"] == 1 and table.loc[("spread", "location"), "n_proteins"] == 5
    assert table.loc[("spread", "intensity"), "ap"] == pytest.approx(1 / 2)  # c stands behind b, which does not vary
    assert table.loc[("spread", "any"), "chance"] == pytest.approx(1 / 3)
    assert not len(truth.detection(scores, pd.Series("", index=names)))


def test_a_score_chosen_on_one_half_is_measured_on_the_other() -> None:
    rng = np.random.default_rng(0)
    yes = np.arange(40) < 10
    noise = {n: rng.normal(size=40) for n in vary.SCORES}
    scores = pd.DataFrame({"protein": [f"p{i}" for i in range(40)], **noise})
    known = pd.Series(np.where(yes, "location", ""), index=scores["protein"])
    halves = truth.chosen_on_half(scores, known, splits=100)
    assert len(halves) == 100 and halves["chance"].mean() == pytest.approx(0.25, abs=0.02)
    good = truth.chosen_on_half(scores.assign(direction=yes + 0.1 * rng.random(40)), known, splits=20)
    assert (good["chosen"] == "direction").all() and (good["ap"] == 1).all()
    assert not len(truth.chosen_on_half(scores, known.where(known.index.isin(["p0", "p1"]), "")))


def test_branches_follow_phenotypes() -> None:
    adata = made()
    phenotype = truth.known_phenotype(adata.obs)
    assert phenotype is not None
    table = truth.branch_agreement(adata, phenotype, ["V0_0", "V0_1", "V1_0", "P7_0"])
    assert list(table["image"]) == ["V0_0", "V0_1", "V1_0"]  # P7 has one phenotype
    assert (table["ari"] == 1).all() and (table["n_cells"] == 20).all()
    found = truth.mean_agreement(table, draws=20)
    assert found.value == 1 and found.n_groups == 2
    shuffled = np.random.default_rng(0).permutation(phenotype)
    assert truth.branch_agreement(adata, shuffled, ["V0_0", "V0_1", "V1_0", "V1_1"])["ari"].abs().mean() < 0.4  # 20 cells each
    assert truth.branch_agreement(adata, phenotype, ["V0_0"], n=9)["ari"].tolist() == [0]  # no nine branches of three cells


def test_the_tree_of_some_cells() -> None:
    adata = made()
    rows = np.flatnonzero((adata.obs["image"] == "V0_0").to_numpy())
    tree = vary.cell_tree(adata, rows)
    branch = vary.branches(tree, 2)
    assert tree.names[0] == str(rows[0]) and sorted(np.bincount(branch).tolist()) == [0, 7, 13]
    with pytest.raises(ParameterError):
        vary.branches(tree, 50)
    with pytest.raises(CellTableError, match="two rows"):
        vary.cell_tree(adata, rows[:1])
