"""Tables, recipes, gene sets and parameters of notebooks that nobody foresaw: a right answer, or an error of ours."""

from __future__ import annotations

import csv
import io
import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up import OWN_RECIPE

from pci_core import recipe
from pci_core.analysis.gene_sets import read_gmt
from pci_core.analysis.join import read_table
from pci_core.cells import TEXT_COLUMNS, check_table, image_starts
from pci_core.data.table import check_field_table
from pci_core.errors import PCIError
from pci_core.notebook import begin, check_parameters

FEW, MANY = 15, 1000


@pytest.fixture
def draws(thorough: bool) -> settings:
    return settings(
        max_examples=MANY if thorough else FEW, deadline=None, derandomize=not thorough, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


TEXT = st.one_of(st.sampled_from(["", " ", "a", "NaN", "0", "1e400", "-1", "é🧬", "=1+1", "\t", '"', ",", "a\0b"]), st.text(max_size=6))
VALUE: st.SearchStrategy[Any] = st.one_of(
    TEXT, st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.none(), st.lists(TEXT, max_size=3), st.just({"a": 1})
)


def test_cell_tables(draws: settings) -> None:
    columns = st.sampled_from([*TEXT_COLUMNS, "y", "x", "area", "more", "cell_id", "image"])

    @draws
    @given(st.dictionaries(columns, st.lists(VALUE, min_size=3, max_size=3), min_size=1, max_size=6))
    def check(content: dict[str, list[Any]]) -> None:
        table = pd.DataFrame({k: pd.Series(v, dtype=object) for k, v in content.items()})
        try:
            out = check_table(table, "cells.parquet")
            starts = image_starts(out["image"], "cells.parquet")
        except PCIError as error:
            assert "cells.parquet" in str(error)
            return
        assert len(out) == 3 and out["cell_id"].is_unique and set(out) == set(table)
        assert all(isinstance(v, str) for c in TEXT_COLUMNS if c in out for v in out[c])
        assert all(out[c].dtype == "float64" for c in ("y", "x", "area") if c in out)
        assert starts[0] == 0 and starts[-1] == 3

    check()


def test_field_tables(draws: settings, own_recipe: Path) -> None:
    spec, root = recipe.load(own_recipe), own_recipe.parent
    names = st.sampled_from(["field", "image", "path", "labels", "protein", "more"])
    values = st.one_of(TEXT, st.sampled_from(["i0_f0.tif", "i0_f0_labels.tif", ".", "../own/i0_f0.tif"]))

    @draws
    @given(st.lists(names, min_size=1, max_size=6, unique=True).flatmap(
        lambda head: st.tuples(st.just(head), st.lists(st.lists(values, min_size=len(head), max_size=len(head)), max_size=3))
    ))  # fmt: skip
    def check(content: tuple[list[str], list[list[str]]]) -> None:
        head, rows = content
        try:
            out = check_field_table(pd.DataFrame(rows, columns=head, dtype=str), spec, root, "fields.csv")
        except PCIError as error:
            assert "fields.csv" in str(error)
            return
        assert len(out) == len(rows) and out["field"].is_unique and (out["image"] != "").all()
        assert all((root / p).is_file() for c in ("path", "labels") for p in out[c])

    check()


def test_tables_of_features(draws: settings, tmp_path: Path) -> None:
    @draws
    @given(st.lists(st.lists(TEXT, min_size=1, max_size=4), min_size=1, max_size=4))
    def check(rows: list[list[str]]) -> None:
        text = io.StringIO()
        csv.writer(text).writerows([["cell_id", "a", "b"], *rows])
        path = tmp_path / "own.csv"
        path.write_bytes(text.getvalue().encode("utf-8"))
        try:
            out = read_table(path)
        except PCIError as error:
            assert "own.csv" in str(error)
            return
        assert all(len(r) == 3 for r in rows if any(v.strip() for v in r) or len(r) > 1)
        assert 0 < out.n_obs <= len(rows) and math.isfinite(float(out.X.sum()))

    check()


def test_gene_sets(draws: settings, tmp_path: Path) -> None:
    line = st.lists(st.text(st.characters(exclude_characters="\t\r\n", exclude_categories=["Cs"]), max_size=5), max_size=5).map("\t".join)

    @draws
    @given(st.lists(line, max_size=5))
    def check(lines: list[str]) -> None:
        path = tmp_path / "sets.gmt"
        path.write_bytes("\n".join(lines).encode("utf-8"))
        try:
            sets = read_gmt(path, quiet=True)
        except PCIError as error:
            assert "sets.gmt" in str(error)
            return
        told = [x.split("\t") for x in lines if x.strip()]
        assert [name for name in sets] == [t[0].strip().lstrip("\ufeff") for t in told]
        assert all(genes and "" not in genes for genes in sets.values())

    check()


def test_recipes(draws: settings) -> None:
    good = tomllib.loads(OWN_RECIPE)
    sections = {k: v for k, v in good.items() if isinstance(v, dict)}
    known = [(s, k) for s in ("source", "fields", "segmentation", "crop", "preprocess", "training") for k in _keys(s)]
    known += [("", k) for k in ("name", "title", "label", "organism", "simulated", "layer", "channels", "fields", "nonsense")]

    @draws
    @given(st.dictionaries(st.sampled_from(known), VALUE, min_size=1, max_size=2))
    def check(changes: dict[tuple[str, str], Any]) -> None:
        content = {**good, **{k: dict(v) for k, v in sections.items()}}
        for (section, key), value in changes.items():
            where = content.setdefault(section, {}) if section else content
            if isinstance(where, dict):
                where[key] = value
        try:
            found = recipe.parse(content, "own.toml")
        except PCIError as error:
            assert "own.toml" in str(error) and len(str(error)) < 2000
            return
        for (section, key), value in changes.items():
            have = getattr(getattr(found, section), key) if section else getattr(found, key)
            assert (list(have) == value) if isinstance(value, list) else have == value
            assert not isinstance(value, float) or math.isfinite(value)
        assert json.loads(json.dumps(found.section_hash("source", "fields", "crop", "training")))

    check()


def _keys(section: str) -> list[str]:
    import dataclasses

    return [f.name for f in dataclasses.fields(getattr(recipe.load("simulated-yeast"), section))]


def test_parameters_of_notebooks(draws: settings) -> None:
    defaults = {"recipe": "simulated-human", "layer": "conv3", "features": None, "seed": 0, "share": 0.5, "show": True}
    cell = "\n".join(f"{k} = {v!r}" for k, v in defaults.items())
    plain = st.one_of(TEXT, st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.none(), st.lists(st.integers(0, 3), max_size=2),
                      st.just("x" * 100_000))  # fmt: skip

    @draws
    @given(st.dictionaries(st.sampled_from([*defaults, "nonsense"]), plain, min_size=1, max_size=3))
    def check(given_: dict[str, Any]) -> None:
        from papermill.translators import PythonTranslator

        injected = PythonTranslator.codify(given_, "Parameters")
        try:
            check_parameters({"In": ["", cell, injected]})
        except PCIError as error:
            assert len(str(error)) < 500 and any(name in str(error) for name in given_)
            return
        for name, value in given_.items():
            default = defaults[name]
            assert default is None or value is None or isinstance(value, (int, float) if isinstance(default, float) else type(default))
            assert isinstance(value, bool) == isinstance(default, bool) or default is None
            assert not isinstance(value, float) or default is None or math.isfinite(value)

    check()


@pytest.mark.parametrize("more", [{"seed": -1}, {"seed": 2**32}, {"features": 5}, {"features": ["conv3"]}, {"recipe": "x" * 5000}])
def test_a_notebook_does_not_begin_with_what_cannot_be(more: dict[str, Any]) -> None:
    with pytest.raises(PCIError):
        begin("04_clustering", {"recipe": "nothing-of-this-name", "layer": "conv3", **more})
