"""Weights in safetensors with their card: there and back, damaged, foreign."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from pci_core.errors import CheckpointError
from pci_core.networks import build
from pci_core.weights import load_safetensors, save_safetensors, weights_sha256


def test_safetensors_there_and_back(tmp_path: Path) -> None:
    model = build("pci", 1, 2, 0.1, seed=0)
    card = {"architecture": model.architecture, "recipe": "simulated-human", "title": "µm", "loss": 0.01}
    digest = save_safetensors(model.state_dict(), tmp_path / "w.safetensors", card)
    state, read = load_safetensors(tmp_path / "w.safetensors")
    model.load_state_dict(state)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert read == {**card, "sha256": digest} and digest == weights_sha256(state)
    first = (tmp_path / "w.safetensors").read_bytes()
    save_safetensors(model.state_dict(), tmp_path / "w.safetensors", card)
    assert (tmp_path / "w.safetensors").read_bytes() == first  # the same weights, the same file


def test_sha256_tells_names_types_shapes_and_values_apart() -> None:
    one = torch.ones(2, 3)
    states: list[dict[str, torch.Tensor]] = [
        {"a": one}, {"b": one}, {"a": one.reshape(3, 2)}, {"a": one.to(torch.float64)}, {"a": one * 2}, {"a": one, "b": one},
    ]  # fmt: skip
    assert len({weights_sha256(state) for state in states}) == len(states)
    assert weights_sha256({"b": one, "a": one * 2}) == weights_sha256({"a": one * 2, "b": one})


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_truncated_safetensors(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_safetensors({"a": torch.ones(100)}, path, {})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match="damaged"):
        load_safetensors(path)


def test_changed_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_safetensors({"a": torch.ones(100)}, path, {})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="not the ones that its card names"):
        load_safetensors(path)


def test_foreign_or_missing_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="no card"):
        load_safetensors(tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="not there"):
        load_safetensors(tmp_path / "none.safetensors")
