"""The record that files carry: the same text for the same work, whole when read back, refused when damaged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pci_core import __version__, provenance
from pci_core.errors import ProvenanceError
from pci_core.provenance import Parent, Record, context, in_html, parse, record


def family() -> Record:
    cells = Parent("own/cells", "c" * 64, Record("cells", "cells", "own", data="c" * 64))
    weights = Parent("own/models/pci/weights.safetensors", "a" * 64, Record("weights", "pci", "own", seed=3, parents=(cells,)))
    features = Parent(
        "own/features/conv1.h5ad", "f" * 64, Record("features", "conv1", settings={"layer": "conv1"}, parents=(cells, weights))
    )
    return Record("figure", "map <é>", "own", "r" * 64, seed=0, settings={"k": [1, 2]}, parents=(Parent("mine.csv", "d" * 64), features))


def test_a_record_is_read_back_as_it_was() -> None:
    made = family()
    assert parse(made.text(), "x") == made and parse(made.plain(), "x") == made
    assert made.text() == family().text() and made.text().isascii()
    assert len(made.plain()["files"]) == 4  # the cells stand once, though two files were made from them


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.pop("parents"),
        lambda p: p.update(parents=["nothing@1"]),
        lambda p: p["files"]["own/cells@cccccccccccc"]["record"].update(parents=["own/cells@cccccccccccc"]),
        lambda p: p.update(form=99),
        lambda p: p.update(files=[]),
        lambda p: p["files"]["own/cells@cccccccccccc"].pop("sha256"),
    ],
)
def test_a_damaged_record_is_named(damage: Any) -> None:
    plain = family().plain()
    damage(plain)
    with pytest.raises(ProvenanceError, match=r"map\.png"):
        parse(json.dumps(plain), "map.png")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"form":1}'])
def test_what_is_no_record_is_named(text: str) -> None:
    with pytest.raises(ProvenanceError, match=r"map\.png"):
        parse(text, "map.png")


def test_a_writer_takes_what_the_run_knows() -> None:
    alone = record("table", "t")
    assert (alone.recipe, alone.version, alone.code) == ("", __version__, provenance.package_code()) and len(alone.code) == 64
    cells = Parent("own/cells", "c" * 64)
    with context(Record("", recipe="own", seed=2, settings={"a": 1, "b": 1}, parents=(cells,))):
        inside = record("table", "t", recipe="", settings={"b": 2}, seed=None)
    assert (inside.kind, inside.recipe, inside.seed, inside.parents) == ("table", "own", 2, (cells,)) and inside.settings == {
        "a": 1,
        "b": 2,
    }
    assert record("table", "t") == alone


def test_a_page_of_html_takes_one_record() -> None:
    made = Record("page", '"><script>alert(1)</script>')
    page = in_html("<!doctype html>\n<html><head><title>A</title></head><body><head></body></html>", made)
    assert page.count("pci_provenance") == 1 and "<script>" not in page
    other = in_html(page, Record("page", "other"))
    assert other.count("pci_provenance") == 1 and "alert" not in other and other.endswith("<body><head></body></html>")
    assert in_html("<meta charset='utf-8'><title>A</title>", made).startswith("<meta charset='utf-8'>\n<meta name=")
    with pytest.raises(ProvenanceError, match="no place"):
        in_html("<p>", made)


def test_the_code_of_the_package_is_every_file_but_the_weights() -> None:
    files = provenance.package_files()
    assert {"cells.py", "data/recipes/simulated-human.toml", "atlas_page/atlas.js"} <= set(files)
    assert not [n for n in files if "__pycache__" in n]
