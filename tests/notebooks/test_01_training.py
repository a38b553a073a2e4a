"""Notebook 01 runs from the first cell to the last on a user's own small recipe, and stops on a wrong layer."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

TEMPLATE = Path(__file__).parents[2] / "notebooks" / "01_training.ipynb"


def execute(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **parameters: object) -> dict[str, object]:
    papermill = pytest.importorskip("papermill", reason="papermill is not installed; pip install 'pci-core[book]'")
    monkeypatch.setenv("PCI_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    done = papermill.execute_notebook(
        TEMPLATE, tmp_path / "out.ipynb", {"recipe": str(recipe), **parameters}, kernel_name="python3", progress_bar=False
    )
    return dict(done)


def test_it_runs_to_the_end(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = execute(own_recipe, tmp_path, monkeypatch, epochs=1, layer="conv2")
    pictures = [o for c in done["cells"] for o in c.get("outputs", []) if "image/png" in o.get("data", {})]  # type: ignore[attr-defined]
    assert len(pictures) == 7  # field, pairs, curve, painted, across images, accuracy by layer, recall by class
    table = pd.read_parquet(tmp_path / "runs" / "own" / "tables" / "01_knn_by_layer.parquet")
    assert len(table) == 20  # five layers, trained and untrained, two ways of leaving out
    assert table["accuracy"].between(0, 1).all()


def test_a_wrong_layer_stops_it_at_once(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="unknown layer 'conv9'. Did you mean conv"):
        execute(own_recipe, tmp_path, monkeypatch, layer="conv9")
    assert not (tmp_path / "runs").exists()
