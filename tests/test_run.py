"""Run: each step is made once, kept, and made again only when what it was made from changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from forked import Forked
from test_keras_h5 import keras_file, random_model

from pci_core import pretrained
from pci_core import run as run_module
from pci_core.errors import CheckpointError, DatasetError, ImageError, RecipeError, StaleError, StorageError, UnknownNameError
from pci_core.imported import import_weights
from pci_core.logs import split
from pci_core.names import feature_names, parse_feature_name
from pci_core.networks import build
from pci_core.run import Run
from pci_core.storage import file_sha256


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


def test_a_column_of_any_name_can_be_asked_for(own: Run, own_recipe: Path, tmp_path: Path) -> None:
    run = fresh(own_recipe, tmp_path, training={"pair_by": "../cell line", "weigh": "images"})
    assert run.variant.startswith("+pair_by=cell-line-") and run.variant.endswith("+weigh=images") and "/" not in run.variant
    assert own.with_training(pair_by="protein").variant == "+pair_by=protein"


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
from pci_core import run as made
from pci_core.run import Run
train = made.train
made.train = lambda *given, **more: print("trains", flush=True) or train(*given, **more)
run = Run(sys.argv[1], sys.argv[2], device="cpu", precision="float32", jobs=1, quiet=True)
run.feature_files("conv1")
"""


def test_two_at_once_make_it_once(own_recipe: Path, tmp_path: Path) -> None:
    both = [Forked(SCRIPT, own_recipe, tmp_path / "runs") for _ in range(2)]
    assert [(p.wait(), p.said()[1]) for p in both] == [(0, ""), (0, "")]
    assert sorted(p.said()[0] for p in both) == ["", "trains\n"]
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
    with pytest.raises(CheckpointError, match=r"'simulated-human' was made for \['protein', 'nucleus', 'microtubules'\]"):
        fresh(own_recipe, tmp_path, training={"start": "simulated-human"}).train()
    with pytest.raises(UnknownNameError, match="Did you mean simulated-human"):
        fresh(own_recipe, tmp_path, training={"start": "simulated-humn"}).train()


# --- weights that somebody gives: files of ours, Keras files, the authors'


@pytest.fixture
def keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PCI_CACHE", str(tmp_path / "cache"))
    return keras_file(random_model(1, 0.05)).write(tmp_path / "theirs.h5")


def given(own_recipe: Path, tmp_path: Path, weights: object, **more: object) -> Run:
    return fresh(own_recipe, tmp_path, training={"pretrained": weights}, **more)


def test_our_own_weights_as_a_file(own: Run, own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained here, used elsewhere: whole and as an encoder alone, the same features; no training happens."""
    wanted = own.features(["conv1", "conv4"])
    whole = tmp_path / "whole.safetensors"
    shutil.copyfile(own.train() / "weights.safetensors", whole)
    pretrained.export_encoder(whole, tmp_path / "small.safetensors")
    monkeypatch.setattr(run_module, "train", lambda *_, **__: pytest.fail("a network was trained"))
    elsewhere = given(own_recipe, tmp_path / "b", whole)
    assert [p.name for p in elsewhere.feature_files(["conv1", "pixels"]).values()] == ["conv1+weights=whole.h5ad", "pixels.h5ad"]
    found = elsewhere.features("conv1")["conv1"]
    np.testing.assert_array_equal(found.X, wanted["conv1"].X)
    assert (found.uns["pci"]["pretrained"], found.uns["pci"]["weights"]) == ("whole.safetensors", file_sha256(whole))
    rows = np.arange(2)
    np.testing.assert_array_equal(elsewhere.paint(rows, rows + 2).painted, own.paint(rows, rows + 2).painted)
    computed = split(own.card())[0]  # what the training cost stands in the log, which was not copied
    assert split(elsewhere.card())[0] == computed and not (elsewhere.folder / "models").exists()
    with pytest.raises(CheckpointError, match="training curve of whole.safetensors is not in its file"):
        elsewhere.losses()
    small = given(own_recipe, tmp_path / "b", tmp_path / "small.safetensors")
    found = small.features("conv4")["conv4"]
    # float16 in the file: 5e-4 a weight, through four layers
    np.testing.assert_allclose(found.X, wanted["conv4"].X, rtol=0, atol=5e-3 * float(np.abs(wanted["conv4"].X).max()))
    assert small.card()["trained_weights"] == own.card()["sha256"]
    with pytest.raises(CheckpointError, match="small.safetensors holds the source cell encoder alone.*painting needs the decoder"):
        small.paint(rows, rows + 2)


def test_weights_in_a_recipe_lie_beside_it(own: Run, own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copyfile(own.train() / "weights.safetensors", own_recipe.parent / "mine.safetensors")
    text = own_recipe.read_text()
    own_recipe.write_text(text.replace("epochs = 2", 'epochs = 2\npretrained = "mine.safetensors"'))
    run = fresh(own_recipe, tmp_path / "b")
    assert [p.name for p in run.feature_files("conv1").values()] == ["conv1.h5ad"]  # the recipe's own choice
    beside = given(own_recipe, tmp_path / "b", own_recipe.parent / "mine.safetensors")
    assert [p.name for p in beside.feature_files("conv1").values()] == ["conv1.h5ad"]
    assert fresh(own_recipe, tmp_path / "b", training={"pretrained": ""}).feature_files("conv1")["conv1"].name == "conv1+scratch.h5ad"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="mine.safetensors is not there"):  # in a call, from the current folder
        given(own_recipe, tmp_path / "b", "mine.safetensors").feature_files("conv1")


def test_another_kind_than_that_of_the_file_is_trained_or_refused(own: Run, own_recipe: Path, tmp_path: Path) -> None:
    whole = own.train() / "weights.safetensors"
    paths = given(own_recipe, tmp_path, whole).feature_files(["conv1", "autoencoder_conv1", "untrained_conv1"])
    assert [p.name for p in paths.values()] == ["conv1+weights=weights.h5ad", "autoencoder_conv1.h5ad", "untrained_conv1.h5ad"]
    ours = own.folder / "models" / "autoencoder" / "weights.safetensors"
    with pytest.raises(CheckpointError, match="holds a network of kind 'autoencoder'. Ask for autoencoder_conv1"):
        given(own_recipe, tmp_path, ours).feature_files("conv1")


def test_weights_of_other_cells_are_refused_before_any_cell_is_made(own: Run, own_recipe: Path, tmp_path: Path, keras: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    shutil.copyfile(own.train() / "weights.safetensors", whole)
    text = own_recipe.read_text()
    own_recipe.write_text(text.replace('"marker"', '"dna"'))
    other = given(own_recipe, tmp_path / "b", whole)
    with pytest.raises(CheckpointError, match=r"'whole.safetensors' was made for \['protein', 'marker'\].* have \['protein', 'dna'\]"):
        other.feature_files("conv1")
    with pytest.raises(CheckpointError, match=r"\['protein', 'marker'\].*pci weights import FILE --channels protein,dna"):
        other.model()
    own_recipe.write_text(text.replace("[source]", '[[channels]]\nname = "er"\nrole = "structural"\n[source]'))
    with pytest.raises(CheckpointError, match=r"2 channels\), but the cells have \['protein', 'marker', 'er'\]"):
        given(own_recipe, tmp_path / "b", whole).feature_files("conv1")
    own_recipe.write_text(text + '[preprocess]\nstructural = "clip"\n')
    with pytest.raises(CheckpointError, match="whole.safetensors was trained on cells that were rescaled in another way"):
        given(own_recipe, tmp_path / "b", whole).feature_files("conv1")
    own_recipe.write_text(text)
    with pytest.raises(CheckpointError, match=r"'theirs.h5' was made for \['gfp', 'rfp'\].*--channels protein,marker"):
        given(own_recipe, tmp_path / "b", keras).feature_files("conv1")
    assert not (tmp_path / "b" / "runs" / "own" / "cells").exists()


def test_a_keras_file_and_what_it_is_converted_to(own_recipe: Path, tmp_path: Path, keras: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_recipe.write_text(own_recipe.read_text().replace('"marker"', '"RED"'))  # another name of rfp; upper case does not matter
    run = given(own_recipe, tmp_path, keras)
    found = run.features("conv2")["conv2"]
    assert found.uns["pci"]["weights"] == file_sha256(keras) and found.uns["pci"]["pretrained"] == "theirs.h5"
    painted = run.paint(np.arange(2), np.arange(2, 4)).painted
    assert painted.shape == (2, 1, 16, 16) and run.card()["source"]["file"] == "theirs.h5"
    before = times(tmp_path / "runs") | times(tmp_path / "cache")
    monkeypatch.setattr("pci_core.imported.import_keras", lambda *_: pytest.fail("converted twice"))
    given(own_recipe, tmp_path, keras).features("conv2")
    assert times(tmp_path / "runs") | times(tmp_path / "cache") == before
    assert given(own_recipe, tmp_path, keras).feature_files("conv2")["conv2"].name == "conv2+weights=theirs.h5ad"


def test_training_from_a_keras_network(own_recipe: Path, tmp_path: Path, keras: Path) -> None:
    path, _ = import_weights(keras, channels=["protein", "marker"])
    short = {"start": str(path), "epochs": 1, "learning_rate": 1e-9}
    started = fresh(own_recipe, tmp_path, training=short).model().source.state_dict()
    kernel = "blocks.3.conv.weight"
    # the learning rate moves nothing: Adam's steps are of its size, four of them
    assert torch.allclose(started[kernel], random_model(1, 0.05).source.state_dict()[kernel], rtol=0, atol=1e-7)


def test_another_scale_is_told(own: Run, own_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = tmp_path / "whole.safetensors"
    shutil.copyfile(own.train() / "weights.safetensors", whole)
    own_recipe.write_text(own_recipe.read_text().replace("um_per_px = 0.5", "um_per_px = 0.1"))
    run = Run(own_recipe, tmp_path / "b", training={"pretrained": whole}, device="cpu", precision="float32", jobs=1)
    found = run.features("conv1")["conv1"]
    told = "whole.safetensors was trained on crops of 0.5 µm/px, these have 0.1 µm/px: to it, cells look 5 times as large."
    assert f"Note: {told}" in capsys.readouterr().out and str(found.uns["pci"]["weights_note"]).startswith(told)
