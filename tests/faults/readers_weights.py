"""Readers of weights and checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from made_up import OWN_RECIPE
from readers import Reader, alike, exact
from readers_cells import _dataset
from test_keras_h5 import keras_file, random_model

from pci_core import recipe
from pci_core.baselines.vgg16 import load_weights
from pci_core.cells import CellDataset
from pci_core.checkpoint import CHECKPOINT
from pci_core.imported import import_weights
from pci_core.pretrained import load_encoder
from pci_core.train import train
from pci_core.weights import load_safetensors, save_safetensors

_CARD = {
    "architecture": {"kind": "pci", "n_protein": 1, "n_structural": 1, "width": 0.05},
    "channels": [{"name": "gfp", "role": "protein"}, {"name": "rfp", "role": "structural"}],
    "preprocess": {"protein": "minmax", "structural": "clip", "floor": 0.05, "full": 0.0},
    "um_per_px": 0.25,
    "crop": [16, 16],
    "data": "made up",
}


def _safetensors(folder: Path) -> list[Path]:
    save_safetensors(random_model(width=0.05).source.state_dict(), folder / "w.safetensors", _CARD)
    return [folder / "w.safetensors"]


def _read_safetensors(folder: Path) -> Any:
    encoder, card = load_encoder(folder / "w.safetensors")
    return [dict(encoder.state_dict()), card]


def _keras(folder: Path) -> list[Path]:
    return [keras_file(random_model(width=0.05)).write(folder / "w.h5")]


def _read_keras(folder: Path) -> dict[str, torch.Tensor]:
    return load_safetensors(import_weights(folder / "w.h5", folder / "out.safetensors")[0])[0]


def _vgg(suffix: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        state = {"features.0.weight": torch.arange(600.0).reshape(10, 60), "features.0.bias": torch.ones(10)}
        path = folder / f"vgg{suffix}"
        if suffix == ".pth":
            torch.save(state, path)
        else:
            import safetensors.torch

            safetensors.torch.save_file(state, path)
        return [path]

    return make


def named_tensors(good: dict[str, torch.Tensor], found: dict[str, torch.Tensor], path: Path) -> str:
    """A foreign file of tensors: its SHA-256 goes into every feature set; shapes and values are looked at by `fill`."""
    return "" if all(isinstance(v, torch.Tensor) for v in found.values()) else "something else than tensors"


def _spec() -> recipe.Recipe:
    import tomllib

    spec = recipe.parse(tomllib.loads(OWN_RECIPE), "own")
    return spec.replace(training={"epochs": 1, "holdout": 0.0}, crop={"size": 8, "resize": 8})


def _train(folder: Path) -> Any:
    trained = train(CellDataset(folder / "cells"), _spec(), folder / "training", device="cpu", precision="float32", quiet=True)
    return [dict(trained.model.state_dict()), trained.losses[0]["train_loss"]]


def _checkpoint(folder: Path) -> list[Path]:
    _dataset(folder)
    _train(folder)
    return [folder / "training" / CHECKPOINT]


READERS = [
    Reader("safetensors", _safetensors, _read_safetensors, exact),
    Reader("keras hdf5", _keras, _read_keras, alike),
    Reader("vgg16, pth", _vgg(".pth"), lambda f: load_weights(f / "vgg.pth")[0], exact),
    Reader("vgg16, safetensors", _vgg(".safetensors"), lambda f: load_weights(f / "vgg.safetensors")[0], named_tensors),
    Reader("checkpoint", _checkpoint, _train, exact, costly=True),
]
