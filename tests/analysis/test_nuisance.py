"""Nuisances and locations read from fields of view: a plain numpy ridge as oracle, and proteins never on both sides."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GroupKFold

from pci_core.analysis.nuisance import ALPHAS, known_nuisances, location_accuracy, nuisance, readable
from pci_core.errors import AnalysisNeedsError, CellTableError, UnknownNameError

PROTEINS, FIELDS, CELLS = 20, 3, 4


def made(seed: int = 0) -> anndata.AnnData:
    """20 proteins of 4 locations, 3 fields each: features tell strength and background, not the photons."""
    rng = np.random.default_rng(seed)
    protein = np.repeat(np.arange(PROTEINS), FIELDS * CELLS)
    field = np.repeat(np.arange(PROTEINS * FIELDS), CELLS)
    hidden = rng.normal(size=(PROTEINS * FIELDS, 3))[field]
    x = rng.normal(0, 0.3, (len(field), 6))
    x[:, 0] += hidden[:, 0]
    x[:, 1] += hidden[:, 1] - hidden[:, 0]
    x[:, 2:4] += 3.0 * np.eye(4)[protein % 4][:, 2:] - 3.0 * np.eye(4)[protein % 4][:, :2]
    obs = pd.DataFrame(
        {
            "field": [f"f{i}" for i in field],
            "protein": [f"P{i:02d}" for i in protein],
            "location": [f"place {i % 4}" for i in protein],
            "sim_strength": np.exp(hidden[:, 0]),
            "sim_background": hidden[:, 1],
            "sim_photons": np.exp(hidden[:, 2]),
            "sim_light": 0.1,
        },
        index=[f"c{i}" for i in range(len(field))],
    )
    return anndata.AnnData(x.astype(np.float32), obs=obs)


def plain_r2(x: np.ndarray, y: np.ndarray, protein: np.ndarray, seed: int) -> float:
    """Ridge by its normal equations, the penalty by folds of the training proteins."""

    def predict(a: np.ndarray, target: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
        mean, std = a.mean(0), a.std(0)
        a, b, middle = (a - mean) / std, (b - mean) / std, target.mean()
        return np.asarray(b @ np.linalg.solve(a.T @ a + alpha * np.eye(a.shape[1]), a.T @ (target - middle)) + middle)

    def split(groups: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        return list(GroupKFold(5, shuffle=True, random_state=seed).split(groups[:, None], groups=groups))

    told = np.empty_like(y)
    for train, test in split(protein):
        inner = split(protein[train])
        errors = [sum(((predict(x[train[i]], y[train[i]], x[train[j]], a) - y[train[j]]) ** 2).sum() for i, j in inner) for a in ALPHAS]
        told[test] = predict(x[train], y[train], x[test], ALPHAS[int(np.argmin(errors))])
    return float(1 - ((y - told) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def field_means(adata: anndata.AnnData, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    names = sorted(adata.obs["field"].unique())
    rows = [np.flatnonzero(adata.obs["field"] == n) for n in names]
    x = np.stack([np.asarray(adata.X)[r].astype(np.float64).mean(0).astype(np.float32) for r in rows]).astype(np.float64)
    y = np.array([adata.obs[column].iloc[r[0]] for r in rows])
    return x, y, pd.factorize(np.array([adata.obs["protein"].iloc[r[0]] for r in rows]))[0]


def test_r2_is_that_of_a_plain_ridge() -> None:
    adata = made()
    found = nuisance(adata, draws=20, seed=3).set_index("what")
    assert found.index.tolist() == ["sim_strength", "sim_background", "sim_photons"]  # the light is the same everywhere
    for column, log in (("sim_strength", True), ("sim_background", False), ("sim_photons", True)):
        x, y, protein = field_means(adata, column)
        expected = plain_r2(x, np.log(y) if log else y, protein, seed=3)
        assert found.loc[column, "r2"] == pytest.approx(expected, abs=1e-6)  # another solver of the same equations
    assert found.loc["sim_strength", "r2"] > 0.9 and found.loc["sim_photons", "r2"] < 0.2
    assert (found["low"] <= found["r2"]).all() and (found["r2"] <= found["high"]).all()
    assert found["n_fields"].eq(PROTEINS * FIELDS).all() and found["n_proteins"].eq(PROTEINS).all()


def test_a_feature_that_names_the_protein_does_not_help() -> None:
    """One number a protein: known in full where a field of the protein was learned from, not at all where none was."""
    adata = made()
    value = np.random.default_rng(1).normal(size=PROTEINS)
    code = pd.factorize(adata.obs["protein"])[0]
    adata = anndata.AnnData(np.eye(PROTEINS, dtype=np.float32)[code], obs=adata.obs.assign(sim_haze=value[code]))
    assert nuisance(adata, ["sim_haze"], draws=0)["r2"].item() < 0.05
    # of the four locations each has its turn; nothing ties a protein to its location but its name
    assert location_accuracy(adata, draws=0).accuracy < 0.5


def test_values_that_are_missing() -> None:
    adata = made()
    whole = nuisance(adata, ["sim_background"], draws=0)
    some = adata.copy()
    some.obs.loc[some.obs_names[::CELLS], "sim_background"] = np.nan  # one cell of every field was not matched
    pd.testing.assert_frame_equal(nuisance(some, ["sim_background"], draws=0), whole)
    some.obs.loc[some.obs["field"] == "f7", "sim_background"] = np.nan
    fewer = nuisance(some, ["sim_background"], draws=0)
    assert fewer["n_fields"].item() == PROTEINS * FIELDS - 1 and fewer.attrs["n_cells"] == (PROTEINS * FIELDS - 1) * CELLS
    nameless = adata.copy()
    nameless.obs.loc[nameless.obs["protein"] == "P03", "protein"] = ""
    assert nuisance(nameless, ["sim_background"], draws=0)["n_proteins"].item() == PROTEINS - 1


def test_location_of_fields() -> None:
    adata = made()
    found = location_accuracy(adata, draws=50)
    assert found.accuracy > 0.95 and found.n_cells == PROTEINS * FIELDS and found.n_groups == PROTEINS and found.n_classes == 4
    noise = anndata.AnnData(np.random.default_rng(0).normal(size=adata.shape).astype(np.float32), obs=adata.obs)
    assert location_accuracy(noise, draws=0).accuracy < 0.55  # a quarter by chance; 60 fields scatter by some 0.07 around it
    alone = adata.copy()
    alone.obs.loc[alone.obs["protein"] == "P00", "location"] = "only here"
    alone.obs.loc[alone.obs["protein"] == "P01", "location"] = "place 1;place 2"
    assert set(alone.obs.loc[~readable(alone.obs, "location"), "protein"]) == {"P00", "P01"}
    assert location_accuracy(alone, draws=0).n_groups == PROTEINS - 2


def test_what_cannot_be_done_is_told() -> None:
    adata = made()
    assert known_nuisances(adata.obs) == ["sim_strength", "sim_background", "sim_photons"]
    real = anndata.AnnData(adata.X, obs=adata.obs[["field", "protein", "location"]])
    with pytest.raises(AnalysisNeedsError, match="sim_strength, sim_haze"):
        nuisance(real)
    with pytest.raises(UnknownNameError, match="'focus, gain'"):
        nuisance(adata, ["sim_background", "focus", "gain"])
    for column in ("field", "protein"):
        with pytest.raises(UnknownNameError, match=column):
            nuisance(anndata.AnnData(adata.X, obs=adata.obs.drop(columns=column)))
    with pytest.raises(CellTableError, match="fewer than two values over fields: sim_light"):
        nuisance(adata, ["sim_light"])
    with pytest.raises(CellTableError, match="not above 0: sim_strength"):
        nuisance(anndata.AnnData(adata.X, obs=adata.obs.assign(sim_strength=adata.obs["sim_background"])))
    with pytest.raises(AnalysisNeedsError, match="at least 5 proteins; found 4"):
        nuisance(adata[adata.obs["protein"] < "P04"])
    with pytest.raises(AnalysisNeedsError, match="no cell has both"):
        nuisance(anndata.AnnData(adata.X, obs=adata.obs.assign(protein="")))
    with pytest.raises(CellTableError, match="differ in 'protein'"):
        nuisance(anndata.AnnData(adata.X, obs=adata.obs.assign(field="one")))
    bad = np.array(adata.X)
    bad[0, 0] = np.nan
    with pytest.raises(CellTableError, match="NaN"):
        nuisance(anndata.AnnData(bad, obs=adata.obs))
    with pytest.raises(AnalysisNeedsError, match="two values of it with two proteins each; found 1"):
        location_accuracy(anndata.AnnData(adata.X, obs=adata.obs.assign(location="here")))
