"""Executed copies of notebooks: what they depend on, when they are current."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pci_core import executing
from pci_core.executing import differences, inputs, is_current, stale, stamp
from pci_core.storage import file_sha256


def write(path: Path, source: str, output: str = "") -> None:
    cell = {"cell_type": "code", "source": source, "metadata": {"tags": []}, "outputs": [output] if output else []}
    path.write_text(json.dumps({"cells": [cell]}))


def test_inputs_change_with_cells_and_parameters_but_not_with_outputs(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    write(path, "1 + 1")
    first = inputs(path, {"recipe": "simulated-human"})
    write(path, "1 + 1", output="2")
    assert inputs(path, {"recipe": "simulated-human"}) == first
    assert inputs(path, {"recipe": "simulated-yeast"}) != first
    assert inputs(path, {"recipe": "simulated-human", "features": "classic"}) != first
    write(path, "1 + 2")
    assert inputs(path, {"recipe": "simulated-human"}) != first


def test_a_changed_recipe_file_counts(tmp_path: Path) -> None:
    write(tmp_path / "a.ipynb", "1")
    recipe = tmp_path / "own.toml"
    recipe.write_text("name = 'own'")
    first = inputs(tmp_path / "a.ipynb", {"recipe": str(recipe)})
    recipe.write_text("name = 'other'")
    assert inputs(tmp_path / "a.ipynb", {"recipe": str(recipe)}) != first


def test_a_changed_or_half_known_copy_is_not_current(tmp_path: Path) -> None:
    executed, wanted = tmp_path / "a.ipynb", {"cells": "x"}
    executed.write_text("{}")
    assert not is_current(executed, wanted)
    executed.with_suffix(".json").write_text(json.dumps({"inputs": wanted, "sha256": file_sha256(executed)}))
    assert is_current(executed, wanted)
    assert not is_current(executed, {"cells": "y"})
    executed.write_text("{ }")
    assert not is_current(executed, wanted)
    executed.with_suffix(".json").write_text('{"inp')
    assert not is_current(executed, wanted) and stamp(executed) == {}


def test_the_reason_names_what_changed(tmp_path: Path, own_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template, executed = tmp_path / "01_a.ipynb", tmp_path / "made" / "01_a.ipynb"
    executed.parent.mkdir()
    write(template, "1 + 1")
    given = {"recipe": str(own_recipe), "seed": 0}
    before = inputs(template, given)
    assert stale(executed, before) == ["it was not made yet"]
    executed.write_text("{}")
    executed.with_suffix(".json").write_text(json.dumps({"inputs": before, "sha256": file_sha256(executed)}))
    assert stale(executed, inputs(template, given)) == []
    assert stale(executed, inputs(template, given | {"seed": 1})) == ["parameters changed: seed"]

    files = {**executing.package_files(), "analysis/knn.py": "other", "cli.py": "other"}
    with monkeypatch.context() as patch:
        patch.setattr(executing, "package_files", lambda: files)
        assert stale(executed, inputs(template, given)) == ["package changed: analysis/knn.py"]
    write(template, "1 + 2")
    assert stale(executed, inputs(template, given)) == ["template changed"]
    write(template, "1 + 1")
    own_recipe.write_text(own_recipe.read_text() + "[preprocess]\nfloor = 0.1\n")
    assert stale(executed, inputs(template, given)) == ["files changed: own.toml"]
    own_recipe.write_text(own_recipe.read_text().replace("[preprocess]\nfloor = 0.1\n", ""))
    (own_recipe.parent / "i0_f0.tif").write_bytes((own_recipe.parent / "i0_f0.tif").read_bytes() + b"\0")
    assert stale(executed, inputs(template, given)) == ["source of the cells changed"]
    (own_recipe.parent / "fields.csv").unlink()
    assert stale(executed, inputs(template, given)) == ["source of the cells changed"]


def test_many_changed_files_are_counted() -> None:
    old, new = ({str(i): x for i in range(9)} for x in "ab")
    assert differences({"package": old}, {"package": new}) == ["package changed: 0, 1, 2, 3 and 5 more"]
    assert differences({"package": "one hash, as stamps had before"}, {"package": new}) == ["package changed"]
    assert differences({}, {"package": new}) == ["it was not made yet"] and differences({"package": new}, {"package": new}) == []


def test_kept_tables_that_a_template_reads_count(tmp_path: Path) -> None:
    template, kept = tmp_path / "notebooks" / "a.ipynb", tmp_path / "benchmarks" / "results" / "beyond"
    template.parent.mkdir()
    kept.mkdir(parents=True)
    write(template, "tables = None  # None: benchmarks/results/beyond of the repository")
    first = inputs(template, {"recipe": "simulated-human"})
    (kept / "runs.csv").write_text("variant")
    second = inputs(template, {"recipe": "simulated-human"})
    assert first != second and differences(first, second) == ["files changed: runs.csv"]
    write(template, "1 + 1")
    assert not inputs(template, {"recipe": "simulated-human"})["files"]
