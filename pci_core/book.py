"""The book: execute the notebook templates on a recipe, gather the pages, write HTML.

A template runs again only if it, its parameters or the package changed; its executed copy is kept
under ``_build/executed/<recipe>`` with the hash of what it was made from. The book appears in
``_build/html`` only when every cell ran, Sphinx gave no warning and every page of the table of
contents is there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pci_core
from pci_core.errors import PCIError, unknown_name
from pci_core.recipe import load
from pci_core.storage import atomic_path, content_hash, file_sha256, locked, write_json, write_text

CONFIG, TOC, PROSE, TEMPLATES = "_config.yml", "_toc.yml", "book", "notebooks"
_NOT_USED_BY_NOTEBOOKS = ("book.py", "cli.py")
_ENVIRONMENT = ("torch", "numpy", "pandas", "anndata", "scikit-image", "scipy", "matplotlib")


class BookError(PCIError):
    """A notebook, page or setting of the book that is missing, fails or gives a warning."""


def build(root: Path, recipe: str = "simulated-human", only: list[str] | None = None) -> Path:
    """Execute the notebooks on `recipe` and write the book.

    Parameters
    ----------
    root : Path
        Folder with ``_config.yml``, ``_toc.yml``, ``book/`` and ``notebooks/``.
    recipe : str
        Name of an embedded recipe or path of a TOML file; handed to every notebook.
    only : list of str, optional
        Beginnings of notebook names, e.g. ``["01", "04"]``: run these, show those that are still
        up to date, leave the others out of the book.

    Returns
    -------
    Path
        ``_build/html/index.html`` under `root`.

    Raises
    ------
    BookError
        `root` holds no book, a cell fails, Sphinx warns, or a page is missing. The book of an earlier
        build stays as it was.
    RecipeError, UnknownNameError
        No such recipe or notebook.
    """
    root = Path(root).resolve()
    for name in (CONFIG, TOC, PROSE):
        if not (root / name).exists():
            raise BookError(f"{root} holds no book ({name} is missing). Run this in a clone of the repository.")
    missing = [name for name in ("yaml", "papermill", "jupyter_book", "ipykernel") if importlib.util.find_spec(name) is None]
    if missing:
        raise BookError(
            f"not installed: {', '.join(missing)}. Install what the book needs: pip install 'pci-core[book]', or run 'make book'."
        )
    target = _recipe_argument(recipe)
    toc = _read_toc(root / TOC)
    templates = {Path(page).name: root / f"{page}.ipynb" for page in _pages(toc) if page.startswith(f"{TEMPLATES}/")}
    for template in templates.values():
        if not template.is_file():
            raise BookError(f"{template} is in {TOC} but not there. Write the notebook or take the line out.")
    wanted = _choose(list(templates), only)
    build_folder = root / "_build"
    with locked(build_folder / ".lock"):
        executed = build_folder / "executed" / load(target).name
        left_out = []
        for name, template in templates.items():
            if name in wanted:
                _execute(root, template, executed / template.name, target)
            elif not _is_current(executed / template.name, _inputs(template, target)):
                left_out.append(name)
        if left_out:
            print(f"left out of the book, because not executed on {recipe} as they are now: {', '.join(left_out)}", flush=True)
        source = _gather(root, toc, executed, {f"{TEMPLATES}/{name}" for name in left_out})
        return _render(root, source)


def _recipe_argument(recipe: str) -> str:
    """Return `recipe` in a form that also holds in another working folder, after checking it."""
    loaded = load(recipe)
    return recipe if loaded.folder is None else str(Path(recipe).resolve())


def _read_toc(path: Path) -> dict[str, Any]:
    import yaml

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or "root" not in content:
        raise BookError(f"{path}: no table of contents of a Jupyter Book ('root' is missing).")
    return content


def _pages(toc: Any) -> Iterator[str]:
    """Yield every page of a table of contents in order, without its extension."""
    if isinstance(toc, dict):
        for key in ("root", "file"):
            if key in toc:
                yield re.sub(r"\.(md|ipynb)$", "", str(toc[key]))
        toc = [v for v in toc.values() if isinstance(v, list)]
    if isinstance(toc, list):
        for entry in toc:
            yield from _pages(entry)


def _without(toc: Any, left_out: set[str]) -> Any:
    """Return the table of contents without some pages."""
    if isinstance(toc, dict):
        return {k: _without(v, left_out) for k, v in toc.items() if not isinstance(v, list) or _without(v, left_out)}
    if isinstance(toc, list):
        kept = [e for e in toc if not (isinstance(e, dict) and re.sub(r"\.ipynb$", "", str(e.get("file", ""))) in left_out)]
        return [e for e in (_without(e, left_out) for e in kept) if e]
    return toc


def _choose(known: list[str], only: list[str] | None) -> list[str]:
    if only is None:
        return known
    wanted: list[str] = []
    for prefix in only:
        found = [name for name in known if name.startswith(prefix)]
        if not found:
            raise unknown_name("notebook", prefix, known)
        wanted += found
    return wanted


def _inputs(template: Path, recipe: str) -> dict[str, Any]:
    """Return what an executed notebook depends on: its cells, parameters, the package and its surroundings."""
    from importlib import metadata

    package = Path(pci_core.__file__).parent
    sources = [p for p in sorted(package.rglob("*")) if p.is_file() and "__pycache__" not in p.parts]
    sources = [p for p in sources if p.relative_to(package).as_posix() not in _NOT_USED_BY_NOTEBOOKS]
    cells = json.loads(template.read_text(encoding="utf-8"))["cells"]
    return {
        "cells": content_hash([[c["cell_type"], c["source"], c.get("metadata", {}).get("tags", [])] for c in cells]),
        "parameters": {"recipe": recipe},
        "recipe": file_sha256(recipe) if recipe.endswith(".toml") else "",
        "package": content_hash([[p.relative_to(package).as_posix(), file_sha256(p)] for p in sources]),
        "environment": {name: metadata.version(name) for name in _ENVIRONMENT} | {"python": ".".join(map(str, sys.version_info[:2]))},
    }


def _is_current(executed: Path, inputs: dict[str, Any]) -> bool:
    stamp = executed.with_suffix(".json")
    if not executed.is_file() or not stamp.is_file():
        return False
    try:
        found = json.loads(stamp.read_text(encoding="utf-8"))
    except ValueError:
        return False  # cut while written by something else than us: as good as none
    return bool(found == {"inputs": inputs, "sha256": file_sha256(executed)})


def _execute(root: Path, template: Path, executed: Path, recipe: str) -> None:
    """Run one template by papermill, unless its executed copy is up to date; keep only a run without errors."""
    import papermill

    inputs = _inputs(template, recipe)
    if _is_current(executed, inputs):
        print(f"{template.name}: up to date", flush=True)
        return
    _check_parameters(template)
    log = root / "_build" / "log" / f"{template.stem}.txt"
    failed = root / "_build" / "failed" / template.name
    print(f"{template.name}: running on {recipe}; what it prints goes to {log.relative_to(root)}", flush=True)
    executed.with_suffix(".json").unlink(missing_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(executed) as temporary, open(log, "w", encoding="utf-8") as printed, _kernel(root):
        try:
            papermill.execute_notebook(
                template,
                temporary,
                parameters={"recipe": recipe},
                kernel_name="python3",
                cwd=root,
                stdout_file=printed,
                stderr_file=printed,
            )
        except papermill.PapermillExecutionError as error:
            failed.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(temporary, failed)
            raise BookError(
                f"{template.name} failed on {recipe} in cell {error.exec_count}: {error.ename}: {error.evalue}\n"
                f"The half-run notebook is {failed.relative_to(root)}, its log {log.relative_to(root)}. The earlier book is untouched."
            ) from error
    write_json(executed.with_suffix(".json"), {"inputs": inputs, "sha256": file_sha256(executed)})


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


def _check_parameters(template: Path) -> None:
    """Stop on a template without a ``recipe`` parameter: papermill itself only warns and goes on."""
    cells = json.loads(template.read_text(encoding="utf-8"))["cells"]
    tagged = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
    source = "".join("".join(c["source"]) + "\n" for c in tagged)
    if len(tagged) != 1 or not re.search(r"^recipe\b.*=", source, re.M):
        raise BookError(f"{template}: needs exactly one cell tagged 'parameters' that sets 'recipe'; found {len(tagged)} tagged cells.")


def _gather(root: Path, toc: dict[str, Any], executed: Path, left_out: set[str]) -> Path:
    """Copy all that the book is made of into one fresh folder, which is the only one that Sphinx sees."""
    import yaml

    source = root / "_build" / "book-source"
    with atomic_path(source, folder=True) as temporary:
        shutil.copytree(root / PROSE, temporary / PROSE, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        shutil.copyfile(root / CONFIG, temporary / CONFIG)
        shown = _without(toc, left_out)
        write_text(temporary / TOC, yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))
        for page in _pages(shown):
            if page.startswith(f"{TEMPLATES}/"):
                (temporary / TEMPLATES).mkdir(exist_ok=True)
                _copy_folded(executed / f"{Path(page).name}.ipynb", temporary / f"{page}.ipynb")
        (temporary / "_static").mkdir()  # Jupyter Book adds every style sheet in it to every page
        for sheet in (root / PROSE / "_static").glob("*.css"):
            shutil.copyfile(sheet, temporary / "_static" / sheet.name)
    return source


def _copy_folded(executed: Path, page: Path) -> None:
    """Copy an executed notebook with its code folded, for readers who came for the figures; parameters stay open."""
    content = json.loads(executed.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        tags = cell["metadata"].setdefault("tags", [])
        if cell["cell_type"] == "code" and not {"parameters", "injected-parameters"} & set(tags):
            tags.append("hide-input")
    write_json(page, content)


def _copy_mathjax(folder: Path) -> None:
    """Put MathJax beside the finished pages, so that formulas are drawn without another host.

    Not earlier: Jupyter Book would load a script that lies in ``_static`` on every page, needed or not.
    """
    from importlib import metadata

    wanted = "static/mathjax/tex-svg.js"
    found = [f for f in metadata.files("sphinx-mathjax-offline") or [] if f.as_posix().endswith(wanted)]
    if not found:
        raise BookError(f"the installed sphinx-mathjax-offline has no {wanted}. Install the version that constraints.txt names.")
    folder.mkdir(parents=True)
    shutil.copyfile(str(found[0].locate()), folder / "tex-svg.js")


def _render(root: Path, source: Path) -> Path:
    """Run Jupyter Book with warnings as errors and put the pages in place, if all of them came out."""
    html = root / "_build" / "html"
    out = root / "_build" / "sphinx"
    shutil.rmtree(out, ignore_errors=True)  # a page that warned must be read again, not taken from the cache
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(source), "--path-output", str(out)]
    command += ["--config", str(source / CONFIG), "--toc", str(source / TOC), "-W", "-n", "--keep-going", "--quiet"]
    # its warnings go to stderr and are shown; stdout only names a folder that is moved afterwards
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    made = out / "_build" / "html"
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        raise BookError("Jupyter Book warned or failed (see above); warnings count as errors here. The book was left as it was.")
    missing = [page for page in _pages(_read_toc(source / TOC)) if not (made / f"{page}.html").is_file()]
    missing += [name for name in ("index.html",) if not (made / name).is_file()]
    if missing:
        raise BookError(f"these pages of {TOC} did not come out: {', '.join(missing)}. The book was left as it was.")
    _copy_mathjax(made / "_static" / "mathjax")
    (made / ".nojekyll").touch()  # or GitHub Pages drops the folders that begin with an underscore
    with atomic_path(html, folder=True) as temporary:
        temporary.rmdir()
        made.rename(temporary)
    shutil.rmtree(out, ignore_errors=True)
    return html / "index.html"
