"""What the tests of notebooks share: run a template on a recipe in a folder of its own, look at what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TEMPLATES = Path(__file__).parents[2] / "notebooks"


def execute_notebook(name: str, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **parameters: object) -> dict[str, Any]:
    """Run a notebook with papermill, its runs in `tmp_path`; nothing can be downloaded."""
    papermill = pytest.importorskip("papermill", reason="papermill is not installed; pip install 'pci-core[book]'")
    monkeypatch.setenv("PCI_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PCI_MIRROR", str(tmp_path / "no-mirror"))
    given = {"recipe": str(recipe), **parameters}
    return dict(
        papermill.execute_notebook(TEMPLATES / f"{name}.ipynb", tmp_path / "out.ipynb", given, kernel_name="python3", progress_bar=False)
    )


def outputs(done: dict[str, Any]) -> tuple[int, str]:
    """Return the number of pictures and all Markdown of an executed notebook."""
    all_of_them = [o for c in done["cells"] for o in c.get("outputs", [])]
    pictures = sum("image/png" in o.get("data", {}) for o in all_of_them)
    return pictures, "".join(o["data"].get("text/markdown", "") for o in all_of_them if "data" in o)
