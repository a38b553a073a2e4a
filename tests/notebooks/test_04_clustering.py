"""Notebook 04 runs from the first cell to the last on a user's own small recipe, and stops on what it cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from executed import execute_here, execute_notebook, outputs


def execute(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_notebook("04_clustering", *args, **parameters)


def here(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_here("04_clustering", *args, **parameters)


def a_protein_a_field(recipe: Path, **columns: list[str]) -> None:
    """Make eight proteins of the eight fields of view."""
    path = recipe.with_name("fields.csv")
    fields = pd.read_csv(path)
    fields["image"] = fields["field"]
    fields["protein"] = [f"G{i}" for i in range(len(fields))]
    fields.assign(**columns).to_csv(path, index=False)


@pytest.mark.slow
def test_it_runs_to_the_end_with_locations(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_protein_a_field(own_recipe, location=["Nucleoli", "Nucleoli", "Cytosol", "Cytosol"] * 2)
    gmt = tmp_path / "my.gmt"
    gmt.write_text("even\t\tG0\tG1\tG4\tG5\nodd\t\tG2\tG3\tG6\tG7\n")
    asked = {"layer": "untrained_conv2", "min_size": 2, "n_clusters": 2, "enrichment": str(gmt), "draws": 3, "crops": 3}
    done = execute(own_recipe, tmp_path, monkeypatch, **asked)
    pictures, told = outputs(done)
    assert pictures == 4  # heat map, locations, stability, crops
    tables = tmp_path / "runs" / "own" / "tables"
    stem = "04_clustering_untrained_conv2"
    proteins = pd.read_csv(tables / f"{stem}_proteins.csv")
    assert sorted(proteins["place"]) == list(range(8)) and proteins["cluster"].max() == 2
    cdt = pd.read_csv(tables / f"{stem}.cdt", sep="\t")
    assert cdt["ID"].iloc[2:].tolist() == proteins["name"].tolist()  # both in the order of the dendrogram
    assert len((tables / f"{stem}.gtr").read_text().splitlines()) == 7
    assert (tables / f"{stem}.nwk").read_text().count("G") == 8
    scores = pd.read_parquet(tables / f"{stem}_scores.parquet").set_index("what")
    assert scores.at["clusters", "value"] == 2 and -1 <= scores.at["adjusted Rand index with annotated locations", "value"] <= 1
    assert set(pd.read_parquet(tables / f"{stem}_stability.parquet")["draws"]) == {3}
    assert {p.name for p in (tmp_path / "runs" / "own" / "figures").iterdir()} >= {f"{stem}_heat_map.{k}" for k in ("png", "svg")}


@pytest.mark.slow
def test_without_locations_the_agreement_is_left_out(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_protein_a_field(own_recipe)
    done = here(own_recipe, tmp_path, monkeypatch, layer="untrained_conv2", min_size=2, n_clusters=2, enrichment="", draws=2)
    told = outputs(done)[1]
    assert "Left out: there are no annotated locations" in told and "No enrichment was asked for" in told
    scores = pd.read_parquet(tmp_path / "runs" / "own" / "tables" / "04_clustering_untrained_conv2_scores.parquet")
    assert scores["what"].tolist() == ["clusters", "share of proteins in a cluster", "mean stability of clusters"]
