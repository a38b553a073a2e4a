"""Notebook 05 runs from the first cell to the last on a user's own recipe, with and without annotation, and stops on wrong names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from executed import execute_here, execute_notebook, outputs


def execute(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_notebook("05_nucleolar_rim", *args, **{"features": "pixels", **parameters})


def here(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_here("05_nucleolar_rim", *args, **{"features": "pixels", **parameters})


def annotate(recipe: Path) -> None:
    """Make each image a protein of its own, three of the four at the rim."""
    path = recipe.parent / "fields.csv"
    table = pd.read_csv(path)
    table["protein"] = "Q" + table["image"].str[1:]
    table["location"] = table["protein"].map({"Q0": "Nucleoli rim", "Q1": "Cytosol", "Q2": "Nucleoli rim", "Q3": "Nucleoli rim;Cytosol"})
    table.to_csv(path, index=False)


@pytest.mark.slow
def test_it_runs_to_the_end(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotate(own_recipe)
    pictures, told = outputs(execute(own_recipe, tmp_path, monkeypatch, query="q0", combine="nearest", crops=2))
    assert pictures == 5  # dendrogram, ranks, precision and recall, terms, crops
    assert "Query: Q0. 3 of 4 proteins count as *Nucleoli rim* (Q0, Q2, Q3)." in told and "real cells" in told
    tables = tmp_path / "runs" / "own" / "tables"
    ranking = pd.read_parquet(tables / "05_nucleolar_rim_pixels_ranking.parquet")
    assert ranking["rank"].tolist() == [1, 2, 3] and set(ranking["protein"]) == {"Q1", "Q2", "Q3"}
    scores = pd.read_parquet(tables / "05_nucleolar_rim_pixels_scores.parquet")
    assert {"average precision, dendrogram", "average precision, mean over all queries, euclidean"} <= set(scores["what"])
    assert scores["value"].between(0, 1).all()


@pytest.mark.slow
def test_without_annotation_the_scores_are_left_out(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, told = outputs(here(own_recipe, tmp_path, monkeypatch, query="P0", metric="euclidean"))
    assert pictures == 3  # dendrogram, ranks, crops
    assert told.count("Left out:") == 3 and "no protein has a location" in told
    assert not len(pd.read_parquet(tmp_path / "runs" / "own" / "tables" / "05_nucleolar_rim_pixels_scores.parquet"))
