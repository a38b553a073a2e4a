"""Notebook 03 runs from the first cell to the last on a user's own small recipe, and stops on what it cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from executed import execute_here, execute_notebook, outputs


def execute(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_notebook("03_cell_line_robustness", *args, **parameters)


def here(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_here("03_cell_line_robustness", *args, **parameters)


def two_lines(recipe: Path) -> None:
    """Make eight proteins in two cell lines of the eight fields of view: each field is one of either line."""
    path = recipe.with_name("fields.csv")
    fields = pd.read_csv(path)
    both = pd.concat([fields.assign(cell_line="X", number=range(8)), fields.assign(cell_line="Y", number=[*range(1, 8), 0])])
    both["protein"] = "G" + both["number"].astype(str)
    both["field"] = both["image"] = both["protein"] + both["cell_line"]
    both["location"] = both["number"].map(dict(enumerate(["Nucleoli", "Cytosol"] * 3 + ["Nucleoli", "Cytosol;Nucleoli"])))
    both.drop(columns="number").to_csv(path, index=False)


@pytest.mark.slow
def test_it_runs_to_the_end(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_lines(own_recipe)
    asked = {"layer": "untrained_conv2", "compare": "pixels", "term_pairs": 50, "line_pairs": 100, "draws": 20}
    done = execute(own_recipe, tmp_path, monkeypatch, **asked)
    pictures, told = outputs(done)
    assert pictures == 3  # by location, cell lines, nearest
    assert "real cells" in told and "7 proteins that have one location only" in told and "Hardest to find again: " in told
    tables, stem = tmp_path / "runs" / "own" / "tables", "03_cell_line_robustness_untrained_conv2"
    assert pd.read_parquet(tables / f"{stem}_by_location.parquet")["term"].tolist() == ["Cytosol", "Nucleoli", "all locations"]
    table = pd.read_parquet(tables / f"{stem}_side_by_side.parquet")
    assert set(table["features"]) == {"untrained_conv2", "pixels"} and len(table) == 2 * 2 * 7 and table["paper"].isna().all()
    assert len(pd.read_parquet(tables / f"{stem}_ranks.parquet")) == 16  # eight proteins, either line
    scores = pd.read_parquet(tables / f"{stem}_scores.parquet")
    assert len(scores) == 14 and scores["value"].notna().all() and set(scores["n_proteins"]) == {7, 8}


def test_without_cell_lines_it_stops_at_its_first_cell(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="03_cell_line_robustness needs the column 'location'"):
        here(own_recipe, tmp_path, monkeypatch)
    assert not (tmp_path / "runs" / "own" / "features").exists()


def test_a_misspelt_parameter_stops_it(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="unknown parameter 'min_protein'. Did you mean min_proteins"):
        here(own_recipe, tmp_path, monkeypatch, min_protein=4)
    assert not (tmp_path / "runs" / "own").exists()
