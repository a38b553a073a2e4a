"""Executed copies of notebooks: what they depend on, when they are current."""

from __future__ import annotations

import json
from pathlib import Path

from pci_core.executing import inputs, is_current, stamp
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
