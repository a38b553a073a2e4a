"""Notebook 09 runs from the first cell to the last on a user's own recipe, and names the locations there are where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from executed import execute_here, execute_notebook, outputs


def execute(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_notebook("09_subclasses", *args, **{"features": "pixels", **parameters})


def here(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_here("09_subclasses", *args, **{"features": "pixels", **parameters})


def annotate(recipe: Path) -> None:
    """Make each image a protein of its own: two of the Golgi apparatus, two vesicles."""
    path = recipe.parent / "fields.csv"
    table = pd.read_csv(path)
    table["protein"] = "Q" + table["image"].str[1:]
    table["location"] = table["protein"].map({"Q0": "Golgi", "Q1": "Vesicles", "Q2": "Golgi", "Q3": "Vesicles"})
    table.to_csv(path, index=False)


@pytest.mark.slow
def test_two_locations_are_found_again(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotate(own_recipe)
    pictures, told = outputs(execute(own_recipe, tmp_path, monkeypatch, location="Golgi,Vesicles", metric="euclidean"))
    assert pictures == 4  # heat maps of proteins and fields, crops, scores
    assert "4 proteins, 4 images, 32 cells" in told and "(location): 2 Golgi, 2 Vesicles" in told and "real cells" in told
    scores = pd.read_parquet(tmp_path / "runs" / "own" / "tables" / "09_subclasses_pixels_scores.parquet").set_index("what")
    assert set(scores.index) == {f"{w}, {v}s" for w in ("adjusted Rand index", "purity", "nearest") for v in ("protein", "field")}
    assert scores["value"].between(-1, 1).all() and (scores["n_proteins"] == 4).all()
    assert len(pd.read_parquet(tmp_path / "runs" / "own" / "tables" / "09_subclasses_pixels_proteins.parquet")) == 4


@pytest.mark.slow
def test_within_one_location_of_real_cells_nothing_is_known(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotate(own_recipe)
    pictures, told = outputs(here(own_recipe, tmp_path, monkeypatch, location="Golgi", metric="euclidean"))
    assert pictures == 3 and "No subclass of them is known" in told and told.count("Left out:") == 2


@pytest.mark.slow
def test_a_location_that_is_not_there(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotate(own_recipe)
    with pytest.raises(Exception, match=r"no protein has the location 'Golgo' alone.*Golgi \(2\), Vesicles \(2\)"):
        here(own_recipe, tmp_path, monkeypatch, location="Golgo")
    assert not (tmp_path / "runs" / "own" / "figures").exists()
