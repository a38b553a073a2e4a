"""Notebook 06 runs from the first cell to the last on a user's own small recipe with two locations, and stops where it must."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from executed import execute_here, execute_notebook, outputs


def execute(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_notebook("06_multilocalization", *args, **parameters)


def here(*args: Any, **parameters: object) -> dict[str, Any]:
    return execute_here("06_multilocalization", *args, **parameters)


@pytest.fixture
def two_locations(own_recipe: Path) -> Path:
    """The made-up recipe with eight images: two of each location alone, four of both with known fractions."""
    table = pd.read_csv(own_recipe.parent / "fields.csv")
    again = table.assign(**{c: "again_" + table[c] for c in ("field", "image", "protein")})
    both = pd.concat([table, again], ignore_index=True)
    order = {image: i for i, image in enumerate(dict.fromkeys(both["image"]))}
    both["location"] = both["image"].map(lambda i: ("Inside", "outside", "Inside;Outside", "Inside;Outside")[order[i] % 4])
    both["fraction_outside"] = both["image"].map(lambda i: (0.0, 1.0, 0.25, 0.75)[order[i] % 4])
    both["protein"] = ""
    both.to_csv(own_recipe.parent / "fields.csv", index=False)
    return own_recipe


@pytest.mark.slow
def test_it_runs_to_the_end(two_locations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = execute(two_locations, tmp_path, monkeypatch, features="pixels", pairs="inside|outside", compare="classic", draws=20)
    pictures, told = outputs(done)
    assert pictures == 5  # violins, crops, agreement, fraction, feature sets
    folder = tmp_path / "runs" / "own"
    scores = pd.read_parquet(folder / "tables" / "06_multilocalization_pixels_scores.parquet")
    assert scores["what"].str.contains("Spearman, cells of both, discriminant").any() and (scores["n_cells"] == 32).all()
    proteins = pd.read_csv(folder / "tables" / "06_multilocalization_pixels_by_protein.csv")
    assert set(proteins["fraction_mean"]) == {0.25, 0.75} and len(proteins) == 4
    assert (folder / "figures" / "06_multilocalization_pixels_violins_inside_and_outside.svg").is_file()


@pytest.mark.slow
def test_a_pair_that_is_not_there_names_those_that_are(two_locations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match=r"'Cytosol' and 'Nucleoplasm'.*-p pairs 'First\|Second'"):
        here(two_locations, tmp_path, monkeypatch, features="pixels")


@pytest.mark.slow
def test_a_wrong_score_stops_it_before_any_feature(two_locations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="unknown score 'ration'. Did you mean ratio"):
        here(two_locations, tmp_path, monkeypatch, score="ration")
    assert not (tmp_path / "runs" / "own" / "features").exists()
