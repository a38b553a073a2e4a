"""Run: each step is made once, kept, and made again only when what it was made from changes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pci_core import pretrained
from pci_core import run as run_module
from pci_core.errors import CheckpointError, DatasetError, ImageError, RecipeError, StaleError, StorageError, UnknownNameError
from pci_core.model import build
from pci_core.names import feature_names, parse_feature_name
from pci_core.run import Run


@pytest.fixture
def own(own_recipe: Path, tmp_path: Path) -> Run:
    return fresh(own_recipe, tmp_path)


def fresh(recipe: Path, tmp_path: Path, **more: object) -> Run:
    return Run(recipe, tmp_path / "runs", device="cpu", precision="float32", jobs=1, quiet=True, **more)  # type: ignore[arg-type]


def times(folder: Path) -> dict[str, int]:
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"}


def test_from_fields_to_features_once(own: Run, own_recipe: Path, tmp_path: Path) -> None:
    found = own.features(["conv1", "conv4", "conv4_mean", "untrained_conv1", "pixels"])
    assert {n: a.shape[0] for n, a in found.items()} == dict.fromkeys(found, 32)
    assert found["pixels"].shape[1] == 16  # 16 x 16 px in squares of 4 x 4
    assert found["conv4"].obs["protein"].value_counts().to_dict() == {"P0": 16, "P1": 16}
    assert not np.allclose(found["conv1"].X, found["untrained_conv1"].X)
    assert found["conv4"].obsm["spatial"][0].tolist() == [13.5, 13.5]
    before = times(own.folder)
    again = fresh(own_recipe, tmp_path).features(["conv1", "conv4", "conv4_mean", "untrained_conv1", "pixels"])
    assert times(own.folder) == before  # nothing was made again
    np.testing.assert_array_equal(again["conv4"].X, found["conv4"].X)
    assert not [p for p in own.folder.rglob("*") if "writing" in p.name]


def test_a_changed_recipe_makes_again_what_depends_on_it(own: Run, own_recipe: Path, tmp_path: Path) -> None:
    first = own.features("conv2")["conv2"]
    cells = times(own.folder / "cells")
    own_recipe.write_text(own_recipe.read_text().replace("epochs = 2", "epochs = 3"))
    second = fresh(own_recipe, tmp_path).features("conv2")["conv2"]
    assert times(own.folder / "cells") == cells
    assert first.uns["pci"]["weights"] != second.uns["pci"]["weights"]
    own_recipe.write_text(own_recipe.read_text().replace("size = 16\nresize = 16", "size = 20\nresize = 20"))
    assert fresh(own_recipe, tmp_path).cells().crops.shape[2:] == (20, 20)


def test_changed_images_are_noticed(own: Run, own_recipe: Path, tmp_path: Path) -> None:
    before = own.cells().sha256
    shutil.copyfile(own_recipe.parent / "i1_f0.tif", own_recipe.parent / "i0_f0.tif")
    assert fresh(own_recipe, tmp_path).cells().sha256 != before


def test_another_seed_is_kept_beside(own: Run, own_recipe: Path, tmp_path: Path) -> None:
    own.features("conv1")
    before = times(own.folder)
    other = fresh(own_recipe, tmp_path, training={"seed": 1, "epochs": None})
    assert [p.name for p in other.feature_files("conv1").values()] == ["conv1+seed=1.h5ad"]
    assert before.items() <= times(own.folder).items()  # nothing that was there is lost


def test_longer_training_starts_from_the_shorter_and_equals_an_uncut_one(
    own: Run, own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.train()
    began: list[bool] = []
    original = run_module.train

    def spy(dataset: object, recipe: object, out: Path, **more: object) -> object:
        began.append((out / "checkpoint.pt").exists())
        return original(dataset, recipe, out, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "train", spy)
    longer = fresh(own_recipe, tmp_path, training={"epochs": 4}).model().state_dict()
    whole = Run(own_recipe, tmp_path / "elsewhere", training={"epochs": 4}, device="cpu", precision="float32", jobs=1, quiet=True)
    expected = whole.model().state_dict()
    assert began == [True, False]
    assert all((longer[k] == expected[k]).all() for k in expected)


def test_cells_changed_by_hand_are_refused(own: Run, own_recipe: Path, tmp_path: Path) -> None:
    own.cells()
    path = own.folder / "cells" / "cells.parquet"
    path.touch()
    fresh(own_recipe, tmp_path).cells()  # a new time alone is no change
    pd.read_parquet(path).assign(protein="X").to_parquet(path)
    with pytest.raises(StaleError, match="cells.parquet is not what this run wrote.*Put it back, or delete"):
        fresh(own_recipe, tmp_path).cells()


def test_bad_images_are_named_and_nothing_is_lost(own: Run, own_recipe: Path, tmp_path: Path) -> None:
    before = own.cells().sha256
    image = own_recipe.parent / "i2_f1.tif"
    good = image.read_bytes()
    image.write_bytes(good[:100])
    with pytest.raises(ImageError, match="i2_f1.tif"):
        fresh(own_recipe, tmp_path).cells()
    image.write_bytes(good)
    assert fresh(own_recipe, tmp_path).cells().sha256 == before


def test_all_images_below_the_minimum(own_recipe: Path, tmp_path: Path) -> None:
    own_recipe.write_text(own_recipe.read_text().replace("min_cells = 2", "min_cells = 50"))
    with pytest.raises(DatasetError, match="50"):
        fresh(own_recipe, tmp_path).cells()


def test_an_unwritable_folder(own_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    with pytest.raises(StorageError, match="is a file, not a folder.*--runs"):
        fresh(own_recipe, tmp_path).cells()


def test_names_of_feature_sets() -> None:
    assert parse_feature_name("autoencoder_conv3_mean") == run_module.FeatureName("autoencoder", "conv3", "mean")
    assert all(parse_feature_name(n) for n in feature_names())
    with pytest.raises(UnknownNameError, match="unknown feature set 'untraind_conv4'. Did you mean untrained_conv4"):
        parse_feature_name("untraind_conv4")


def test_wrong_training_keys(own_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="unknown key 'epoch'"):
        fresh(own_recipe, tmp_path, training={"epoch": 3})


SCRIPT = """
import sys
from pci_core.run import Run
run = Run(sys.argv[1], sys.argv[2], device="cpu", precision="float32", jobs=1, quiet=True)
run.feature_files("conv1")
"""


def test_two_at_once_make_it_once(own_recipe: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(own_recipe), str(tmp_path / "runs")]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(p.wait(), p.stderr.read() if p.stderr else "") for p in both] == [(0, ""), (0, "")]
    stamps = sorted(p.relative_to(tmp_path / "runs" / "own" / "steps").as_posix() for p in (tmp_path / "runs").rglob("steps/**/*.json"))
    assert stamps == ["cells.json", "features/conv1.json", "models/pci.json"]


def test_cut_between_training_and_its_stamp_nothing_is_trained_twice(
    own: Run, own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.train()
    (own.folder / "steps" / "models" / "pci.json").unlink()
    monkeypatch.setattr("pci_core.train.Pairs.batches", lambda *_: pytest.fail("a batch was drawn"))
    fresh(own_recipe, tmp_path).train()
    assert (own.folder / "steps" / "models" / "pci.json").exists()


def test_a_training_cut_in_another_precision_is_left_alone(own: Run, own_recipe: Path, tmp_path: Path) -> None:
    own.train()
    other = Run(own_recipe, tmp_path / "runs", device="cpu", precision="bfloat16", jobs=1, quiet=True, training={"epochs": 3})
    assert other.train().name == "pci+epochs=3"  # trained anew: half in float32 and half in bfloat16 would be neither


def test_a_sample_of_whole_images_beside_all_cells(own: Run, own_recipe: Path, tmp_path: Path) -> None:
    everything = own.features("untrained_conv1")["untrained_conv1"]
    part = fresh(own_recipe, tmp_path, sample=10)
    found = part.features(["untrained_conv1", "conv1"])
    counts = found["conv1"].obs.groupby(["protein", "image"], observed=True).size()
    assert counts.tolist() == [8, 8]  # one whole image of each protein
    same = everything[found["untrained_conv1"].obs_names].X
    np.testing.assert_array_equal(found["untrained_conv1"].X, same)
    assert {p.name for p in own.folder.glob("models/*")} == {"pci"}  # trained on all cells
    assert (own.folder / "features" / "conv1+cells=10.h5ad").exists() and len(own.cells()) == 32
    assert len(fresh(own_recipe, tmp_path, sample=1000).cells()) == 32
    with pytest.raises(RecipeError, match="sample of 0 cells"):
        fresh(own_recipe, tmp_path, sample=0)


def test_as_many_epochs_under_another_name_are_taken_over_whole(own: Run, own_recipe: Path, tmp_path: Path) -> None:
    longer = fresh(own_recipe, tmp_path, training={"epochs": 3})
    longer.train()
    own_recipe.write_text(own_recipe.read_text().replace("epochs = 2", "epochs = 3"))
    again = fresh(own_recipe, tmp_path)
    pd.testing.assert_frame_equal(again.losses(), longer.losses())
    assert again.card()["sha256"] == longer.card()["sha256"]


def test_training_from_an_encoder(own: Run, own_recipe: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "own" / "mine.safetensors"
    pretrained.export_encoder(own.train() / "weights.safetensors", encoder)
    short = fresh(own_recipe, tmp_path, training={"start": "mine.safetensors", "epochs": 1, "learning_rate": 1e-9})
    assert "start=mine" in short.train().name
    started, original = short.model().source.state_dict(), own.model().source.state_dict()
    random = build("pci", 1, 1, own.recipe.training.width, seed=own.recipe.training.seed).source.state_dict()
    kernel = "blocks.0.conv.weight"
    # float16 in the file: relative 5e-4; the learning rate moves nothing
    assert torch.allclose(started[kernel], original[kernel], rtol=1e-3, atol=1e-5)
    assert not torch.allclose(random[kernel], original[kernel], rtol=1e-3, atol=1e-5)
    longer = fresh(own_recipe, tmp_path, training={"start": "mine.safetensors", "epochs": 2, "learning_rate": 1e-9})
    assert len(longer.losses()) == 2 and longer.card()["start"] == short.card()["start"]


def test_an_encoder_that_does_not_fit_is_refused(own: Run, own_recipe: Path, tmp_path: Path) -> None:
    pretrained.export_encoder(own.train() / "weights.safetensors", tmp_path / "own" / "mine.safetensors")
    with pytest.raises(CheckpointError, match="same width"):
        fresh(own_recipe, tmp_path, training={"start": "mine.safetensors", "width": 0.1}).train()
    with pytest.raises(CheckpointError, match="is not there. Shipped: .*simulated-human"):
        fresh(own_recipe, tmp_path, training={"start": "no.safetensors"}).train()
    with pytest.raises(CheckpointError, match="rescaled in another way"):
        fresh(own_recipe, tmp_path, training={"start": "simulated-human"}).train()
