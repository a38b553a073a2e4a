"""Notebook 10 runs from the first cell to the last on a user's own small recipe, with labels and without, and stops where it must."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kept_trainings
import pandas as pd
import pytest
from executed import execute_here, execute_notebook, outputs


def execute(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_notebook("10_beyond", *args, **parameters)


def here(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_here("10_beyond", *args, **parameters)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [True, False])
def test_kept_trainings_and_own_cells(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: bool) -> None:
    if not labels:
        table = pd.read_csv(own_recipe.parent / "fields.csv")
        table.assign(protein="").to_csv(own_recipe.parent / "fields.csv", index=False)
    kept = kept_trainings.write(tmp_path / "kept")
    done = (execute if labels else here)(own_recipe, tmp_path, monkeypatch, features="pixels", tables=str(kept), draws=20)
    pictures, told = outputs(done)
    assert pictures == (5 if labels else 4)  # losses, layers, differences, nuisances, and encoders where something is classified
    assert "**Trained on simulated-human (SIMULATED cells), width 0.125" in told and "real cells" in told
    assert "This claim fell: 0.860, where at least 0.900 was asked for" in told
    assert "*best* does not fit" in told  # shipped, of another pretext, but of other channels
    assert ("*kNN*: " in told) != labels
    tables = tmp_path / "runs" / "own" / "tables"
    verdict = pd.read_parquet(tables / "10_beyond_pixels_verdict.parquet")
    assert len(verdict) == 6 and verdict["verdict"].value_counts()["not reached"] == 2
    scores = pd.read_parquet(tables / "10_beyond_pixels_scores.parquet")
    assert scores["what"].str.startswith("kNN").any() == labels


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        ("trained", "simulated-humans", "unknown recipe among the kept trainings 'simulated-humans'. Did you mean simulated-human"),
        ("last", "conv3", "unknown layer among the kept scores 'conv3'"),
        ("paper", "inpaintings", "none of the kept trainings scored on simulated-human is the paper's method"),
    ],
)
def test_what_was_not_kept_is_named(
    own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parameter: str, value: str, words: str
) -> None:
    kept = kept_trainings.write(tmp_path / "kept")
    with pytest.raises(Exception, match=words):
        here(own_recipe, tmp_path, monkeypatch, features="pixels", tables=str(kept), **{parameter: value})


@pytest.mark.slow
def test_a_wrong_name_of_weights_stops_it_before_any_feature(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="unknown pretrained encoder 'simulated-humans'"):
        here(own_recipe, tmp_path, monkeypatch, compare="simulated-humans")
    assert not (tmp_path / "runs" / "own" / "features").exists()
