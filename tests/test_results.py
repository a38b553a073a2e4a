"""Kept results and the page they fill."""

from __future__ import annotations

import json
from pathlib import Path

import kept_trainings
import pandas as pd
import pytest

from pci_core import results
from pci_core.errors import AnalysisNeedsError, BookError, DatasetError, UnknownNameError

ROW = {
    "notebook": "03_lines", "recipe": "simulated-human", "simulated": True, "features": "conv3", "what": "distance | same",
    "value": -0.51, "low": -0.6, "high": -0.4, "n_cells": 9947, "n_proteins": 88.0, "unit": "", "paper": -0.574,
    "paper_on": "HPA", "note": "",
}  # fmt: skip


def write(path: Path, *rows: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "book" / "results"
    other = ROW | {"features": "classic", "value": -0.2, "low": float("nan"), "high": float("nan"), "paper": -0.274}
    alone = ROW | {"what": "rank", "paper": float("nan"), "paper_on": ""}
    write(folder / "simulated-human" / "03_lines.csv", ROW, other, alone)
    return folder


def test_a_row_a_number_a_column_a_feature_set(kept: Path, tmp_path: Path) -> None:
    page = results.fill("# Page\n\n<!-- results: 03_lines -->\n\nEnd", kept, tmp_path / "tables")
    lines = page.splitlines()
    assert "**simulated-human, kept** (SIMULATED cells; up to 9,947 cells of 88 proteins)" in lines
    assert "|  | PCI conv3 | classic | paper (other cells) |" in lines
    assert "| distance \\| same | -0.51 (-0.60 to -0.40) | -0.20 | PCI conv3 -0.574; classic -0.274, HPA |" in lines
    assert "| rank | -0.51 (-0.60 to -0.40) | – |  |" in lines
    assert lines[-1] == "End"


def test_the_readers_own_build_stands_beside_with_its_provenance(kept: Path, tmp_path: Path) -> None:
    facts = {"command": "pci results x", "seconds": 120, "hardware": "cpu", "encoder": "simulated-human", "made": "2026-01-01"}
    (kept / "simulated-human" / "provenance.json").write_text(json.dumps({"03_lines": facts}))
    write(tmp_path / "runs" / "own" / "tables" / "03_lines_conv4_scores.csv", ROW | {"features": "conv4", "simulated": False})
    page = results.fill("<!-- results: 03_lines -->", kept, tmp_path / "runs" / "own" / "tables")
    assert "**own, this build** (real cells" in page and "PCI conv4" in page
    assert "Made by `pci results x` in 2 min on cpu; encoder: simulated-human; 2026-01-01." in page


def test_many_sets_stand_below_one_another(tmp_path: Path) -> None:
    rows = [ROW | {"features": f"conv{i}", "paper": 0.5 if i == 4 else float("nan")} for i in range(1, 6)]
    rows += [ROW | {"features": n, "paper": float("nan")} for n in ("classic", "pixels")] + [ROW | {"what": "rank", "paper": float("nan")}]
    write(tmp_path / "own" / "03_lines.csv", *rows)
    lines = results.fill("<!-- results: 03_lines -->", tmp_path, tmp_path).splitlines()
    assert lines[2] == "|  | distance \\| same | paper (other cells) | rank |" and lines[3] == "|---|---|---|---|"
    assert "| PCI conv4 | -0.51 (-0.60 to -0.40) | 0.50 | – |" in lines and "| pixels | -0.51 (-0.60 to -0.40) |  | – |" in lines


def test_nothing_kept_is_said(tmp_path: Path) -> None:
    assert "No table of this analysis was kept" in results.fill("<!-- results: 04_none -->", tmp_path, tmp_path)


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "03_lines.csv").write_bytes(b"")
    with pytest.raises(DatasetError, match="03_lines.csv is no readable table"):
        results.fill("<!-- results: 03_lines -->", tmp_path, tmp_path)


# what a run imports would take eight seconds in each kernel, and is not looked at here
NOTEBOOK = """import os, pathlib, pandas as pd
row = dict(notebook="03_lines", recipe="own", simulated=False, features=features, what="one", value=1.0, low=0.5, high=1.5,
           n_cells=32, n_proteins=2, unit="", paper=None, paper_on="", note="")
tables = pathlib.Path(os.environ["PCI_RUNS"]) / "own" / "tables"
tables.mkdir(parents=True, exist_ok=True)
pd.DataFrame([row]).to_csv(tables / f"03_lines_{features}_scores.csv", index=False)
"""


@pytest.mark.slow
def test_keep_runs_each_set_and_notes_where_it_came_from(tmp_path: Path, own_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("papermill", reason="papermill is not installed; pip install 'pci-core[book]'")
    monkeypatch.setenv("PCI_RUNS", str(tmp_path / "runs"))
    (tmp_path / "notebooks").mkdir()

    def notebook(source: str) -> None:
        made = [
            {"cell_type": "code", "id": f"c{i}", "metadata": {"tags": tags}, "source": text, "outputs": [], "execution_count": None}
            for i, (text, tags) in enumerate([("recipe = ''\nfeatures = None", ["parameters"]), (source, [])])
        ]
        content = {
            "cells": made,
            "metadata": {"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (tmp_path / "notebooks" / "03_lines.ipynb").write_text(json.dumps(content))

    notebook(NOTEBOOK)
    (out,) = results.keep(tmp_path, str(own_recipe), ["conv3", "classic"])
    assert out == tmp_path / "book" / "results" / "own" / "03_lines.csv"
    assert pd.read_csv(out)["features"].tolist() == ["conv3", "classic"]
    noted = json.loads(out.with_name("provenance.json").read_text())["03_lines"]
    assert noted["cells"] == 32 and "--features conv3,classic" in noted["command"] and noted["simulated"] is False

    notebook("from pci_core.errors import AnalysisNeedsError\nraise AnalysisNeedsError('03_lines needs a column')")
    before = out.read_bytes()
    with pytest.raises(AnalysisNeedsError, match="nothing to keep: 03_lines needs a column"):
        results.keep(tmp_path, str(own_recipe), ["conv3"])
    assert out.read_bytes() == before
    with pytest.raises(UnknownNameError, match="unknown notebook '07'"):
        results.keep(tmp_path, str(own_recipe), ["conv3"], only=["07"])


def test_outside_of_a_clone(tmp_path: Path, own_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCI_RUNS", str(tmp_path / "runs"))
    with pytest.raises(BookError, match="holds no analysis notebook"):
        results.keep(tmp_path, str(own_recipe))


def test_kept_trainings_stand_on_their_section(tmp_path: Path) -> None:
    kept_trainings.write(tmp_path / "benchmarks" / "results" / "beyond")
    page = results.fill("<!-- results: 10_beyond -->", tmp_path / "book" / "results", tmp_path / "tables")
    lines = page.splitlines()
    assert lines[0].startswith("**Trained on simulated-human (SIMULATED cells), width 0.125") and lines[0].endswith("kept**")
    assert lines[2].startswith("|  | seeds | kNN, own protein out | drop between cell lines |")
    assert any(line.startswith("| contrast | 3 | 0.71 ± 0.02 ★ |") for line in lines)
    assert "Made by `benchmarks/beyond.py`" in lines[-1]
