"""Shipped encoders: small, whole, near what was trained, refused where they do not fit."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pci_core import imported, pretrained, recipe
from pci_core.cells import Channel
from pci_core.encoders import LAYERS
from pci_core.errors import CheckpointError, UnknownNameError
from pci_core.networks import build
from pci_core.pretrained.fit import channels_of, check_channels, check_preprocess, scale_note
from pci_core.recipe import Preprocess
from pci_core.weights import load_safetensors, save_safetensors


def trained(folder: Path, **card: object) -> Path:
    model = build("pci", 1, 1, 0.1, seed=3)
    with torch.no_grad():  # statistics away from their initial values, as after training
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.copy_(torch.rand_like(value) * 1e-4 + 1e-6)
    facts = {"architecture": model.architecture, "preprocess": asdict(Preprocess()), "pairs": 10, **card}
    save_safetensors(model.state_dict(), folder / "weights.safetensors", facts)
    return folder / "weights.safetensors"


def test_an_exported_encoder_gives_nearly_the_same_features(tmp_path: Path) -> None:
    card = pretrained.export_encoder(trained(tmp_path), tmp_path / "small.safetensors", command="pci weights export x")
    encoder, found = pretrained.load_encoder(tmp_path / "small.safetensors", Preprocess())
    assert found["command"] == card["command"] == "pci weights export x" and found["pairs"] == 10
    x = torch.rand(8, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        full = build("pci", 1, 1, 0.1, seed=3)
        full.load_state_dict(load_safetensors(tmp_path / "weights.safetensors")[0])
        want = full.eval().source.features(x, LAYERS)
        got = encoder.features(x, LAYERS)
    for layer in LAYERS:  # float16 keeps 11 bits: 5e-4 a weight, and errors of many weights partly cancel
        np.testing.assert_allclose(got[layer], want[layer], rtol=0, atol=2e-3 * float(want[layer].abs().max()))
    state, _ = load_safetensors(tmp_path / "small.safetensors")
    assert {v.dtype for v in state.values() if v.ndim == 4} == {torch.float16}
    assert not [k for k in state if k.startswith(("target", "decoder"))]


def test_other_preprocessing_is_refused(tmp_path: Path) -> None:
    pretrained.export_encoder(trained(tmp_path), tmp_path / "small.safetensors")
    with pytest.raises(CheckpointError, match=r"rescaled in another way \(structural: 'minmax' there, 'clip' in the recipe\)"):
        pretrained.load_encoder(tmp_path / "small.safetensors", Preprocess(structural="clip"))


def test_foreign_damaged_and_diverged_weights(tmp_path: Path) -> None:
    save_safetensors({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors", {"architecture": build("pci", 1, 1, 0.1).architecture})
    with pytest.raises(CheckpointError, match="do not fit the architecture"):
        pretrained.load_encoder(tmp_path / "foreign.safetensors")
    path = trained(tmp_path)
    state, card = load_safetensors(path)
    state["source.blocks.0.conv.weight"][0] = 1e6
    save_safetensors(state, path, card)
    with pytest.raises(CheckpointError, match="float16"):
        pretrained.export_encoder(path, tmp_path / "small.safetensors")
    assert not (tmp_path / "small.safetensors").exists()


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="pretrained pci"):
        pretrained.path_of("no-such-cells")
    with pytest.raises(UnknownNameError, match="model"):
        pretrained.path_of("simulated-human", "vae")
    with pytest.raises(UnknownNameError, match="pretrained encoder 'simulated-humn'. Did you mean simulated-human"):
        pretrained.has("simulated-humn")
    assert not pretrained.has("") and pretrained.has("simulated-human", "autoencoder") and not pretrained.has("hpa-duloc", "autoencoder")


@pytest.mark.parametrize("path", sorted(pretrained.folder().glob("*.safetensors")), ids=lambda p: p.stem)
def test_shipped_encoder_is_small_and_says_what_it_is(path: Path) -> None:
    assert path.stat().st_size <= 8e6
    _, card = pretrained.load_encoder(path)
    assert {"command", "cells", "pairs", "seconds", "hardware", "held_out_losses", "knn", "simulated"} <= set(card)
    assert card["simulated"] is recipe.load(card["recipe"]).simulated
    assert card["dataset"] and card["knn"]["n_cells"] > 500


@pytest.mark.parametrize("name", [n for n in recipe.names() if recipe.load(n).training.pretrained])
def test_recipes_that_use_an_encoder_fit_it(name: str) -> None:
    spec = recipe.load(name)
    if spec.training.pretrained in imported.AUTHORS:  # the file itself needs a download; its card does not
        card = imported.known_card(spec.training.pretrained)
        encoder = build("pci", 1, len(spec.channels) - 1, 0.05).source
        check_channels(spec, encoder, card["channels"], name)
        check_preprocess(name, card, spec.preprocess)
        um = spec.fields.um_per_px * spec.fields.downscale * spec.crop.size / spec.crop.resize
        assert scale_note(card, name, um, spec.crop.resize) == ""
        return
    assert pretrained.has(spec.training.pretrained)
    for kind in [k for k in ("pci", "autoencoder") if pretrained.has(spec.training.pretrained, k)]:
        _, card = pretrained.load_encoder(pretrained.path_of(spec.training.pretrained, kind), spec.preprocess)
        assert [c["name"] for c in card["channels"]] == [c.name for c in spec.channels]
        assert card["crop"] == [spec.crop.resize] * 2
        large = recipe.load(card["recipe"])  # other cells than those analysed, or, and the recipe says so, those very cells
        assert large.name == name or large.source.seed != spec.source.seed or large.source.kind != spec.source.kind


def test_the_page_of_cards_is_what_the_files_say() -> None:
    from pci_core.export import cards_page

    page = Path(__file__).parent.parent / "book" / "pretrained.md"
    assert page.read_text() == cards_page(), "run: python -m pci_core.export"


def test_a_changed_training_is_one_from_scratch() -> None:
    from pci_core.run import Run

    spec = recipe.load("simulated-human")
    assert Run(spec).recipe.training.pretrained == "simulated-human"
    assert Run(spec, training={"epochs": None}).recipe.training.pretrained == "simulated-human"
    assert Run(spec, training={"epochs": 7}).recipe.training.pretrained == ""
    assert Run(spec, training={"pretrained": ""}).recipe == replace(spec, training=replace(spec.training, pretrained=""))


def test_an_encoder_out_of_a_whole_network(tmp_path: Path) -> None:
    encoder, card = pretrained.load_encoder(trained(tmp_path), Preprocess())
    state, _ = load_safetensors(tmp_path / "weights.safetensors")
    assert all(torch.equal(v, state[f"source.{k}"]) for k, v in encoder.state_dict().items()) and card["pairs"] == 10


def test_cards_that_do_not_say_enough(tmp_path: Path) -> None:
    path = trained(tmp_path, preprocess=None)
    with pytest.raises(CheckpointError, match="does not say how the cells were rescaled"):
        pretrained.load_encoder(path, Preprocess())
    for channels in (None, "gfp", [{"role": "protein"}], ["gfp"]):
        with pytest.raises(CheckpointError, match="mine: its card does not name the channels"):
            channels_of({"channels": channels}, "mine")


GFP, RFP = {"name": "gfp", "role": "protein", "also": ["green"]}, {"name": "rfp", "role": "structural", "also": ["red"]}


def yeast(protein: str, marker: str) -> recipe.Recipe:
    channels = (Channel(protein, "protein"), Channel(marker, "structural"))
    return replace(recipe.load("authors-toy-yeast"), channels=channels)


@pytest.mark.parametrize("names", [("gfp", "rfp"), ("GFP", "Red"), ("green", "rfp")])
def test_the_same_markers_under_other_names(names: tuple[str, str]) -> None:
    check_channels(yeast(*names), build("pci", 1, 1, 0.05).source, [GFP, RFP], "m")


@pytest.mark.parametrize(
    ("names", "trained_on"),
    [
        (("red", "gfp"), [GFP, RFP]),
        (("gfp", "bf"), [GFP, RFP]),
        (("gfp", "rfp"), [GFP, {**RFP, "role": "protein"}]),
        (("gfp", "rfp"), [GFP]),
        (("gfp", "rfp"), [GFP, RFP, RFP]),
    ],
)
def test_other_markers_order_roles_or_numbers(names: tuple[str, str], trained_on: list[dict[str, object]]) -> None:
    with pytest.raises(CheckpointError, match=r"model 'm' was made for \['gfp'.* but the cells have"):
        check_channels(yeast(*names), build("pci", 1, 1, 0.05).source, trained_on, "m")


def test_cells_of_another_scale_are_worth_a_word() -> None:
    card = {"um_per_px": 0.64, "crop": [64, 64]}
    assert scale_note(card, "w", 0.52, 64) == scale_note(card, "w", 0.79, 64) == scale_note(card, "w", None, 64) == ""
    assert "0.64 µm/px, these have 0.5 µm/px" in scale_note(card, "w", 0.5, 64) and "0.78 times" in scale_note(card, "w", 0.82, 64)
    assert "crops of 64 px, these have 96 px" in scale_note(card, "w", None, 96)
    assert scale_note({"um_per_px": None, "crop": None}, "w", 0.1, 96) == ""
