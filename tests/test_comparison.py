"""Comparison: every named set on the same cells, what is missing is told, seeds widen the interval, tables are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pci_core import comparison
from pci_core.comparison import compare, gather, paper_figures, parse_table, summary
from pci_core.errors import CellTableError, CheckpointError, RecipeError, UnknownNameError, WeightsUnavailableError
from pci_core.networks import build
from pci_core.run import Run
from pci_core.weights import save_safetensors


@pytest.fixture
def own(own_recipe: Path, tmp_path: Path) -> Run:
    return Run(own_recipe, tmp_path / "runs", device="cpu", precision="float32", jobs=1, quiet=True)


def test_sets_and_an_own_table_side_by_side(own: Run, tmp_path: Path) -> None:
    ids = own.cells().table["cell_id"]
    table = pd.DataFrame({"cell_id": ids[::-1], "one": np.arange(32.0), "two": np.random.default_rng(0).random(32)})
    table["gaps"] = [np.nan, *range(31)]
    table.to_csv(tmp_path / "mine.csv", index=False)
    found = compare(own, ["untrained_conv1", "pixels"], tables={"mine": tmp_path / "mine.csv"}, classifiers=["knn"], ks=[1, 5])
    scores = found.benchmark.scores
    assert set(scores["features"]) == {"untrained_conv1", "pixels", "mine"}
    assert set(scores["left_out"]) == {"cell", "image"} and set(scores["n_cells"]) == {32}
    assert found.sets.set_index("features")["n_features"].to_dict() == {"untrained_conv1": 4, "pixels": 16, "mine": 2}
    assert (found.sets.set_index("features").loc[["untrained_conv1", "pixels"], "cells_per_second"] > 0).all()
    kept = pd.read_parquet(own.folder / "tables" / "benchmark_scores.parquet")
    pd.testing.assert_frame_equal(kept, scores, check_dtype=False)
    text = summary(found, own)
    assert "Left out of mine.csv: 1 columns that are NaN or infinite for some cell, e.g. gaps." in text
    assert "1 columns" in found.sets.set_index("features").loc["mine", "note"]
    assert "real cells" in text and "mine" in text and "32 cells, 2 classes of 'protein'" in text


def test_sets_whose_weights_are_not_to_be_had_are_told(own: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(names: list[str], *_: object, **__: object) -> None:
        raise WeightsUnavailableError("no network, use --vgg16-weights")

    monkeypatch.setattr("pci_core.run.compute", lambda names, *a, **k: refuse(names) if "vgg16" in names[0] else original(names, *a, **k))
    found = compare(own, ["pixels", "vgg16_block4_conv1_protein"], classifiers=["knn"], ks=[1])
    assert set(found.benchmark.scores["features"]) == {"pixels"}
    row = found.sets.set_index("features").loc["vgg16_block4_conv1_protein"]
    assert row["note"] == "no network, use --vgg16-weights" and np.isnan(row["n_features"])
    assert "not there: vgg16_block4_conv1_protein: no network" in summary(found, own)
    with pytest.raises(RecipeError, match="no feature set to compare: vgg16"):
        compare(own, ["vgg16_block4_conv1_protein"], classifiers=["knn"], ks=[1])


from pci_core.run import compute as original  # noqa: E402 the door that the test above closes for VGG16


def test_several_seeds(own: Run) -> None:
    found, missing = gather(own, ["untrained_conv1", "pixels"], seeds=[0, 1, 2])
    assert {n: len(s) for n, s in found.items()} == {"untrained_conv1": 3, "pixels": 1} and not missing
    assert not np.allclose(found["untrained_conv1"][0].X, found["untrained_conv1"][1].X)
    scores = compare(own, ["untrained_conv1", "pixels"], seeds=[0, 1, 2], classifiers=["knn"], ks=[1]).benchmark.scores
    assert scores.groupby("features")["n_seeds"].max().to_dict() == {"untrained_conv1": 3, "pixels": 1}


def test_another_label_and_wrong_ones(own: Run) -> None:
    with pytest.raises(CellTableError, match="no values in column 'location'"):
        compare(own, ["pixels"], label="location")
    with pytest.raises(UnknownNameError, match="conv7"):
        compare(own, ["conv7"])
    with pytest.raises(UnknownNameError, match="classifier"):
        compare(own, ["pixels"], classifiers=["svm"])
    assert comparison.DEFAULT_SETS[:5] == ("conv1", "conv2", "conv3", "conv4", "conv5")


def test_names_of_tables_and_figures_of_the_paper() -> None:
    assert parse_table("mine=a/b.csv") == ("mine", Path("a/b.csv"))
    assert parse_table("a/b.parquet") == ("b", Path("a/b.parquet"))
    assert paper_figures(["conv4", "pixels", "designed"]) == {"conv4": 0.8798, "designed": 0.6204}


def test_a_sample_for_another_label_lies_beside(own_recipe: Path, tmp_path: Path) -> None:
    part = Run(own_recipe, tmp_path / "runs", device="cpu", precision="float32", jobs=1, quiet=True, sample=24)
    first = part.feature_files("pixels")["pixels"]
    assert first.name == "pixels+cells=24.h5ad"
    before = first.stat().st_mtime_ns
    other = part.with_label("image")
    assert other.feature_files("pixels")["pixels"].name == "pixels+cells=24+label=image.h5ad"
    assert len(other.cells()) == 24 and len(part.cells()) == 24  # neither is drawn again
    assert part.feature_files("pixels")["pixels"].stat().st_mtime_ns == before


def encoder(path: Path, pretext: str, names: tuple[str, str], floor: float = 0.05) -> Path:
    """Write an untrained encoder of two channels with its card; return the file."""
    model = build("pci", 1, 1, 0.05, seed=0, pretext=pretext)
    channels = [{"name": n, "role": r} for n, r in zip(names, ("protein", "structural"), strict=True)]
    card = {"architecture": model.architecture, "channels": channels, "preprocess": {"floor": floor}}
    save_safetensors({k: v for k, v in model.source.state_dict().items()}, path, card)
    return path


def test_other_networks_fit_or_say_why_not(own: Run, tmp_path: Path) -> None:
    fits = encoder(tmp_path / "fits.safetensors", "contrast", ("protein", "marker"))
    paper = encoder(tmp_path / "paper.safetensors", "inpainting", ("protein", "marker"))
    channels = encoder(tmp_path / "channels.safetensors", "contrast", ("gfp", "marker"))
    scaled = encoder(tmp_path / "scaled.safetensors", "contrast", ("protein", "marker"), floor=0.1)
    found, left_out = comparison.other_networks(own, [str(p) for p in (fits, paper, channels, scaled)])
    assert {n: o.pretext for n, o in found.items()} == {"fits": "contrast", "paper": "inpainting"}
    assert "gfp" in left_out[str(channels)] and "rescaled in another way" in left_out[str(scaled)]
    made = found["fits"].run.features("conv1")["conv1"]
    assert made.uns["pci"]["pretext"] == "contrast" and made.n_obs == 32
    assert any("weights=fits" in name for name in own.used.files)  # what it handed out, the run has used


def test_by_default_shipped_ones_of_another_pretext_stand_beside_the_own(own: Run) -> None:
    found, left_out = comparison.other_networks(own)
    assert not found and "the cells have ['protein', 'marker']" in left_out["best"] and "simulated-human" not in left_out
    human = Run("simulated-human", own.folder.parent, quiet=True)
    found, left_out = comparison.other_networks(human)
    assert {n: o.pretext for n, o in found.items()} == {"best": "contrast"} and not left_out
    assert {o.run.folder for o in found.values()} == {human.folder}
    of_best, left_out = comparison.other_networks(Run("best", own.folder.parent, quiet=True))
    assert {"simulated-human", "hpa-duloc"} <= set(of_best) and "simulated-yeast" in left_out and "best" not in of_best


def test_a_network_that_nobody_knows_or_a_file_that_is_not_there_stops(own: Run, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="simulated-human"):
        comparison.other_networks(own, ["simulated-humans"])
    with pytest.raises(CheckpointError, match="is not there"):
        comparison.other_networks(own, [str(tmp_path / "none.safetensors")])
