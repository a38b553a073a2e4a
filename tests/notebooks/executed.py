"""What the tests of notebooks share: run a template on a recipe in a folder of its own, look at what came out.

One test of each notebook runs it as a reader does, by papermill in a kernel of its own. The others run its cells in this process:
a kernel takes seconds to import everything once more.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import IPython.display
import pytest
from matplotlib.figure import Figure
from matplotlib.pyplot import close

TEMPLATES = Path(__file__).parents[2] / "notebooks"


def execute_notebook(name: str, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **parameters: object) -> dict[str, Any]:
    """Run a notebook with papermill, its runs in `tmp_path`; nothing can be downloaded."""
    papermill = pytest.importorskip("papermill", reason="papermill is not installed; pip install 'pci-core[book]'")
    _away(tmp_path, monkeypatch)
    given = {"recipe": str(recipe), **parameters}
    return dict(
        papermill.execute_notebook(TEMPLATES / f"{name}.ipynb", tmp_path / "out.ipynb", given, kernel_name="python3", progress_bar=False)
    )


def execute_here(name: str, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **parameters: object) -> dict[str, Any]:
    """Run the cells of a notebook here, with the cell of parameters that papermill adds; an error is raised as it is.

    What is shown (`display` and the last expression of a cell) comes back in the form of `execute_notebook`, but pictures are not drawn.
    """
    papermill = pytest.importorskip("papermill", reason="papermill is not installed; pip install 'pci-core[book]'")
    _away(tmp_path, monkeypatch)
    given = {"recipe": str(recipe), **parameters}
    template = papermill.iorw.load_notebook_node(str(TEMPLATES / f"{name}.ipynb"))
    notebook = papermill.parameterize.parameterize_notebook(template, given, kernel_name="python3", language="python")
    shown: list[object] = []
    monkeypatch.setattr(IPython.display, "display", lambda *objects, **_: shown.extend(objects))
    names: dict[str, Any] = {"__name__": "__main__", "In": []}  # In: what Jupyter calls the cells so far
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            names["In"].append(cell["source"])
            shown.append(_run(cell["source"].replace("%matplotlib inline", ""), names))
    close("all")
    return {"cells": [{"outputs": [{"data": data} for data in map(_data, shown) if data]}]}


def outputs(done: dict[str, Any]) -> tuple[int, str]:
    """Return the number of pictures and all Markdown of an executed notebook."""
    all_of_them = [o for c in done["cells"] for o in c.get("outputs", [])]
    pictures = sum("image/png" in o.get("data", {}) for o in all_of_them)
    return pictures, "".join(o["data"].get("text/markdown", "") for o in all_of_them if "data" in o)


def _away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCI_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PCI_MIRROR", str(tmp_path / "no-mirror"))


def _run(source: str, names: dict[str, Any]) -> object:
    """Execute a cell, and return the value of its last expression, if it ends with one."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "<cell>", "exec"), names)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names) if last else None


def _data(shown: object) -> dict[str, str]:
    if isinstance(shown, Figure):
        return {"image/png": ""}
    return {"text/markdown": str(shown.data)} if isinstance(shown, IPython.display.Markdown) else {}
