"""Notebook 07 runs from the first cell to the last on a user's own small recipe, with and without known variation."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

TEMPLATE = Path(__file__).parents[2] / "notebooks" / "07_single_cell_variability.ipynb"


def execute(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **parameters: object) -> dict[str, object]:
    papermill = pytest.importorskip("papermill", reason="papermill is not installed; pip install 'pci-core[book]'")
    monkeypatch.setenv("PCI_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    done = papermill.execute_notebook(
        TEMPLATE, tmp_path / "out.ipynb", {"recipe": str(recipe), **parameters}, kernel_name="python3", progress_bar=False
    )
    return dict(done)


@pytest.mark.slow
@pytest.mark.parametrize("known", [False, True])
def test_it_runs_to_the_end(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    if known:
        table = pd.read_csv(own_recipe.parent / "fields.csv")
        table.assign(variable=table["protein"].map({"P0": "yes", "P1": "no"})).to_csv(own_recipe.parent / "fields.csv", index=False)
    done = execute(own_recipe, tmp_path, monkeypatch, features="pixels", compare="", draws=20, protein="P1", branches=1)
    outputs = [o for c in done["cells"] for o in c.get("outputs", [])]  # type: ignore[attr-defined]
    # ranking, crops, dendrogram and field; with known variation how well it is found, here and by feature set
    assert sum("image/png" in o.get("data", {}) for o in outputs) == (6 if known else 4)
    told = "".join(o["data"].get("text/markdown", "") for o in outputs if "data" in o)
    assert ("not known which of them vary" in told) != known and "phenotypes of these cells are not known" in told
    scores = pd.read_parquet(tmp_path / "runs" / "own" / "tables" / "07_single_cell_variability_pixels_scores.parquet")
    assert scores["what"].str.startswith("average precision").any() == known


@pytest.mark.slow
def test_a_wrong_linkage_stops_it(own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="unknown linkage 'wards'. Did you mean ward"):
        execute(own_recipe, tmp_path, monkeypatch, linkage="wards")
    assert not (tmp_path / "runs" / "own" / "features").exists()
