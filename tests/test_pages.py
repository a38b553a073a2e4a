"""Prose pages: the API reference names every module, commands name notebooks and parameters that exist."""

from __future__ import annotations

import importlib.util
import json
import pkgutil
import re
from collections import Counter
from pathlib import Path

import pytest

import pci_core

ROOT = Path(__file__).resolve().parent.parent
NOT_IN_REFERENCE = {
    *(
        f"pci_core.cli{part}" for part in ("", "_check", "_data", "_hpa", "_init", "_options", "_provenance", "_weights")
    ),  # have a help of their own
    "pci_core.data",  # an empty package
}
DRAWING = re.compile(r"pci_core\.data\.simulate\.(?!frame$)")  # how the pictures are drawn: read the code


def modules() -> set[str]:
    found = {m.name for m in pkgutil.walk_packages(pci_core.__path__, "pci_core.")}
    empty = {m for m in found if (p := ROOT / m.replace(".", "/") / "__init__.py").is_file() and not p.read_text().strip()}
    return {m for m in found - empty - NOT_IN_REFERENCE if not DRAWING.match(m)}


def test_api_reference_names_every_module_once() -> None:
    named = Counter(name for page in (ROOT / "book" / "api").glob("*.md") for name in re.findall(r"automodule:: (\S+)", page.read_text()))
    assert not {name: n for name, n in named.items() if n > 1}
    assert modules() - set(named) == set(), "add an automodule block for these to a page in book/api/"
    assert set(named) - modules() == set(), "these modules are gone: take their blocks out of book/api/"


def commands() -> list[tuple[str, str, str]]:
    found = []
    for page in sorted((ROOT / "book").rglob("*.md")):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        found += [(page.name, notebook, rest) for notebook, rest in re.findall(r"papermill notebooks/(\w+)\.ipynb ([^`\n]*)", text)]
    return found


@pytest.mark.parametrize(("page", "notebook", "rest"), commands())
def test_papermill_commands_name_what_the_notebook_takes(page: str, notebook: str, rest: str) -> None:
    path = ROOT / "notebooks" / f"{notebook}.ipynb"
    assert path.is_file(), f"{page} names {path.name}, which is not there"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    (source,) = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
    known = set(re.findall(r"^(\w+) = ", source, re.MULTILINE))
    assert set(re.findall(r"-p (\w+) ", rest + " ")) <= known


def test_the_page_on_data_says_what_the_catalog_and_the_recipes_say() -> None:
    tool = importlib.util.spec_from_file_location("sources", ROOT / "tools" / "sources.py")
    assert tool and tool.loader
    module = importlib.util.module_from_spec(tool)
    tool.loader.exec_module(module)
    page = (ROOT / "book" / "data.md").read_text(encoding="utf-8")
    assert module.filled(page) == page, "run: python tools/sources.py"
    assert module.downloads() in page and module.licences() in page
