"""Notebook 07 runs from the first cell to the last on a user's own small recipe, with and without known variation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from executed import execute_here, execute_notebook, outputs


def execute(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_notebook("07_single_cell_variability", *args, **parameters)


def here(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_here("07_single_cell_variability", *args, **parameters)


@pytest.mark.slow
@pytest.mark.parametrize("known", [False, True])
def test_it_runs_to_the_end(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    if known:
        table = pd.read_csv(own_recipe.parent / "fields.csv")
        table.assign(variable=table["protein"].map({"P0": "yes", "P1": "no"})).to_csv(own_recipe.parent / "fields.csv", index=False)
    done = (here if known else execute)(
        own_recipe, tmp_path, monkeypatch, features="pixels", compare="", draws=20, protein="P1", branches=1
    )
    pictures, told = outputs(done)
    # ranking, crops, dendrogram and field; with known variation how well it is found, here and by feature set
    assert pictures == (6 if known else 4)
    assert ("not known which of them vary" in told) != known and "phenotypes of these cells are not known" in told
    scores = pd.read_parquet(tmp_path / "runs" / "own" / "tables" / "07_single_cell_variability_pixels_scores.parquet")
    assert scores["what"].str.startswith("average precision").any() == known


@pytest.mark.slow
def test_a_wrong_linkage_stops_it(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="unknown linkage 'wards'. Did you mean ward"):
        here(own_recipe, tmp_path, monkeypatch, linkage="wards")
    assert not (tmp_path / "runs" / "own" / "features").exists()
