"""Features: every batch size gives the same, in the forms that other tools read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from pci_core.baselines import Measured, numbered
from pci_core.cells import CellDataset
from pci_core.encoders import LAYERS
from pci_core.errors import CheckpointError, DatasetError, StaleError, UnknownNameError
from pci_core.features import aggregate, check_channels, extract, read_features, write_features
from pci_core.networks import build
from pci_core.preprocess import preprocess
from pci_core.recipe import Preprocess

pytestmark = pytest.mark.usefixtures("looked_at_here")
FACTS = {"model": "pci", "recipe": "made-up", "weights": "none"}


def run(dataset: CellDataset, folder: Path, layers: tuple[str, ...] = LAYERS, **more: object) -> dict[str, anndata.AnnData]:
    folder.mkdir(exist_ok=True)
    encoder = build("pci", 1, 1, 0.1, seed=0).source
    outputs = {layer: folder / f"{layer}.h5ad" for layer in layers}
    extract(dataset, encoder, outputs, Preprocess(), FACTS, device="cpu", precision="float32", quiet=True, **more)  # type: ignore[arg-type]
    return {layer: read_features(path, dataset) for layer, path in outputs.items()}


def test_all_layers_equal_a_pass_by_hand(make_cells: Callable[..., CellDataset], tmp_path: Path) -> None:
    dataset = make_cells()
    found = run(dataset, tmp_path / "f")
    encoder = build("pci", 1, 1, 0.1, seed=0).eval().source
    with torch.no_grad():
        x = preprocess(torch.from_numpy(np.array(dataset.crops)), Preprocess(), 1)
        for i, block in enumerate(encoder.blocks):
            activation, x = block(x)
            # float32 sums in another order (channels last): relative rounding near 1e-6
            np.testing.assert_allclose(found[LAYERS[i]].X, activation.flatten(2).max(2).values, rtol=1e-4, atol=1e-5)
            x = torch.nn.functional.max_pool2d(x, 2) if i < 2 else x


def test_batch_size_does_not_matter(make_cells: Callable[..., CellDataset], tmp_path: Path) -> None:
    dataset = make_cells()
    one, seven, all_at_once = (run(dataset, tmp_path / str(b), ("conv4",), batch_size=b)["conv4"].X for b in (1, 7, 99))
    # the convolution may sum in another order for another batch: float32 rounding only
    np.testing.assert_allclose(one, seven, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one, all_at_once, rtol=1e-5, atol=1e-6)


def test_h5ad_follows_the_contract(make_cells: Callable[..., CellDataset], tmp_path: Path) -> None:
    dataset = make_cells()
    adata = run(dataset, tmp_path / "f", ("conv3",))["conv3"]
    assert adata.X.dtype == np.float32 and adata.shape == (24, build("pci", 1, 1, 0.1).source.dims["conv3"])
    assert adata.var_names[0] == "pci_conv3_0001"
    assert adata.obs_names.tolist() == adata.obs["cell_id"].tolist() == dataset.table["cell_id"].tolist()
    facts = adata.uns["pci"]
    assert (facts["model"], facts["layer"], facts["pooling"], facts["dataset"]) == ("pci", "conv3", "max", dataset.sha256)
    assert {"weights", "recipe", "version", "precision"} <= set(facts)


def test_parquet_keeps_metadata_apart_from_features(make_cells: Callable[..., CellDataset], tmp_path: Path) -> None:
    adata = run(make_cells(), tmp_path / "f", ("conv1",))["conv1"]
    table = pd.read_parquet(tmp_path / "f" / "conv1.parquet")
    metadata = [c for c in table if c.startswith("Metadata_")]
    assert all(table[c].map(type).eq(str).all() for c in metadata)  # a number would be taken for a feature
    np.testing.assert_array_equal(table.drop(columns=metadata).to_numpy(), adata.X)
    assert table["Metadata_cell_id"].tolist() == adata.obs_names.tolist()


def test_mean_pooling_is_an_option(make_cells: Callable[..., CellDataset], tmp_path: Path) -> None:
    dataset = make_cells()
    mean, top = run(dataset, tmp_path / "a", ("conv2",), pooling="mean")["conv2"], run(dataset, tmp_path / "b", ("conv2",))["conv2"]
    assert mean.uns["pci"]["pooling"] == "mean"
    assert (mean.X <= top.X).all() and not np.allclose(mean.X, top.X)


def test_features_of_changed_cells_are_stale(make_cells: Callable[..., CellDataset], tmp_path: Path) -> None:
    run(make_cells(), tmp_path / "f", ("conv1",))
    with pytest.raises(StaleError, match="conv1.h5ad was made from another version of the cells.*pci features"):
        read_features(tmp_path / "f" / "conv1.h5ad", make_cells(seed=1, name="other"))


def test_damaged_or_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="none.h5ad is not there"):
        read_features(tmp_path / "none.h5ad")
    (tmp_path / "bad.h5ad").write_bytes(b"\x89HDF\r\n\x1a\njunk")
    with pytest.raises(DatasetError, match="bad.h5ad is no readable feature set"):
        read_features(tmp_path / "bad.h5ad")


def test_other_channels_are_refused(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells()
    with pytest.raises(CheckpointError, match=r"'human' was made for 3 channels, but the cells have \['protein', 'marker'\]"):
        check_channels(dataset, build("pci", 1, 2, 0.1).source, None, "human")
    with pytest.raises(CheckpointError, match="'gfp', 'rfp'"):
        check_channels(dataset, build("pci", 1, 1, 0.1).source, ["gfp", "rfp"], "yeast")


def test_a_table_computed_elsewhere(make_cells: Callable[..., CellDataset], tmp_path: Path) -> None:
    dataset = make_cells()
    values = np.random.default_rng(0).random((len(dataset), 5)).astype("float32")
    names = numbered("own", 5)
    more = {"fold": np.arange(len(dataset))}
    write_features(dataset, Measured(values, names, {"model": "own"}, more, {"fold_0": values * 2}), tmp_path / "own.h5ad", {"recipe": "r"})
    adata = read_features(tmp_path / "own.h5ad", dataset)
    np.testing.assert_array_equal(adata.X, values)
    np.testing.assert_array_equal(adata.obsm["fold_0"], values * 2)
    assert list(adata.var_names) == names and adata.obs["fold"].tolist() == list(range(len(dataset)))
    assert adata.uns["pci"]["model"] == "own" and adata.uns["pci"]["recipe"] == "r"
    with pytest.raises(DatasetError, match=r"shape \(3, 5\), expected \(24, 5\)"):
        write_features(dataset, Measured(values[:3], names, {}), tmp_path / "own.h5ad", {})
    values[0, 1] = np.nan
    with pytest.raises(DatasetError, match=r"1 features hold NaN or infinite values, e.g. \['own_0002'\]"):
        write_features(dataset, Measured(values, names, {}), tmp_path / "new.h5ad", {})
    assert not (tmp_path / "new.h5ad").exists()


def test_protein_level_means() -> None:
    obs = pd.DataFrame(
        {"cell_id": list("abcd"), "protein": ["P2", "P1", "P2", ""], "location": ["x", "y", "x", "x"], "well": list("1234")},
        index=list("abcd"),
    )
    adata = anndata.AnnData(np.array([[1, 2], [5, 6], [3, 6], [9, 9]], np.float32), obs=obs)
    means = aggregate(adata)
    assert means.obs_names.tolist() == ["P1", "P2"]
    np.testing.assert_array_equal(means.X, [[5, 6], [2, 4]])
    assert means.obs["n_cells"].tolist() == [1, 2]
    assert means.obs["location"].tolist() == ["y", "x"] and "well" not in means.obs  # wells differ within P2
    with pytest.raises(UnknownNameError, match="unknown column 'protin'. Did you mean protein"):
        aggregate(adata, "protin")


def test_a_cell_alone_in_a_batch_is_what_it_is_among_others(make_cells: Callable[..., CellDataset], tmp_path: Path) -> None:
    dataset = make_cells()  # 24 cells: 23 at a time leave one
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # with one thread there is but one kernel
    try:
        one, most, whole = (run(dataset, tmp_path / str(b), ("conv4",), batch_size=b)["conv4"].X for b in (1, 23, 24))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(most, whole)
    np.testing.assert_array_equal(one, whole)
