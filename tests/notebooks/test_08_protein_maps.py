"""Notebook 08 runs from the first cell to the last on a user's own small recipes, and stops on what it cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from executed import execute_here, execute_notebook, outputs


def execute(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_notebook("08_protein_maps", *args, **parameters)


def here(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_here("08_protein_maps", *args, **parameters)


def two_fields_each(recipe: Path) -> None:
    """Make eight proteins of the eight fields of view, each with its own field and its neighbour's."""
    path = recipe.with_name("fields.csv")
    fields = pd.read_csv(path)
    both = pd.concat([fields.assign(number=range(8), turn="a"), fields.assign(number=[*range(1, 8), 0], turn="b")])
    both["protein"] = both["image"] = "G" + both["number"].astype(str)
    both["field"] = both["protein"] + both["turn"]
    both["location"] = both["number"].map(dict(enumerate(["Nucleoli", "Cytosol", "Golgi", "Vesicles"] * 2)))
    both.drop(columns=["number", "turn"]).to_csv(path, index=False)


def settings(recipe: Path) -> dict[str, object]:
    text = recipe.read_text().replace('label = "protein"', 'label = "location"')
    recipe.write_text(text)
    other = recipe.with_name("other.toml")
    other.write_text(text.replace('name = "own"', 'name = "other"', 1))
    modalities = {"modalities": f"{recipe},{other}", "modality_layer": "untrained_conv2"}
    return {"layer": "untrained_conv1", "k": 2, "n_neighbors": 3, "permutations": 20, "draws": 20, **modalities}


@pytest.mark.slow
def test_it_runs_to_the_end(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_fields_each(own_recipe)
    done = execute(own_recipe, tmp_path, monkeypatch, **settings(own_recipe))
    pictures, told = outputs(done)
    assert pictures == 4  # maps, agreement, by k, own map
    assert "the 8 proteins that are in all of them (real cells)" in told
    tables, stem = tmp_path / "runs" / "own" / "tables", "08_protein_maps_untrained_conv1"
    table = pd.read_parquet(tables / f"{stem}_agreement_untrained_conv2.parquet")
    assert len(table) == 8  # one pair of all cells, one pair and two experiments in halves, two measures each
    whole = table[table["cells"] == "all cells"].set_index("measure")["value"]
    assert whole.to_numpy() == pytest.approx(1)  # both recipes are the same cells, and the same random network
    scores = pd.read_parquet(tables / f"{stem}_scores.parquet")
    assert len(scores) == 5 and "nearest protein has the same location" in set(scores["what"])


@pytest.mark.slow
def test_without_modalities_only_the_own_map(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_fields_each(own_recipe)
    done = here(own_recipe, tmp_path, monkeypatch, **(settings(own_recipe) | {"modalities": ""}))
    pictures, told = outputs(done)
    assert pictures == 1
    assert "*No maps to compare.*" in told


def test_an_unknown_modality_stops_it_before_the_work(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="unknown recipe 'simulated-yest'"):
        here(own_recipe, tmp_path, monkeypatch, modalities="simulated-yest")
    assert not (tmp_path / "runs" / "own" / "features").exists()
