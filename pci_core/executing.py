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

from pci_core import used
from pci_core.errors import AnalysisNeedsError, BookError, PCIError
from pci_core.logs import now
from pci_core.provenance import Parent, Record, package_files, record
from pci_core.reading import read_note
from pci_core.recipe import load
from pci_core.run import Run
from pci_core.settled import by_name, settle
from pci_core.storage import as_storage_error, atomic_path, content_hash, file_sha256, locked, write_json

_NOT_USED_BY_NOTEBOOKS = (
    "atlas.py", "atlas_page", "book.py", "book_examples.py", "book_pages.py", "cli.py", "cli_data.py", "cli_hpa.py", "cli_init.py",
    "cli_options.py", "cli_provenance.py", "cli_weights.py", "docs.py", "executing.py", "results.py", "settled.py",
)  # fmt: skip
_FILES = (".toml", ".csv", ".parquet", ".h5ad")
_KEPT = re.compile(r"benchmarks/results/\w+")  # a folder of kept tables that a template reads
_WORDS = {"cells": "template", "data": "source of the cells", "environment": "libraries"}  # of what a stamp calls otherwise
_NAMED = 4  # changed files that a reason names
_ENVIRONMENT = ("torch", "numpy", "pandas", "anndata", "scikit-image", "scikit-learn", "scipy", "matplotlib", "umap-learn")


def recipe_argument(recipe: str) -> str:
    """Return `recipe` in a form that also holds in another working folder, after checking it."""
    loaded = load(recipe)
    return recipe if loaded.folder is None else str(Path(recipe).resolve())


def inputs(template: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an executed notebook depends on: its cells, parameters, files, data, the package file by file, and the libraries."""
    from importlib import metadata

    cells = json.loads(template.read_text(encoding="utf-8"))["cells"]
    files = [Path(v) for v in parameters.values() if isinstance(v, str) and v.endswith(_FILES) and Path(v).is_file()]
    folders = dict.fromkeys(f for c in cells for f in _KEPT.findall("".join(c["source"])))
    files += [p for f in folders for p in sorted((template.parent.parent / f).glob("*.csv"))]
    return {
        "cells": content_hash([[c["cell_type"], c["source"], c.get("metadata", {}).get("tags", [])] for c in cells]),
        "parameters": dict(parameters),
        "files": {f.name: file_sha256(f) for f in files},
        "data": _data(parameters.get("recipe")),
        "package": {name: digest for name, digest in package_files().items() if name.split("/")[0] not in _NOT_USED_BY_NOTEBOOKS},
        "environment": {name: metadata.version(name) for name in _ENVIRONMENT} | {"python": ".".join(map(str, sys.version_info[:2]))},
    }


def _data(recipe: Any) -> str:
    """Return a hash of what the cells of a recipe are made from now; where that cannot be read, why: the notebook itself will stop."""
    try:
        return Run(recipe).made_from() if isinstance(recipe, str) else ""
    except PCIError as error:
        return str(error)


def differences(found: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> list[str]:
    """Say in words what changed between the inputs of two makings, naming the files; empty where nothing did."""
    if not found:
        return ["it was not made yet"]
    told = []
    for key, new in wanted.items():
        old = found.get(key)
        if old == new:
            continue
        what = _WORDS.get(key, key)
        if isinstance(new, Mapping) and isinstance(old, Mapping):
            names = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
            what += f": {', '.join(names[:_NAMED])}" + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        told.append(f"{what} changed" if ":" not in what else what.replace(":", " changed:", 1))
    return told


def stamp(executed: Path) -> dict[str, Any]:
    """Return what is noted of an executed copy; empty where there is nothing readable."""
    return read_note(executed.with_suffix(".json")) or {}


def stale(executed: Path, wanted: Mapping[str, Any]) -> list[str]:
    """Say why an executed copy is not the one that would be made now; empty where it is."""
    found = stamp(executed)
    if not executed.is_file() or "inputs" not in found:
        return differences(None, wanted)
    told = differences(found["inputs"], wanted)
    return told or ([] if found.get("sha256") == file_sha256(executed) else ["its executed copy was changed by hand"])


def is_current(executed: Path, wanted: Mapping[str, Any]) -> bool:
    """Tell whether an executed copy was made from just that and has not been changed since."""
    return not stale(executed, wanted)


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
    wanted = inputs(template, parameters)
    with locked(executed.with_suffix(".lock")):  # several that want the same copy: one makes it, the others find it
        return _execute(root, template, executed, parameters, wanted)


def _execute(root: Path, template: Path, executed: Path, parameters: Mapping[str, Any], wanted: dict[str, Any]) -> bool:
    import papermill

    recipe = parameters["recipe"]
    why = stale(executed, wanted)
    if not why:
        print(f"{template.name}: up to date", flush=True)
        return False
    _check_template(template)
    if (known := stamp(executed)).get("needs") and known.get("inputs") == wanted:
        raise AnalysisNeedsError(known["needs"])
    log = root / "_build" / "log" / f"{template.stem}.txt"
    failed = root / "_build" / "failed" / template.name
    if executed.is_file():
        print(f"{template.name}: stale, because {'; '.join(why)}", flush=True)
    print(f"{template.name}: running on {recipe}; what it prints goes to {log.relative_to(root)}", flush=True)
    note = log.with_suffix(".used")
    with as_storage_error(log):
        note.unlink(missing_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    try:
        with atomic_path(executed) as temporary, open(log, "w", encoding="utf-8") as printed, _kernel(root, note):
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
            settle(temporary, parameters, _record(root, template, parameters, note).plain())
    except AnalysisNeedsError as needs:
        write_json(executed.with_suffix(".json"), {"inputs": wanted, "needs": str(needs)})
        raise
    seconds = time.perf_counter() - began
    print(f"{template.name}: done in {seconds:.0f} s", flush=True)
    cost = {"seconds": round(seconds, 1), "made": now()}
    write_json(executed.with_suffix(".json"), {"inputs": wanted, "sha256": file_sha256(executed), **cost})
    return True


def _record(root: Path, template: Path, parameters: Mapping[str, Any], note: Path) -> Record:
    """Return where an executed copy comes from: its template, and the files that its own process noted to have used."""
    run = Run(parameters["recipe"], quiet=True)
    label = template.relative_to(root).as_posix() if template.is_relative_to(root) else template.name
    parents = (Parent(label, file_sha256(template)), *used.noted(note))
    note.unlink(missing_ok=True)
    with run.recording([]):
        seed = parameters.get("seed")
        return record("notebook", template.stem, seed=seed, settings=by_name(parameters), parents=parents)


@contextlib.contextmanager
def _kernel(root: Path, note: Path) -> Iterator[None]:
    """Make ``python3`` mean this very Python, and keep a user's own kernels and start-up scripts out."""
    home = root / "_build" / "jupyter"
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
    write_json(home / "kernels" / "python3" / "kernel.json", {"argv": argv, "display_name": "Python 3", "language": "python"})
    ours = {
        "JUPYTER_PATH": str(home),  # looked at before the user's folder
        "IPYTHONDIR": str(home / "ipython"),
        "PCI_RUNS": os.environ.get("PCI_RUNS", str(root / "runs")),
        used.NOTE: str(note),
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
