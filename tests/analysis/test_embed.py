"""Maps by UMAP: groups stay together, a seed repeats, and what cannot be laid out is refused."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

from pci_core.analysis import embed
from pci_core.errors import CellTableError


def groups(n: int = 40, shift: float = 8.0, features: int = 6) -> anndata.AnnData:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3 * n, features))
    for group in range(3):
        x[group * n : (group + 1) * n, group] += shift
    obs = pd.DataFrame({"label": np.repeat(list("abc"), n)}, index=[f"c{i}" for i in range(3 * n)])
    return anndata.AnnData(x.astype(np.float32), obs=obs)


def purity(plane: np.ndarray, label: np.ndarray) -> float:
    """Share of cells whose nearest cell in the plane has their label."""
    distance = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    return float((label[distance.argmin(1)] == label).mean())


@pytest.mark.slow  # the first map compiles for ten seconds
def test_groups_stay_together_a_seed_repeats_and_nothing_warns() -> None:
    adata = groups()
    adata.X[:, 5] = 3.0  # a constant feature takes no part
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="n_jobs")
        plane = embed.umap(adata, n_neighbors=10)
    assert plane.shape == (120, 2) and plane.dtype == np.float32
    # groups eight standard deviations apart: one cell in twenty may lie wrong, chance is 1/3
    assert purity(plane, adata.obs["label"].to_numpy()) > 0.95
    np.testing.assert_array_equal(plane, embed.umap(adata, n_neighbors=10))


@pytest.mark.slow  # the first map compiles for ten seconds
def test_scale_of_a_feature_does_not_matter() -> None:
    adata, stretched = groups(), groups()
    stretched.X[:, 1] *= 1024  # a power of two, so that standardising gives the same bits
    np.testing.assert_allclose(embed.umap(adata, n_neighbors=10), embed.umap(stretched, n_neighbors=10), atol=1e-5)


@pytest.mark.slow  # the first map compiles for ten seconds
def test_cells_not_drawn_are_nan() -> None:
    plane = embed.umap(groups(), n_neighbors=10, max_cells=50)
    assert np.isfinite(plane).all(1).sum() == 50 and np.isnan(plane).all(1).sum() == 70


@pytest.mark.slow  # the first map compiles for ten seconds
def test_a_cross_validated_set_is_laid_out_in_the_space_of_one_fold() -> None:
    adata = groups()
    adata.obs["fold"] = np.tile([0, 1, -1], 40)
    adata.obsm["fold_0"], adata.obsm["fold_1"] = adata.X.copy(), adata.X.copy()
    adata.X[:] = np.nan  # X mixes the spaces of the folds, so it must not be touched
    plane = embed.umap(adata, n_neighbors=10)
    np.testing.assert_array_equal(np.isfinite(plane).all(1), adata.obs["fold"] == 0)


def test_errors() -> None:
    with pytest.raises(CellTableError, match="needs more than 30 cells, found 15"):
        embed.umap(groups(5))
    adata = groups()
    adata.X[3, 2] = np.nan
    with pytest.raises(CellTableError, match=r"1 features hold NaN or infinite values, e.g. \['2'\]"):
        embed.umap(adata)
    adata.X[:] = 1.0
    with pytest.raises(CellTableError, match="no feature differs"):
        embed.umap(adata)
