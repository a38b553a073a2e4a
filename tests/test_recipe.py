"""Recipes: the embedded ones are valid, and mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pci_core import recipe
from pci_core.errors import RecipeError, UnknownNameError

OWN = """
name = "mine"
title = "My cells"
[[channels]]
name = "gfp"
role = "protein"
[[channels]]
name = "dna"
role = "structural"
[source]
kind = "table"
path = "fields.csv"
"""


@pytest.mark.parametrize("name", recipe.names())
def test_embedded_recipes_load_and_are_named_as_their_file(name: str) -> None:
    loaded = recipe.load(name)
    assert loaded.name == name
    assert loaded.simulated == (loaded.source.kind == "simulate")
    assert loaded.channels[0].role == "protein"


def test_the_papers_numbers_are_in_the_toy_recipes() -> None:
    yeast = recipe.load("authors-toy-yeast")
    assert (yeast.training.epochs, yeast.training.batch_size, yeast.training.learning_rate, yeast.training.beta1) == (30, 64, 1e-4, 0.5)
    assert (yeast.crop.size, yeast.crop.min_cells, yeast.training.width) == (64, 30, 1.0)
    assert recipe.load("authors-toy-human").crop.min_cells == 5


def test_own_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(OWN)
    mine = recipe.load(tmp_path / "mine.toml")
    assert (mine.folder, [c.name for c in mine.channels], mine.crop.resize) == (tmp_path, ["gfp", "dna"], 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[source]", "[sorce]"), "unknown key 'sorce'. Did you mean source"),
        (('"table"', '"tabel"'), "unknown source kind 'tabel'. Did you mean table"),
        (('role = "structural"', 'role = "protein"'), "at least one structural channel"),
        (('name = "dna"', 'name = "gfp"'), "channel names must differ"),
        (('title = "My cells"', "title = 3"), "'title' must be str, found 3"),
        (('title = "My cells"', ""), "missing title"),
        (('path = "fields.csv"', 'path = "fields.csv"\n[crop]\nresize = 30'), "multiple of 4 px.*found 30"),
        (('path = "fields.csv"', 'path = "fields.csv"\n[training]\nwidth = 9.0'), r"width must lie in \[0.03, 4\], found 9"),
        (("[source]", "[source"), "no valid TOML"),
    ],
)
def test_mistakes_are_named_with_the_file(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (tmp_path / "mine.toml").write_text(OWN.replace(*change))
    with pytest.raises(RecipeError, match=f"mine.toml.*{message}"):
        recipe.load(tmp_path / "mine.toml")


def test_unknown_names_come_with_near_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'simulated-humn'. Did you mean simulated-human"):
        recipe.load("simulated-humn")
    with pytest.raises(RecipeError, match="not there"):
        recipe.load(tmp_path / "none.toml")


def test_replace_checks_and_changes_only_what_is_named() -> None:
    base = recipe.load("authors-toy-yeast")
    changed = base.replace(training={"epochs": 2})
    assert (changed.training.epochs, changed.training.width, changed.crop) == (2, base.training.width, base.crop)
    assert changed.section_hash("crop") == base.section_hash("crop")
    assert changed.section_hash("training") != base.section_hash("training")
    with pytest.raises(RecipeError, match="epochs >= 1"):
        base.replace(training={"epochs": 0})
    with pytest.raises(RecipeError, match="unknown key 'epoch'"):
        base.replace(training={"epoch": 1})
