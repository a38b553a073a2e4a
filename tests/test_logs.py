"""Logs: what a file cost lies beside it, and files from before there were logs are read all the same."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from pci_core import logs
from pci_core.checkpoint import with_speeds, without_speeds, write_cost
from pci_core.weights import load_safetensors, save_safetensors


def test_a_log_lies_beside_its_file(tmp_path: Path) -> None:
    assert logs.log_path("a/conv1+width=0.05.h5ad") == Path("a/conv1+width=0.05.log.json")
    logs.write_log(tmp_path / "x.csv", {})
    assert not list(tmp_path.iterdir()) and logs.read_log(tmp_path / "x.csv") == {}
    logs.write_log(tmp_path / "x.csv", {"seconds": 2})
    assert logs.read_log(tmp_path / "x.csv")["seconds"] == 2 and logs.read_log(tmp_path / "x.csv")["made"].startswith("20")
    logs.log_path(tmp_path / "x.csv").write_text("[1")
    assert logs.read_log(tmp_path / "x.csv") == {}


def test_a_card_keeps_what_is_computed_and_tells_both(tmp_path: Path) -> None:
    card = {"pairs": 3, "seconds": 1.5, "hardware": "cpu", "made": "2026-01-01"}
    save_safetensors({"a": torch.zeros(2)}, tmp_path / "w.safetensors", card)
    assert b"2026-01-01" not in (tmp_path / "w.safetensors").read_bytes()
    assert load_safetensors(tmp_path / "w.safetensors")[1].items() >= card.items()
    logs.log_path(tmp_path / "w.safetensors").write_text(json.dumps({"pairs": 9, "sha256": "x"}))
    assert load_safetensors(tmp_path / "w.safetensors")[1]["pairs"] == 3  # a log says nothing of what is computed
    logs.log_path(tmp_path / "w.safetensors").unlink()
    assert "seconds" not in load_safetensors(tmp_path / "w.safetensors")[1]


def test_speeds_of_epochs_come_back_from_the_log(tmp_path: Path) -> None:
    rows = [{"epoch": i, "train_loss": 0.5, "pairs_per_second": 10.0 * i, "data_wait_share": 0.0} for i in (1, 2)]
    write_cost(tmp_path, rows, 3.0)
    assert without_speeds(rows) == [{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.5}]
    assert with_speeds(tmp_path, without_speeds(rows)) == rows
    logs.log_path(tmp_path / "weights.safetensors").unlink()
    assert with_speeds(tmp_path, rows) == rows  # of an earlier checkpoint, which holds them itself
    (row,) = with_speeds(tmp_path, without_speeds(rows[:1]))
    assert row["train_loss"] == 0.5 and row["pairs_per_second"] != row["pairs_per_second"]


def test_shipped_weights_from_before_there_were_logs_tell_their_cost() -> None:
    from pci_core import pretrained

    card = load_safetensors(pretrained.path_of("simulated-human"))[1]
    assert card["seconds"] > 0 and card["hardware"] and card["made"].startswith("20")
