"""Notebook 01 runs from the first cell to the last on a user's own small recipe, and stops on a wrong layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from executed import execute_here, execute_notebook, outputs


def execute(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_notebook("01_training", *args, **parameters)


def here(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_here("01_training", *args, **parameters)


def test_it_runs_to_the_end(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = execute(own_recipe, tmp_path, monkeypatch, epochs=1, width=None, layer="conv2")
    pictures, _ = outputs(done)
    assert pictures == 7  # field, pairs, curve, painted, across images, accuracy by layer, recall by class
    table = pd.read_parquet(tmp_path / "runs" / "own" / "tables" / "01_knn_by_layer.parquet")
    assert len(table) == 20  # five layers, trained and untrained, two ways of leaving out
    assert table["accuracy"].between(0, 1).all()


def test_a_wrong_layer_stops_it_at_once(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="unknown layer 'conv9'. Did you mean conv"):
        here(own_recipe, tmp_path, monkeypatch, layer="conv9")
    assert not (tmp_path / "runs").exists()
