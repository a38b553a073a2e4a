"""Features written by us, opened with the real scanpy and pycytominer: the values stay, and no metadata becomes a feature."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from pci_core.baselines import Measured, numbered
from pci_core.cells import CellDataset, CellWriter, Channel
from pci_core.errors import DatasetError
from pci_core.features import extract, feature_columns, write_features
from pci_core.networks import build
from pci_core.recipe import Preprocess

FEATURES = [f"pci_conv3_{i:04d}" for i in range(1, 41)]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> CellDataset:
    """Sixty cells whose table holds every kind of number that could be taken for a feature."""
    folder = tmp_path_factory.mktemp("features") / "cells"
    rng = np.random.default_rng(0)
    with CellWriter(folder, (Channel("gfp", "protein"), Channel("rfp", "structural")), 0.5, recipe="made-up") as writer:
        for i in range(6):
            n = 10
            table = {
                "cell_id": [f"plate1_{i:02d}_{j}" for j in range(n)], "image": f"w{i}", "protein": f"P{i % 3}", "location": "ab"[i % 2],
                "plate": 1, "well": i, "x": rng.random(n) * 100, "y": rng.random(n) * 100, "area": 50.0 + np.arange(n),
                "sim_rim": rng.random(n), "sim_matched": [True, False] * (n // 2), "dose": 0.1 * i, "passage": i, "note": None,
                "maybe": [np.nan, 1.0] * (n // 2),
            }  # fmt: skip
            writer.add(rng.integers(0, 255, (n, 2, 16, 16), np.uint8), pd.DataFrame(table))
    return CellDataset(folder)


@pytest.fixture(scope="module")
def written(cells: CellDataset) -> Path:
    path = cells.folder.parent / "conv3.h5ad"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extract(cells, build("pci", 1, 1, 0.1, seed=0).source, {"conv3": path}, Preprocess(), {"model": "pci"}, device="cpu", quiet=True)
    return path


@contextmanager
def no_warning_of_ours() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    # those of anndata about what it had to change are about our file
    assert not [str(w.message) for w in caught if "pci_core" in w.filename or w.category is anndata.ImplicitModificationWarning]


def truth(written: Path) -> np.ndarray:
    return np.asarray(anndata.read_h5ad(written).X)


@pytest.mark.slow  # scanpy and UMAP compile themselves on their first call
def test_scanpy_reads_maps_draws_and_writes(written: Path, tmp_path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import scanpy as sc

    with no_warning_of_ours():
        cells = sc.read_h5ad(written)
        assert cells.shape == (60, len(FEATURES)) and cells.X.dtype == np.float32 and list(cells.var_names) == FEATURES
        assert cells.obs["plate"].unique().tolist() == ["1"] and cells.obs["dose"].dtype == np.float64
        np.testing.assert_array_equal(cells.obsm["spatial"], cells.obs[["x", "y"]])
        cells.layers["raw"] = cells.X.copy()
        sc.pp.scale(cells)
        sc.pp.pca(cells, n_comps=10, random_state=0)
        sc.pp.neighbors(cells, n_neighbors=10, random_state=0)
        sc.tl.umap(cells, random_state=0)
        assert cells.obsm["X_umap"].shape == (60, 2) and np.isfinite(cells.obsm["X_umap"]).all()
        figure = sc.pl.umap(cells, color=["location", "protein", "dose", FEATURES[0]], show=False, return_fig=True)
        figure.savefig(tmp_path / "umap.png")
        plt.close(figure)
        part = cells[cells.obs["location"] == "a"].copy()
        part.write_h5ad(tmp_path / "part.h5ad")
        back = sc.read_h5ad(tmp_path / "part.h5ad")
    chosen = (cells.obs["location"] == "a").to_numpy()
    np.testing.assert_array_equal(back.layers["raw"], truth(written)[chosen])  # bit for bit
    assert back.obs_names.tolist() == cells.obs_names[chosen].tolist() and back.uns["pci"]["layer"] == "conv3"
    assert (tmp_path / "umap.png").stat().st_size > 10_000


def test_feature_columns(written: Path, cells: CellDataset, tmp_path: Path) -> None:
    assert feature_columns(written.with_suffix(".parquet")) == FEATURES
    names = numbered("own", 3)
    write_features(cells, Measured(np.ones((60, 3), "float32"), names, {}), tmp_path / "own.h5ad", {})
    assert feature_columns(tmp_path / "own.parquet") == names
    with pytest.raises(DatasetError, match="none.parquet is not there"):
        feature_columns(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DatasetError, match="no readable parquet"):
        feature_columns(tmp_path / "bad.parquet")
    pd.DataFrame({"Metadata_a": ["x"], "plate": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(DatasetError, match=r"no feature set of ours: \['plate'\]"):
        feature_columns(tmp_path / "other.parquet")


def test_pycytominer_normalizes_selects_and_aggregates(written: Path) -> None:
    import pycytominer
    from pycytominer.cyto_utils import infer_cp_features, load_profiles

    parquet = written.with_suffix(".parquet")
    features = feature_columns(parquet)
    profiles = load_profiles(str(parquet))
    metadata = [c for c in profiles if c.startswith("Metadata_")]
    assert infer_cp_features(profiles, metadata=True) == metadata and set(metadata) | set(features) == set(profiles)
    numeric = profiles.select_dtypes("number").columns.tolist()  # what pycytominer's writer takes for features
    assert numeric == features
    np.testing.assert_array_equal(profiles[features].to_numpy("float32"), truth(written))
    with pytest.raises(ValueError, match="please do not 'infer' features"):  # so the explicit list is needed
        pycytominer.normalize(profiles)
    with no_warning_of_ours():
        scaled = pycytominer.normalize(str(parquet), features=features, meta_features=metadata, method="standardize")
        chosen = pycytominer.feature_select(
            scaled, features=features, operation=["variance_threshold", "correlation_threshold", "drop_na_columns"], corr_threshold=0.95
        )
        wells = pycytominer.aggregate(scaled, strata=["Metadata_plate", "Metadata_well"], features=features, operation="mean")
    values = truth(written).astype(np.float64)
    expected = (values - values.mean(0)) / np.where(values.std(0) > 0, values.std(0), 1)
    # pycytominer computes in the float32 of the file: relative rounding of sums over 60 cells
    np.testing.assert_allclose(scaled[features], expected, rtol=1e-3, atol=1e-4)
    assert set(scaled) == set(profiles) and (scaled[metadata] == profiles[metadata]).all(axis=None)
    kept = [c for c in chosen if c not in metadata]
    assert set(kept) < set(features) and kept and set(metadata) <= set(chosen)
    assert set(wells) == {"Metadata_plate", "Metadata_well", *features} and len(wells) == 6
    by_hand = pd.DataFrame(expected).groupby(profiles["Metadata_well"].to_numpy()).mean()
    np.testing.assert_allclose(wells.set_index("Metadata_well").loc[by_hand.index, features], by_hand, rtol=1e-3, atol=1e-4)


def test_pycytominer_writes_anndata_without_metadata_among_the_features(written: Path, tmp_path: Path) -> None:
    """Its writer puts every numeric column into X: plate 1, x, y, area and a user's own numbers must not get there."""
    import pycytominer

    parquet = written.with_suffix(".parquet")
    features = feature_columns(parquet)
    metadata = [c for c in pd.read_parquet(parquet) if c not in features]
    assert {"Metadata_" + c for c in ("plate", "well", "x", "y", "area", "sim_rim", "sim_matched", "dose", "passage")} <= set(metadata)
    out = tmp_path / "normalized.h5ad"
    pycytominer.normalize(
        str(parquet), features=features, meta_features=metadata, output_file=str(out), output_type="anndata_h5ad"
    )  # fmt: skip
    back = anndata.read_h5ad(out)
    assert list(back.var_names) == features and set(back.obs) == set(metadata)
    again = pycytominer.normalize(str(out), features=features, meta_features=metadata)  # and it reads what it wrote
    assert len(again) == 60 and np.isfinite(again[features]).all(axis=None)


def test_pycytominer_takes_our_parquet_not_our_h5ad(written: Path) -> None:
    """It wants whole numbers as names of cells in an .h5ad; should a newer one not, book and docstrings may say so."""
    import pycytominer

    with pytest.raises(ValueError, match="invalid literal for int"):
        pycytominer.normalize(str(written), features=FEATURES, meta_features=["cell_id"])
    cells = anndata.read_h5ad(written)
    cells.obs_names = [str(i) for i in range(len(cells))]  # how to hand it one nevertheless; cell_id keeps the names
    done = pycytominer.normalize(cells, features=FEATURES, meta_features=["cell_id", "plate", "dose"])
    assert list(done) == ["cell_id", "plate", "dose", *FEATURES] and done["cell_id"].tolist() == cells.obs["cell_id"].tolist()


def test_numbers_survive_as_text(written: Path, cells: CellDataset) -> None:
    table = pd.read_parquet(written.with_suffix(".parquet"))
    for column in ("x", "y", "area", "sim_rim", "dose"):
        np.testing.assert_array_equal(table[f"Metadata_{column}"].astype(float), cells.table[column])  # no digit is lost
    assert table["Metadata_passage"].astype(int).tolist() == cells.table["passage"].tolist()
