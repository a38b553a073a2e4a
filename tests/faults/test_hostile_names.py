"""Names that lead elsewhere or cannot be files: of recipes, columns, organisms, images; and what a recipe may read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from pci_core import info, init, recipe
from pci_core.errors import EnrichmentError, PCIError, RecipeError
from pci_core.run import Run
from pci_core.storage import as_file_name, is_file_name

HOSTILE = [
    "../out", "../../out", "a/../../out", "/tmp/out", "a/b", "..", ".", "", " ", "..\\out", "C:\\out", "C:out", "\\\\host\\share", "a\0b",
    "a\nb", "a\x1b[2Jb", "con", "CON", "nul.txt", "Aux", "com1", "LPT9.x", "name.", "name ", ".hidden", ".writing-host-1-x", "n" * 300,
    "\u00e4" * 150, "a*b", "a?b", 'a"b', "a<b", "a>b", "a|b", "a\u202eb", "a\u2028b", "\ud800",
]  # fmt: skip
FINE = ["own", "my screen", "plate_001", "a+b", "Nup49 (2019)", "細胞", "naïve", "a.b", "console", "common", "-x", "x=1", "$x$"]


def quoted(name: str) -> str:
    return '"' + "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08x}" for c in name) + '"'


def listed(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("name", HOSTILE, ids=lambda n: ascii(n)[:30])
def test_a_recipe_of_such_a_name_is_refused(name: str, own_recipe: Path, tmp_path: Path) -> None:
    text = own_recipe.read_text().replace('name = "own"', f"name = {quoted(name)}", 1)
    bad = own_recipe.with_name("bad.toml")
    bad.write_text(text)
    before = listed(tmp_path)
    with pytest.raises(RecipeError, match="bad.toml"):
        Run(bad, tmp_path / "deep" / "er" / "runs", device="cpu", jobs=1, quiet=True).cells()
    assert listed(tmp_path) == before and not Path("/tmp/out").exists()


@pytest.mark.parametrize("name", FINE)
def test_other_names_are_fine(name: str) -> None:
    assert is_file_name(name) and as_file_name(name) == name


@pytest.mark.parametrize("name", HOSTILE, ids=lambda n: ascii(n)[:30])
def test_any_text_becomes_a_file_name(name: str, tmp_path: Path) -> None:
    made = as_file_name(name)
    assert is_file_name(made) and made != name
    (tmp_path / made).write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == [made]
    assert as_file_name(name + "2") != made  # different names, different files


def test_the_command_line_says_it_in_one_line(
    own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pci_core import cli

    own_recipe.write_text(own_recipe.read_text().replace('name = "own"', 'name = "../\\u001b[31mout"', 1))
    monkeypatch.setattr(sys, "argv", ["pci", "cells", str(own_recipe), "--runs", str(tmp_path / "runs"), "--device", "cpu"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr().err
    assert end.value.code == 1 and said.startswith("pci: ") and said.count("\n") == 1
    assert "\x1b" not in said  # what a file says can turn no terminal's colours


def test_a_text_of_a_recipe_cannot_steer_a_terminal(own_recipe: Path) -> None:
    for key in ("title", "description", "licence", "credit"):
        text = "".join(line for line in own_recipe.read_text().splitlines(True) if not line.startswith(f"{key} ="))
        bad = own_recipe.with_name(f"{key}.toml")
        bad.write_text(f'{key} = "a\\u001b]0;pwned\\u0007b"\n{text}' + ("" if "title" in text.split("[[")[0] else ""))
        with pytest.raises(RecipeError, match=key):
            recipe.load(bad)


@pytest.mark.parametrize("label", ["/../../../x", "n" * 300])
def test_a_column_of_such_a_name_names_no_file_outside(label: str, own_recipe: Path, tmp_path: Path) -> None:
    table = pd.read_csv(own_recipe.parent / "fields.csv", dtype=str)
    table[label] = table["protein"]
    table.to_csv(own_recipe.parent / "fields.csv", index=False)
    outside = listed(tmp_path)
    run = Run(own_recipe, tmp_path / "a" / "b" / "runs", device="cpu", jobs=1, quiet=True, sample=16)
    try:
        cells = run.with_label(label).cells()
    except PCIError:
        return
    made = {p for p in listed(tmp_path) - outside if p.name not in ("a", "b", "runs")}
    assert cells.folder.parent == tmp_path / "a" / "b" / "runs" / "own"
    assert made and all((tmp_path / "a" / "b" / "runs" / "own") in (p, *p.parents) for p in made)


def test_an_organism_names_no_file_outside(tmp_path: Path) -> None:
    from pci_core.analysis.gene_sets import gene_sets
    from pci_core.analysis.gprofiler import gprofiler

    outside = tmp_path / "x.gmt"
    outside.write_text("set\t\tA\tB\n")
    for organism in ("../../../x", str(tmp_path / "x")):
        with pytest.raises(EnrichmentError):
            gene_sets("embedded", organism)
    (tmp_path / "in" / "cache").mkdir(parents=True)
    before = listed(tmp_path)
    with pytest.raises(EnrichmentError):
        gprofiler(
            {"1": ["A", "B"]},
            ["A", "B", "C"],
            "/../../../x",
            cache=tmp_path / "in" / "cache",
            address="http://127.0.0.1:9",
            retries=0,
            timeout=0.5,
            quiet=True,
        )
    assert listed(tmp_path) == before


def test_a_folder_of_such_a_name_gives_a_recipe_of_a_plain_name() -> None:
    for name in HOSTILE:
        try:
            assert is_file_name(init._plain_name(name)), name
        except PCIError:
            continue


# --- what a recipe may read: what its user could read, as plain files; what it makes us write stays in the runs folder


def reading(own_recipe: Path, tmp_path: Path, path: str) -> str:
    own_recipe.write_text(own_recipe.read_text().replace('path = "fields.csv"', f'path = "{path}"'))
    with pytest.raises(PCIError) as error:
        Run(own_recipe, tmp_path / "runs", device="cpu", jobs=1, quiet=True).cells()
    return str(error.value)


def test_devices_and_pipes_are_not_read(own_recipe: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    first = own_recipe.read_text()
    for path in ("/dev/zero", "/dev/stdin", "/dev/urandom", str(tmp_path / "pipe"), "/proc/self/mem"):
        own_recipe.write_text(first)
        reading(own_recipe, tmp_path, path)
    table = pd.read_csv(own_recipe.parent / "fields.csv", dtype=str)
    for path in ("/dev/zero", str(tmp_path / "pipe")):
        own_recipe.write_text(first)
        for column in ("path", "labels"):
            table.assign(**{column: path}).to_csv(own_recipe.parent / "fields.csv", index=False)
            with pytest.raises(PCIError):
                Run(own_recipe, tmp_path / "runs", device="cpu", jobs=1, quiet=True).cells()


def test_a_file_that_is_no_table_is_not_shown(own_recipe: Path, tmp_path: Path) -> None:
    """The error of a recipe that names somebody's key as its table does not print the key."""
    (tmp_path / "key").write_text("-----BEGIN KEY-----\nsecretsecret\n-----END KEY-----\n")
    assert "secretsecret" not in reading(own_recipe, tmp_path, "../key")


def test_what_a_recipe_reads_outside_of_its_folder_is_said(own_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (own_recipe.parent / "link.csv").symlink_to(tmp_path / "elsewhere" / "fields.csv")
    table = pd.read_csv(own_recipe.parent / "fields.csv", dtype=str)
    for column in ("path", "labels"):
        table[column] = [os.path.relpath(own_recipe.parent / p, tmp_path / "elsewhere") for p in table[column]]
    table.to_csv(tmp_path / "elsewhere" / "fields.csv", index=False)
    first = own_recipe.read_text()
    assert "outside" not in "".join(info._head(recipe.load(own_recipe)))
    for path in ("../elsewhere/fields.csv", str(tmp_path / "elsewhere" / "fields.csv"), "link.csv"):
        own_recipe.write_text(first.replace('path = "fields.csv"', f'path = "{path}"'))
        said = info._head(recipe.load(own_recipe))
        assert f"  reads         outside the recipe's folder: {(tmp_path / 'elsewhere' / 'fields.csv').resolve()}" in said, path


def test_weights_outside_are_said_too(own_recipe: Path, tmp_path: Path) -> None:
    for key in ("pretrained", "start"):
        spec = recipe.load(own_recipe).replace(training={key: "../w.safetensors"})
        assert recipe.read_outside(spec) == [(tmp_path / "w.safetensors").resolve()]
    assert recipe.read_outside(recipe.load("simulated-human")) == []
    assert recipe.read_outside(recipe.load(own_recipe).replace(training={"pretrained": "authors-yeast"})) == []


def test_names_of_cells_make_no_file(own_recipe: Path, tmp_path: Path) -> None:
    """Proteins, cell lines and images with path separators are data: nothing is called after them."""
    table = pd.read_csv(own_recipe.parent / "fields.csv", dtype=str)
    table["protein"] = ["../../P0" if p == "P0" else "/P1\0" for p in table["protein"]]
    table["image"], table["cell_line"] = "../" + table["image"], "../../line"
    table["field"] = "../" + table["field"]
    table.to_csv(own_recipe.parent / "fields.csv", index=False)
    before = listed(tmp_path)
    run = Run(own_recipe, tmp_path / "deep" / "er" / "runs", device="cpu", jobs=1, quiet=True)
    try:
        run.features("pixels")
    except PCIError as error:
        assert "fields.csv" in str(error)
    made = {p for p in listed(tmp_path) - before if p.name not in ("deep", "er", "runs")}
    assert made == {p for p in made if tmp_path / "deep" / "er" / "runs" / "own" in (p, *p.parents)}


def test_a_parameter_that_looks_like_code_is_text() -> None:
    translators = pytest.importorskip("papermill.translators")
    given = 'x\'; import os; os.abort() #\n"""'
    namespace: dict[str, object] = {}
    exec(translators.PythonTranslator.codify({"recipe": given}), namespace)  # the cell that papermill puts into a notebook
    assert namespace["recipe"] == given
