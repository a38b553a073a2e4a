"""Notebook templates executed by papermill, each kept with the hash of what it was made from.

A template runs again only if it, its parameters, the package or the libraries changed. An executed copy
appears under its name only when every cell ran. One that stops because the cells lack what its analysis
needs (`AnalysisNeedsError`) is left out, and says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pci_core
from pci_core.errors import AnalysisNeedsError, BookError
from pci_core.reading import read_note
from pci_core.recipe import load
from pci_core.storage import atomic_path, content_hash, file_sha256, write_json

_NOT_USED_BY_NOTEBOOKS = ("book.py", "cli.py", "docs.py", "executing.py", "results.py", "atlas.py", "atlas_page")
_ENVIRONMENT = ("torch", "numpy", "pandas", "anndata", "scikit-image", "scikit-learn", "scipy", "matplotlib", "umap-learn")


def recipe_argument(recipe: str) -> str:
    """Return `recipe` in a form that also holds in another working folder, after checking it."""
    loaded = load(recipe)
    return recipe if loaded.folder is None else str(Path(recipe).resolve())


def inputs(template: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an executed notebook depends on: its cells, parameters, the package and its surroundings."""
    from importlib import metadata

    package = Path(pci_core.__file__).parent
    sources = [p for p in sorted(package.rglob("*")) if p.is_file() and "__pycache__" not in p.parts]
    sources = [p for p in sources if p.relative_to(package).parts[0] not in _NOT_USED_BY_NOTEBOOKS]
    cells = json.loads(template.read_text(encoding="utf-8"))["cells"]
    files = [v for v in parameters.values() if isinstance(v, str) and v.endswith(".toml")]
    return {
        "cells": content_hash([[c["cell_type"], c["source"], c.get("metadata", {}).get("tags", [])] for c in cells]),
        "parameters": dict(parameters),
        "recipe": [file_sha256(f) for f in files],
        "package": content_hash([[p.relative_to(package).as_posix(), file_sha256(p)] for p in sources]),
        "environment": {name: metadata.version(name) for name in _ENVIRONMENT} | {"python": ".".join(map(str, sys.version_info[:2]))},
    }


def stamp(executed: Path) -> dict[str, Any]:
    """Return what is noted of an executed copy; empty where there is nothing readable."""
    return read_note(executed.with_suffix(".json")) or {}


def is_current(executed: Path, wanted: Mapping[str, Any]) -> bool:
    """Tell whether an executed copy was made from just that and has not been changed since."""
    found = stamp(executed)
    return executed.is_file() and found.get("inputs") == wanted and found.get("sha256") == file_sha256(executed)


def execute(root: Path, template: Path, executed: Path, parameters: Mapping[str, Any]) -> bool:
    """Run one template, unless its executed copy is up to date; keep only a run without errors.

    Parameters
    ----------
    root : Path
        Root of the repository: where the notebook runs, and where ``_build`` is.
    template, executed : Path
        The notebook, and where its executed copy shall be.
    parameters : mapping
        Plain values for the cell tagged ``parameters``.

    Returns
    -------
    bool
        Whether it was run; False where the copy was up to date.

    Raises
    ------
    AnalysisNeedsError
        The cells lack what the analysis needs.
    BookError
        A cell failed; the half-run notebook and its log are named.
    """
    import papermill

    recipe = parameters["recipe"]
    wanted = inputs(template, parameters)
    if is_current(executed, wanted):
        print(f"{template.name}: up to date", flush=True)
        return False
    _check_template(template)
    if (known := stamp(executed)).get("needs") and known.get("inputs") == wanted:
        raise AnalysisNeedsError(known["needs"])
    log = root / "_build" / "log" / f"{template.stem}.txt"
    failed = root / "_build" / "failed" / template.name
    print(f"{template.name}: running on {recipe}; what it prints goes to {log.relative_to(root)}", flush=True)
    executed.with_suffix(".json").unlink(missing_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    try:
        with atomic_path(executed) as temporary, open(log, "w", encoding="utf-8") as printed, _kernel(root):
            try:
                papermill.execute_notebook(template, temporary, parameters=dict(parameters), kernel_name="python3", cwd=root,
                                           stdout_file=printed, stderr_file=printed, progress_bar=sys.stderr.isatty())  # fmt: skip
            except papermill.PapermillExecutionError as error:
                failed.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(temporary, failed)
                if error.ename == "AnalysisNeedsError":
                    raise AnalysisNeedsError(error.evalue) from None
                raise BookError(
                    f"{template.name} failed on {recipe} in cell {error.exec_count}: {error.ename}: {error.evalue}\n"
                    f"The half-run notebook is {failed.relative_to(root)}, its log {log.relative_to(root)}. The earlier book is untouched."
                ) from error
    except AnalysisNeedsError as needs:
        write_json(executed.with_suffix(".json"), {"inputs": wanted, "needs": str(needs)})
        raise
    print(f"{template.name}: done in {time.perf_counter() - began:.0f} s", flush=True)
    write_json(executed.with_suffix(".json"), {"inputs": wanted, "sha256": file_sha256(executed)})
    return True


@contextlib.contextmanager
def _kernel(root: Path) -> Iterator[None]:
    """Make ``python3`` mean this very Python, and keep a user's own kernels and start-up scripts out."""
    home = root / "_build" / "jupyter"
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
    write_json(home / "kernels" / "python3" / "kernel.json", {"argv": argv, "display_name": "Python 3", "language": "python"})
    ours = {
        "JUPYTER_PATH": str(home),  # looked at before the user's folder
        "IPYTHONDIR": str(home / "ipython"),
        "PCI_RUNS": os.environ.get("PCI_RUNS", str(root / "runs")),
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _check_template(template: Path) -> None:
    """Stop on a template without a ``recipe`` parameter: papermill itself only warns and goes on."""
    cells = json.loads(template.read_text(encoding="utf-8"))["cells"]
    tagged = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
    source = "".join("".join(c["source"]) + "\n" for c in tagged)
    if len(tagged) != 1 or not re.search(r"^recipe\b.*=", source, re.M):
        raise BookError(f"{template}: needs exactly one cell tagged 'parameters' that sets 'recipe'; found {len(tagged)} tagged cells.")
