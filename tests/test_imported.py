"""Keras networks as files of ours: the authors' by name (a stand-in in a mirror, the real ones need the network) and anybody's."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_keras_h5 import assert_same, keras_file, needs_reference, random_model

from pci_core import imported, pretrained, recipe
from pci_core.data import authors
from pci_core.data.download import git_blob_sha1
from pci_core.errors import CheckpointError, DownloadError, UnknownNameError
from pci_core.model import PairedCellInpainting
from pci_core.pretrained.fit import check_preprocess
from pci_core.recipe import Preprocess
from pci_core.run import Run
from pci_core.storage import file_sha256
from pci_core.train import load_model
from pci_core.weights import load_safetensors

WIDTH = 0.1


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("PCI_MIRROR", raising=False)
    monkeypatch.setenv("PCI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "imported"


@pytest.fixture
def yeast(tmp_path: Path) -> Path:
    return keras_file(random_model(1, WIDTH)).write(tmp_path / "mine.h5")


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A mirror with small stand-ins for the authors' three files, under the hashes that the registry then has."""
    folder, registry = tmp_path / "mirror", {}
    for i, (name, path) in enumerate(authors.WEIGHTS.items()):
        place = folder / authors.RAW.removeprefix("https://") / path
        place.parent.mkdir(parents=True, exist_ok=True)
        keras_file(random_model(1 if name == "yeast" else 2, WIDTH), first_number=i).write(place)
        registry[path] = git_blob_sha1(place.read_bytes())
    assert len(set(registry.values())) == 3
    monkeypatch.setattr(authors, "registry", lambda: registry)
    monkeypatch.setenv("PCI_MIRROR", str(folder))
    return folder


def converted_times(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    calls: list[Path] = []
    original = imported.import_keras

    def count(path: Path) -> object:
        calls.append(path)
        return original(path)

    monkeypatch.setattr(imported, "import_keras", count)
    return calls


def test_the_whole_network_comes_over(yeast: Path, tmp_path: Path) -> None:
    path, card = imported.import_weights(yeast)
    assert path == tmp_path / "mine.safetensors"
    model, read = load_model(path)
    assert isinstance(model, PairedCellInpainting)
    assert_same(model.state_dict(), random_model(1, WIDTH))
    assert read == {**card, "sha256": read["sha256"]}
    assert card["source"]["sha256"] == file_sha256(yeast) and card["source"]["git_blob_sha1"] == git_blob_sha1(yeast.read_bytes())
    assert card["source"]["file"] == "mine.h5" and card["import"]["batchnorm"] == "by the stored graph"
    assert [c["name"] for c in card["channels"]] == ["gfp", "rfp"]
    assert card["licence"] == card["training"] == card["data"] == "unknown" and "rescaling" in card["assumed"]
    first = path.read_bytes()
    imported.import_weights(yeast)
    assert path.read_bytes() == first  # nothing in the card depends on the time


def test_an_older_file_is_replaced_whole_or_stays(yeast: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    imported.import_weights(yeast, out)
    good = out.read_bytes()
    yeast.write_bytes(yeast.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="mine.h5 is damaged"):
        imported.import_weights(yeast, out)
    assert out.read_bytes() == good and not list(tmp_path.glob(".writing*"))


def test_an_encoder_of_it_keeps_where_it_came_from(yeast: Path, tmp_path: Path) -> None:
    path, _ = imported.import_weights(yeast, channels=["a", "b"])
    card = pretrained.export_encoder(path, tmp_path / "small.safetensors")
    assert card["source"]["file"] == "mine.h5" and card["licence"] == "unknown" and [c["name"] for c in card["channels"]] == ["a", "b"]


def test_channels_by_name_and_by_recipe(yeast: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    _, card = imported.import_weights(yeast, out, channels=["Sec61", "DIC"])
    assert card["channels"] == [{"name": "Sec61", "role": "protein"}, {"name": "DIC", "role": "structural"}]  # no other names
    assert card["assumed"].startswith("rescaling as in the authors'")
    with pytest.raises(CheckpointError, match=r"2 channels \(1 protein, 1 structural\), but the names given are \['a', 'b', 'c'\]"):
        imported.import_weights(yeast, out, channels=["a", "b", "c"])
    with pytest.raises(CheckpointError, match="Name each channel once"):
        imported.import_weights(yeast, out, channels=["a", "a"])
    brightfield = recipe.load("simulated-yeast-brightfield").replace(preprocess={"structural": "clip", "floor": 0.2})
    _, card = imported.import_weights(yeast, out, recipe=brightfield)
    assert [c["name"] for c in card["channels"]] == ["protein", "brightfield"] and "assumed" not in card
    check_preprocess(out, card, brightfield.preprocess)
    with pytest.raises(CheckpointError, match=r"floor: 0.2 there, 0.05"):
        check_preprocess(out, card, Preprocess(structural="clip"))
    with pytest.raises(CheckpointError, match=r"1 protein, 1 structural\), but simulated-human has protein \(protein\), nucleus"):
        imported.import_weights(yeast, out, recipe=recipe.load("simulated-human"))


def test_a_network_of_other_channels_than_the_authors_needs_its_recipe(tmp_path: Path) -> None:
    path = keras_file(random_model(3, WIDTH)).write(tmp_path / "four.h5")
    with pytest.raises(CheckpointError, match=r"four.h5 has 4 channels .*--recipe RECIPE"):
        imported.cached(path)
    with pytest.raises(CheckpointError, match="how its cells were rescaled is not known.*--recipe"):
        imported.import_weights(path, channels=["a", "b", "c", "d"])


def test_wrong_kinds_of_files(yeast: Path, tmp_path: Path) -> None:
    path, _ = imported.import_weights(yeast)
    with pytest.raises(CheckpointError, match="safetensors already"):
        imported.import_weights(path, tmp_path / "again.safetensors")
    with pytest.raises(CheckpointError, match=r"not as 'out.h5'"):
        imported.import_weights(yeast, tmp_path / "out.h5")
    with pytest.raises(CheckpointError, match="none.h5 is not there"):
        imported.import_weights(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros((3, 4))
    with pytest.raises(CheckpointError, match=r"other.h5.*layer_names"):
        imported.cached(tmp_path / "other.h5")


@pytest.mark.parametrize("suffix", ["pth", "pt", "PT", "pkl", "bin"])
def test_pickles_are_not_opened(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    monkeypatch.chdir(tmp_path)
    for door in (imported.import_weights, load_safetensors, pretrained.find, pretrained.holds):
        with pytest.raises(CheckpointError, match="was not opened: .* are pickles"):
            door(str(path))  # type: ignore[operator]
    assert not (tmp_path / "opened").exists()


# --- the authors' files, by name


def test_the_authors_files_by_name(mirror: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = converted_times(monkeypatch)
    found = {name: pretrained.find(name) for name in imported.AUTHORS}
    assert [w.name for w in found.values()] == ["authors-yeast", "authors-human", "authors-human-filtered"] and len(calls) == 3
    for name, weights in found.items():
        model, card = load_model(weights.path)
        assert weights.path.parent == cache and weights.converted and not weights.shipped
        assert model.architecture["n_structural"] == len(card["channels"]) - 1 == (1 if name == "authors-yeast" else 2)
        assert card["pretrained"] == name and "GPL-2.0" in card["licence"] and "assumed" not in card
        assert card["source"]["commit"] == authors.COMMIT and card["source"]["url"].endswith(card["source"]["file"])
        original = mirror / card["source"]["url"].removeprefix("https://")
        assert weights.sha256 == card["source"]["sha256"] == file_sha256(original)
        assert pretrained.find(name) == weights
    assert len(calls) == 3  # the second time from the cache


def test_features_by_name(mirror: Path, own_recipe: Path, tmp_path: Path) -> None:
    own_recipe.write_text(own_recipe.read_text().replace('"marker"', '"rfp"'))
    weights = {"pretrained": "authors-yeast"}
    run = Run(own_recipe, tmp_path / "runs", training=weights, device="cpu", precision="float32", jobs=1, quiet=True)
    found = run.features("conv3")["conv3"]
    assert [p.name for p in run.feature_files("conv3").values()] == ["conv3+weights=authors-yeast.h5ad"]
    assert found.uns["pci"]["pretrained"] == "authors-yeast" and np.isfinite(found.X).all()
    assert str(found.uns["pci"]["weights_note"]).startswith("authors-yeast was trained on crops of 64 px, these have 16 px")
    assert run.card()["cells"] == 1_165_713 and run.paint(np.arange(2), np.arange(2, 4)).painted.shape == (2, 1, 16, 16)
    human = Run(own_recipe, tmp_path / "runs", training={"pretrained": "authors-human"}, device="cpu", jobs=1, quiet=True)
    with pytest.raises(CheckpointError, match=r"'authors-human' was made for .* \(3 channels\), but the cells have \['protein', 'rfp'\]"):
        human.features("conv3")


def test_their_files_are_known_under_any_name(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = mirror / authors.RAW.removeprefix("https://") / authors.WEIGHTS["human-filtered"]
    (tmp_path / "copy.h5").write_bytes(original.read_bytes())
    _, card = imported.import_weights(tmp_path / "copy.h5")
    assert card["pretrained"] == "authors-human-filtered" and card["cells"] == "unknown"
    assert card["preprocess"] == {"protein": "minmax", "structural": "clip", "floor": 0.05}
    _, card = imported.import_weights(tmp_path / "copy.h5", recipe=recipe.load("authors-toy-human"))
    assert [c["name"] for c in card["channels"]] == ["green", "blue", "red"]
    other = recipe.load("authors-toy-human").replace(preprocess={"floor": 0.3})
    with pytest.raises(CheckpointError, match="authors-human-filtered.*Leave --recipe out"):
        imported.import_weights(tmp_path / "copy.h5", recipe=other)
    monkeypatch.chdir(tmp_path)
    assert imported.import_weights("authors-yeast")[0] == Path("authors-yeast.safetensors")


def test_a_damaged_cache_is_made_anew(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = pretrained.find("authors-yeast")
    good = weights.path.read_bytes()
    calls = converted_times(monkeypatch)
    for spoil in (good[:-1] + bytes([good[-1] ^ 1]), good[:100], b""):
        weights.path.write_bytes(spoil)
        assert pretrained.find("authors-yeast").path.read_bytes() == good
    assert len(calls) == 3


def test_a_file_that_is_not_theirs_or_not_there(mirror: Path) -> None:
    place = mirror / authors.RAW.removeprefix("https://")
    keras_file(random_model(1, 0.05)).write(place / authors.WEIGHTS["yeast"])
    (place / authors.WEIGHTS["human"]).unlink()
    with pytest.raises(DownloadError, match="git blob hash"):
        pretrained.find("authors-yeast")
    with pytest.raises(DownloadError, match="not in the mirror"):
        pretrained.find("authors-human")
    assert pretrained.holds("authors-human") and not pretrained.holds("authors-human", "autoencoder")  # told without a download


def test_cards_say_what_is_known_and_what_is_not() -> None:
    for name in imported.AUTHORS:
        card = imported.known_card(name)
        assert {"data", "cells", "training", "licence", "source", "channels", "preprocess", "crop"} <= set(card)
        assert card["source"]["git_blob_sha1"] == authors.registry()[card["source"]["file"]]
        assert card["training"]["seed"] == "unknown"
        card["channels"][0]["name"] = "changed"
        assert imported.known_card(name)["channels"][0]["name"] != "changed"
    assert imported.known_card("authors-yeast")["cells"] == 1_165_713 and imported.known_card("authors-human")["images"] == 41_285


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("authors-yaest", "Did you mean authors-yeast"),
        ("simulated-humn", "Did you mean simulated-human"),
    ],
)
def test_misspelt_names(name: str, message: str) -> None:
    for door in (pretrained.find, pretrained.holds):
        with pytest.raises(UnknownNameError, match=message):
            door(name)  # type: ignore[operator]


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="none.safetensors is not there. Shipped: .*simulated-human.*authors-yeast"):
        pretrained.find("none.safetensors", folder=tmp_path)
    with pytest.raises(CheckpointError, match="no file of weights by its name"):
        pretrained.find(f"some{os.sep}folder")


# --- against Keras itself


@needs_reference
def test_the_reference_through_the_file() -> None:
    """Converted, written and read again: as near to Keras as float32 is to itself (see `test_keras_h5` for the tolerance)."""
    spec = importlib.util.spec_from_file_location("check_import", Path(__file__).parent.parent / "tools" / "check_import.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    differences: Callable[[Path, Path], dict[str, tuple[float, float]]] = tool.differences
    folder = Path(os.environ["PCI_TEST_REFERENCE"])
    found = differences(folder / "keras_pci_yeast.h5", folder / "keras_pci_yeast.npz")
    assert set(found) == {"conv1", "conv2", "conv3", "conv4", "conv5", "prediction"}
    assert max(whole for whole, _ in found.values()) <= tool.LIMIT == 1e-5


def test_a_misspelt_name_gives_the_nearest_ones() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean authors-yeast"):
        imported.import_weights("authors-yeastt")
