"""Checkpoints: the same bytes under any name, a full disk told, those of earlier versions read."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pci_core import recipe as recipes
from pci_core.cells import CellDataset
from pci_core.checkpoint import CHECKPOINT, WEIGHTS, save_checkpoint
from pci_core.errors import StorageError
from pci_core.logs import log_path, read_log
from pci_core.train import load_model, train

CONTENT = {"model": {"a": torch.arange(6.0)}, "config": json.dumps({"k": 1}), "epoch": 2}


def test_its_name_is_not_in_it(tmp_path: Path) -> None:
    for name in ("one.pt", "another.pt"):
        save_checkpoint(tmp_path / name, CONTENT)
    content = (tmp_path / "one.pt").read_bytes()
    assert content == (tmp_path / "another.pt").read_bytes() and b".writing-" not in content
    assert torch.equal(torch.load(tmp_path / "one.pt", weights_only=True)["model"]["a"], CONTENT["model"]["a"])  # type: ignore[index]


def test_a_full_disk_is_told_and_the_earlier_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "one.pt", CONTENT)
    before = (tmp_path / "one.pt").read_bytes()

    def fails(content: Any, handle: Any) -> None:
        """As torch does when a write of its archive fails half way."""
        handle.write(b"half")
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 704 vs 598")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(StorageError, match=r"one\.pt: the disk is full"):
        save_checkpoint(tmp_path / "one.pt", CONTENT)
    assert (tmp_path / "one.pt").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_an_earlier_checkpoint_that_holds_its_cost_goes_on(make_cells: Callable[..., CellDataset], tmp_path: Path) -> None:
    recipe = recipes.load("authors-toy-yeast").replace(training={"epochs": 1, "batch_size": 8, "width": 0.05, "holdout": 0.25})
    dataset, out = make_cells(), tmp_path / "m"

    def fit(epochs: int) -> None:
        train(dataset, recipe.replace(training={"epochs": epochs}), out, precision="float32", device="cpu", quiet=True)

    fit(1)
    state = torch.load(out / CHECKPOINT, weights_only=True)
    assert "seconds" not in state and set(state["losses"][0]) == {"epoch", "train_loss", "held_out_loss"}
    state["losses"][0] |= {"pairs_per_second": 7.0, "data_wait_share": 0.5}
    del state["sha256"]  # there was none either
    torch.save(state | {"seconds": 1000.0}, out / CHECKPOINT)
    log_path(out / WEIGHTS).unlink()
    fit(2)
    card = load_model(out / WEIGHTS)[1]
    assert card["seconds"] > 1000 and card["epochs"] == 2 and "seconds" not in torch.load(out / CHECKPOINT, weights_only=True)
    assert [row.get("pairs_per_second", 0) > 0 for row in read_log(out / WEIGHTS)["epochs"]] == [True, True]
    assert read_log(out / WEIGHTS)["epochs"][0]["pairs_per_second"] == 7.0
