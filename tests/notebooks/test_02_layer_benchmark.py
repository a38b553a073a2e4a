"""Notebook 02 runs from the first cell to the last on a user's own small recipe, their own table, layers and sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from executed import execute_here, execute_notebook, outputs

from pci_core.run import Run


def execute(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_notebook("02_layer_benchmark", *args, **parameters)


def here(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_here("02_layer_benchmark", *args, **parameters)


@pytest.mark.slow
def test_it_runs_to_the_end(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = Run(own_recipe, tmp_path / "runs", quiet=True).cells().table["cell_id"]
    pd.DataFrame({"cell_id": ids, "mine": np.random.default_rng(0).random(32)}).to_csv(tmp_path / "mine.csv", index=False)
    done = execute(
        own_recipe, tmp_path, monkeypatch, layers="conv1,conv2", feature_sets="untrained_conv1,pixels", tables=str(tmp_path / "mine.csv")
    )
    pictures, told = outputs(done)
    assert pictures == 6  # figure 2A, by class, confusion, by k, classifiers, maps
    assert "real cells" in told and "*Left out: " in told and "--vgg16-weights" in told  # VGG16's row says why it is empty
    tables = tmp_path / "runs" / "own" / "tables"
    scores = pd.read_parquet(tables / "02_benchmark_scores.parquet")
    assert set(scores["features"]) == {"conv1", "conv2", "untrained_conv1", "pixels", "mine"}
    assert set(scores["left_out"]) == {"cell", "image"} and scores["accuracy"].between(0, 1).all()
    assert set(pd.read_parquet(tables / "02_classifiers_scores.parquet")["classifier"]) == {"knn", "logistic"}


def test_a_wrong_layer_stops_it_at_once(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="unknown feature set 'conv9'. Did you mean conv"):
        here(own_recipe, tmp_path, monkeypatch, layers="conv9")
    assert not (tmp_path / "runs" / "own" / "features").exists()
