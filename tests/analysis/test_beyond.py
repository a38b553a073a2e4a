"""The scorecard: every row is what the analysis it names gives, and what the cells do not allow is told, not raised."""

from __future__ import annotations

import dataclasses

import anndata
import numpy as np
import pandas as pd
import pytest

from pci_core import recipe as recipes
from pci_core.analysis import cell_lines, cluster_scores, clusters, fractions, multilocalization, neighbours, retrieval, variability
from pci_core.analysis import variability_truth as vary
from pci_core.analysis.beyond import COLUMNS, scorecard
from pci_core.analysis.nuisance import location_accuracy, nuisance
from pci_core.errors import CellTableError
from pci_core.features import aggregate

HUMAN = recipes.load("simulated-human")
DULOC = recipes.load("hpa-duloc")
TERMS = ("Cytosol", "Nucleoplasm", "Nucleoli", "Nucleoli rim", "Cytosol;Nucleoplasm")
PER_TERM, LINES, CELLS, DRAWS = 4, ("U-2 OS", "A-431"), 6, 20


def made(seed: int = 0) -> anndata.AnnData:
    """20 proteins of five locations in two cell lines; one of each location varies from cell to cell."""
    rng = np.random.default_rng(seed)
    places = {t: 2.0 * np.eye(4)[i] for i, t in enumerate(TERMS[:4])}
    x, rows = [], []
    for p in range(len(TERMS) * PER_TERM):
        term = TERMS[p // PER_TERM]
        for line, name in enumerate(LINES):
            image = rng.normal(0, 0.4, 6)
            for cell in range(CELLS):
                fraction = rng.uniform(0.1, 0.9) if ";" in term else 0.0
                varies = p % PER_TERM == 1
                first, _, second = term.partition(";")
                centre = (1 - fraction) * places[first] + (fraction * places[second] if second else 0)
                value = rng.normal(0, 0.4, 6) + image + 0.3 * line
                value[:4] += centre * (rng.choice([0.2, 1.8]) if varies else 1)
                x.append(value)
                protein = "MKI67" if (term, p % PER_TERM) == ("Nucleoli rim", 0) else f"P{p:02d}"
                rows.append({"image": f"{protein} {name}", "field": f"{protein} {name} {cell % 2}", "protein": protein, "cell_line": name,
                             "location": term, "sim_location": term, "sim_fraction": fraction, "sim_variation": "location" * varies,
                             "sim_background": image[0]})  # fmt: skip
    return anndata.AnnData(np.array(x, np.float32), obs=pd.DataFrame(rows, index=[f"c{i}" for i in range(len(rows))]))


def plain_knn(x: np.ndarray, labels: np.ndarray, own: np.ndarray) -> float:
    """Balanced accuracy of 11 neighbours, none of the own group; by one distance after another."""
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float64)
    names, code = np.unique(labels, return_inverse=True)
    right = []
    for i in range(len(x)):
        away = np.linalg.norm(x - x[i], axis=1)
        away[own == own[i]] = np.inf
        right.append(np.bincount(code[np.argsort(away)[:11]], minlength=len(names)).argmax() == code[i])
    return float(np.mean([np.mean(np.array(right)[code == c]) for c in range(len(names))]))


@pytest.fixture(scope="module")
def card() -> pd.DataFrame:
    return scorecard(made(), HUMAN, seed=1, draws=DRAWS)


def test_knn_is_that_of_plain_distances(card: pd.DataFrame) -> None:
    adata = made()
    one = ~adata.obs["location"].str.contains(";").to_numpy()
    x, obs = np.asarray(adata.X)[one].astype(np.float64), adata.obs[one]
    found = card.set_index("measure")
    for way, own in (("cell", np.arange(len(x))), ("image", obs["image"].to_numpy()), ("protein", obs["protein"].to_numpy())):
        row = found.loc[f"kNN, own {way} left out"]
        assert row["value"] == pytest.approx(plain_knn(x, obs["location"].to_numpy(), own), abs=1e-12)  # the same votes
        assert row["low"] <= row["value"] <= row["high"] and row["n_cells"] == len(x) and row["n_proteins"] == 16
        assert "4 classes" in row["note"] and "0.250" in row["note"]


def test_every_row_is_what_its_analysis_gives(card: pd.DataFrame) -> None:
    adata, found = made(), card.set_index("measure")
    value = found["value"].to_dict()
    lines = cell_lines.robustness(adata, draws=DRAWS, seed=1).lines.set_index("what")
    for what in cell_lines.LINES:
        row = found.loc[f"images of one location, {what}"]
        assert row[["value", "low", "high"]].tolist() == lines.loc[what, ["value", "low", "high"]].tolist()
    assert value["images of one location, difference"] == pytest.approx(
        value["images of one location, different cell lines"] - value["images of one location, same cell line"]
    )
    proteins = aggregate(adata)
    space, terms = neighbours.space(proteins), neighbours.locations(adata)
    member = neighbours.members(terms, "Nucleoli rim")
    ranks = neighbours.ranks(space, neighbours.find(proteins.obs_names, "MKI67"))
    assert value["rim average precision"] == retrieval.score(ranks, member, draws=1)["value"].iloc[0]
    each = retrieval.each_as_query(space, member)["average_precision"]
    assert value["rim average precision, every rim protein as query"] == pytest.approx(each.mean()) and len(each) == PER_TERM
    scores = multilocalization.score(adata, "Cytosol", "Nucleoplasm", seed=1)
    for way, cells in (("cells of both", "both"), ("with cells of one alone", "all")):
        told = fractions.agreement(scores, ways=[(cells, "cells")], draws=0).set_index("score")["spearman"]
        for name in ("paper", "ratio", "discriminant")[cells == "all" :]:  # see test_noise_scores_as_chance
            assert value[f"Spearman, Cytosol and Nucleoplasm, {way}, {name}"] == told[name]
    truth, ranking = vary.known_variation(adata.obs), variability.protein_scores(variability.image_scores(adata))
    assert truth is not None
    assert value["variability average precision"] == vary.detection(ranking, truth, names=["combined"], draws=0)["ap"].iloc[0]
    grouped = clusters.cluster_proteins(adata, min_size=3)
    places = cluster_scores.locations(grouped)
    assert places is not None
    assert value["clusters, adjusted Rand index"] == cluster_scores.agreement(grouped.labels, places, draws=0).rand.value
    assert value["nuisance R², background"] == value["nuisance R², mean"] == nuisance(adata, draws=0, seed=1)["r2"].item()
    assert value["location of fields"] == location_accuracy(adata, draws=0, seed=1).accuracy


def test_which_way_is_better_and_on_what(card: pd.DataFrame) -> None:
    assert tuple(card.columns) == COLUMNS and card["measure"].is_unique and np.isfinite(card["value"]).all()
    less = card["measure"].str.startswith(("images of one location", "nuisance"))
    assert (card["better"] == np.where(less, "less", "more")).all()
    assert (card["n_cells"] > 0).all() and (card["n_proteins"] > 1).all()
    assert list(card.attrs["left_out"]) == ["Spearman, Nucleoli and Nucleoplasm"]  # no cell of both
    n = card.set_index("measure")["n_cells"]
    assert n["Spearman, Cytosol and Nucleoplasm, cells of both, paper"] == PER_TERM * len(LINES) * CELLS
    assert n["Spearman, Cytosol and Nucleoplasm, with cells of one alone, ratio"] == 3 * PER_TERM * len(LINES) * CELLS
    assert n["images of one location, difference"] == n["clusters, adjusted Rand index"] == n["location of fields"] == 4 * 48


def test_the_same_seed_gives_the_same_card(card: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(scorecard(made(), HUMAN, seed=1, draws=DRAWS), card)


def test_noise_scores_as_chance() -> None:
    """No row may look good by itself: the paper's score of cells of one location alone would, as they are in their own means."""
    adata = made()
    noise = anndata.AnnData(np.random.default_rng(5).normal(size=(adata.n_obs, 40)).astype(np.float32), obs=adata.obs)
    value = scorecard(noise, HUMAN, draws=0).set_index("measure")["value"]
    spearman = value[value.index.str.startswith("Spearman")]
    # of 48 cells a rank correlation scatters by 0.15 around 0, of 144 by 0.08
    assert len(spearman) == 5 and spearman.abs().max() < 0.35 and spearman.filter(like="alone").abs().max() < 0.25
    scores = multilocalization.score(noise, "Cytosol", "Nucleoplasm")
    leaking = fractions.agreement(scores, names=["paper"], ways=[("all", "cells")], draws=0)["spearman"].item()
    assert leaking > 0.4  # what is left out
    assert value.filter(like="kNN").max() < 0.4  # a quarter by chance; 192 cells in 32 images
    assert value["nuisance R², mean"] < 0.1 and abs(value["clusters, adjusted Rand index"]) < 0.3  # 16 proteins


def test_what_reuses_a_cell_does_not_vote() -> None:
    """Cells that lie in two mosaics of one location: with the own mosaic alone left out, the copy would be found first."""
    rng = np.random.default_rng(0)
    classes = ("cytosol", "nucleoplasm", "nucleoli")
    image = np.repeat(np.arange(12), 6)
    x = rng.normal(0, 1, (72, 12)) + 2.0 * np.eye(3, 12)[image % 3]
    group = [f"g{i}" for i in range(72)]
    for i in range(0, 72, 2):  # every second cell of mosaics 0 to 2 and 6 to 8 is also one of mosaic m + 3, of the same location
        twin = (i + 18) % 72
        if (i // 18) % 2 == 0:
            x[twin], group[twin] = x[i], group[i]
    obs = pd.DataFrame({"image": [f"m{i}" for i in image], "location": [classes[i % 3] for i in image], "landmark_group": group})
    for name in classes:
        obs[f"fraction_{name}"] = (obs["location"] == name).astype(float)
    adata = anndata.AnnData(x.astype(np.float32), obs=obs.set_index(obs.index.astype(str)))
    found = scorecard(adata, DULOC, draws=DRAWS)
    together = np.arange(12)  # mosaics that share a cell, through their cells
    for rows in obs.groupby("landmark_group").indices.values():
        at = np.unique(together[image[rows]])
        together[np.isin(together, at)] = at[0]
    row = found.set_index("measure").loc["kNN, own image left out"]
    labels = obs["location"].to_numpy()
    assert row["value"] == pytest.approx(plain_knn(x.astype(np.float32).astype(float), labels, together[image]), abs=1e-12)
    assert row["value"] < plain_knn(x.astype(np.float32).astype(float), labels, image)  # the copies would have voted
    assert "own image or landmark_group left out" in row["note"] and row["n_proteins"] == 0
    left_out = found.attrs["left_out"]
    assert "column protein" in left_out["kNN, own protein left out"] and "column cell_line" in left_out["images of one location"]


def test_cells_that_allow_nothing_raise_nothing() -> None:
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"image": ["a"] * 6, "cell_id": [f"c{i}" for i in range(6)]}, index=[f"c{i}" for i in range(6)])
    found = scorecard(anndata.AnnData(rng.normal(size=(6, 4)).astype(np.float32), obs=obs), HUMAN, draws=DRAWS)
    assert not len(found) and tuple(found.columns) == COLUMNS
    assert list(found.attrs["left_out"]) == [
        "kNN", "images of one location", "rim average precision", "Spearman, Cytosol and Nucleoplasm",
        "Spearman, Nucleoli and Nucleoplasm", "variability average precision", "clusters, adjusted Rand index", "nuisance R²",
        "location of fields",
    ]  # fmt: skip
    assert "location" in found.attrs["left_out"]["kNN"]


def test_the_predicted_protein_is_not_left_out() -> None:
    adata = made()
    found = scorecard(adata, dataclasses.replace(HUMAN, label="protein"), draws=DRAWS)
    assert "protein itself" in found.attrs["left_out"]["kNN, own protein left out"]
    assert "kNN, own image left out" in set(found["measure"]) and "two proteins each" in found.attrs["left_out"]["location of fields"]


def test_features_that_collapsed_are_told() -> None:
    adata = made()
    found = scorecard(anndata.AnnData(np.ones(adata.shape, np.float32), obs=adata.obs), HUMAN, draws=DRAWS)
    left_out = found.attrs["left_out"]
    assert "all 6 features are the same" in left_out["kNN"] and "no value" in left_out["images of one location, difference"]
    assert np.isfinite(found["value"]).all()
    # knowing nothing, they are not told the nuisance either: that is what the location beside it is for
    told = found.set_index("measure")["value"]
    assert told["nuisance R², mean"] < 0 and told["location of fields"] == 0.25  # the largest class of four


def test_features_that_are_no_numbers() -> None:
    adata = made()
    x = np.array(adata.X)
    x[3, 2] = np.inf
    with pytest.raises(CellTableError, match="NaN or infinite"):
        scorecard(anndata.AnnData(x, obs=adata.obs), HUMAN)
