"""Where a recipe's files lie: named by the recipe, by the user, or remembered from an earlier call."""

from __future__ import annotations

from pathlib import Path

import pytest

from pci_core import recipe
from pci_core.data import sources
from pci_core.errors import CellTableError, RecipeError

CHANNELS = [{"name": "gfp", "role": "protein"}, {"name": "rfp", "role": "structural"}]


def own(folder: Path | None = None, kind: str = "folder", path: str = "no/such/folder") -> recipe.Recipe:
    content = {"name": "screen", "title": "a screen", "channels": CHANNELS, "source": {"kind": kind, "path": path}}
    return recipe.parse(content, "test", folder)


def test_a_folder_given_goes_before_the_recipes_own(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "data_folder.txt"
    (tmp_path / "images").mkdir()
    given = sources.located(own(), tmp_path / "images", place)
    assert given.source_path == (tmp_path / "images").resolve()
    sources.remember(given, place)
    assert sources.located(own(), None, place).source_path == given.source_path  # as in a notebook, which is not told again


def test_what_was_remembered_gives_way_to_files_where_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "data_folder.txt"
    place.write_text(str(tmp_path / "elsewhere"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert sources.located(own(path="here"), None, place).source.path == "here"


def test_a_recipe_file_of_the_users_is_never_redirected(tmp_path: Path) -> None:
    place = tmp_path / "data_folder.txt"
    place.write_text(str(tmp_path / "elsewhere"))
    mine = own(folder=tmp_path)
    assert sources.located(mine, None, place) is mine
    place.unlink()
    sources.remember(mine, place)
    assert not place.exists()


def test_a_simulated_recipe_takes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="reads no folder of yours"):
        sources.with_path(recipe.load("simulated-human"), tmp_path)


def test_a_source_of_files_needs_a_path() -> None:
    with pytest.raises(RecipeError, match=r"kind = 'h5sc' needs 'path'"):
        own(kind="h5sc", path="")


def test_every_kind_of_source_is_behind_the_door() -> None:
    assert set(sources.CODE) == set(recipe.SOURCES)
    assert set(sources.READY) | set(sources.TABLES) | {"simulate"} == set(recipe.SOURCES)


def test_later_keys_at_their_default_change_no_hash() -> None:
    base = own()
    assert base.section_hash("source") == base.replace(source={"note": ""}).section_hash("source")
    assert base.section_hash("source") != base.replace(source={"note": "as exported"}).section_hash("source")
    assert base.section_hash("segmentation") != base.replace(segmentation={"diameter": 30.0}).section_hash("segmentation")


def test_a_missing_table_is_told_with_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(CellTableError, match=r"fields\.csv is not there.*pci data fetch hpa"):
        sources.field_table(sources.with_path(recipe.load("hpa"), tmp_path))
