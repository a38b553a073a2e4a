"""Export: the kept encoder carries a card that says how it was made and what it is worth."""

from __future__ import annotations

from pathlib import Path

import pytest

from pci_core import pretrained
from pci_core.export import _card_lines, export
from pci_core.run import Run


def test_a_kept_encoder_and_its_card(own_recipe: Path, tmp_path: Path) -> None:
    run = Run(own_recipe, tmp_path / "runs", device="cpu", precision="float32", jobs=1, quiet=True)
    out = tmp_path / "own-pci.safetensors"
    card = export(run, out, score=run, command="pci weights export own.toml")
    _, found = pretrained.load_encoder(out, run.recipe.preprocess)
    assert found["cells"] == 32 and found["proteins"] == 2 and len(found["held_out_losses"]) == found["epochs"] == 2
    assert found["pairs"] == card["pairs"] > 0 and found["command"] == "pci weights export own.toml"
    knn = found["knn"]
    assert (knn["n_cells"], knn["n_classes"], knn["k"]) == (32, 2, 11)
    # by hand: the same scores from the run's own features; float16 weights may move a vote, not the picture
    from pci_core.analysis.classify import knn_table

    table = knn_table(run.features(["conv1"]), "protein")
    own = {r["left_out"]: r["accuracy"] for r in knn["scores"] if r["features"] == "conv1"}
    assert own == pytest.approx(dict(zip(table["left_out"], table["accuracy"], strict=True)), abs=2 / 32)
    text = "\n".join(_card_lines(out, found))
    assert "32 of 4 images and 2 proteins" in text and "| own image |" in text
