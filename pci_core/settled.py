"""What papermill leaves in an executed notebook that differs from run to run, taken out: dates, durations, folders, random names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pci_core.provenance import KEY

INJECTED = "injected-parameters"  # papermill's tag of the cell that it adds, whose id it draws
_STYLED = re.compile(r'<table id="(T_[0-9a-f]+)"')


def settle(path: Path, parameters: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Rewrite an executed notebook so that the same work gives the same bytes.

    What steps print while they work, and warnings, stand in the log of the execution: a cell keeps what it prints itself.

    Parameters
    ----------
    path : Path
        The notebook, rewritten in place: give a temporary one.
    parameters : mapping
        As papermill got them; files stay by name alone.
    made : mapping
        The record of `pci_core.provenance`, for its metadata.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    content["metadata"].pop("papermill", None)
    content["metadata"][KEY] = dict(made)
    styled = 0
    for cell in content["cells"]:
        for key in ("papermill", "execution"):
            cell["metadata"].pop(key, None)
        if INJECTED in cell["metadata"].get("tags", []):
            cell["id"] = INJECTED
            cell["source"] = _named("".join(cell["source"]), parameters)
        if cell["cell_type"] != "code":
            continue
        prints = "print(" in "".join(cell["source"])
        cell["outputs"] = [o for o in cell["outputs"] if o["output_type"] != "stream" or (prints and o["name"] == "stdout")]
        for output in cell["outputs"]:
            if html := output.get("data", {}).get("text/html"):
                output["data"]["text/html"], styled = _numbered("".join(html), styled)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def by_name(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with files by name alone, where they were given with their folder."""
    return {k: Path(v).name if isinstance(v, str) and Path(v).is_absolute() else v for k, v in parameters.items()}


def _named(source: str, parameters: Mapping[str, Any]) -> str:
    for key, value in by_name(parameters).items():
        if value != parameters[key]:
            source = source.replace(str(parameters[key]), str(value))
    return source


def _numbered(html: str, before: int) -> tuple[str, int]:
    """Give tables that pandas styled, and named at random, numbers instead."""
    for number, name in enumerate(dict.fromkeys(_STYLED.findall(html)), before):
        html = html.replace(name, f"T_{number:05d}")
        before = number + 1
    return html, before
