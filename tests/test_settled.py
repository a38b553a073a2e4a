"""Executed notebooks without what differs from run to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pci_core.settled import by_name, settle


def code(source: str, *outputs: dict[str, Any], tags: tuple[str, ...] = ()) -> dict[str, Any]:
    timing = {"papermill": {"start_time": "2026"}, "execution": {"iopub.execute_input": "2026"}, "tags": list(tags)}
    return {"cell_type": "code", "id": "c", "metadata": timing, "source": source, "outputs": list(outputs), "execution_count": 1}


def stream(name: str, text: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def styled(name: str) -> dict[str, Any]:
    html = f'<style>#{name} th</style><table id="{name}"><td id="{name}_row0">'
    return {"output_type": "display_data", "metadata": {}, "data": {"text/html": html}}


def test_what_differs_is_taken_out_and_the_rest_is_kept(tmp_path: Path) -> None:
    injected = code(f'# Parameters\nrecipe = "{tmp_path}/own.toml"\nk = 3\n', tags=("injected-parameters",))
    cells = [
        injected,
        code("print(recipe)", stream("stdout", "own"), stream("stderr", "a warning")),
        code("run.cells()", stream("stdout", "Simulating 3 fields"), styled("T_1a2b3"), styled("T_0ffff")),
        {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "# Title"},
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {"papermill": {"duration": 3.1}, "kernelspec": {"name": "python3"}}}))
    settle(path, {"recipe": f"{tmp_path}/own.toml", "k": 3}, {"form": 1})
    text = path.read_text()
    done = json.loads(text)
    assert str(tmp_path) not in text and "2026" not in text and "duration" not in text and "Simulating" not in text
    assert done["metadata"] == {"kernelspec": {"name": "python3"}, "pci_provenance": {"form": 1}}
    assert done["cells"][0]["source"] == '# Parameters\nrecipe = "own.toml"\nk = 3\n' and done["cells"][0]["id"] == "injected-parameters"
    assert done["cells"][1]["outputs"] == [stream("stdout", "own")]
    tables = [o["data"]["text/html"] for o in done["cells"][2]["outputs"]]
    assert tables == [styled("T_00000")["data"]["text/html"], styled("T_00001")["data"]["text/html"]]


def test_files_go_by_name(tmp_path: Path) -> None:
    given = {"recipe": str(tmp_path / "a.toml"), "layer": "conv3", "seed": 0, "tables": ""}
    assert by_name(given) == given | {"recipe": "a.toml"}
