"""The book: execute the notebook templates on a recipe, gather the pages, write HTML.

A template runs again only if it, its parameters or the package changed; its executed copy is kept
under ``_build/executed/<recipe>`` with the hash of what it was made from. The book appears in
``_build/html`` only when every cell ran, Sphinx gave no warning and every page of the table of
contents is there. A notebook whose analysis the cells do not allow becomes a page that says why.
"""

from __future__ import annotations

import html
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pci_core import atlas, book_examples, book_pages, results
from pci_core.book_pages import Book
from pci_core.errors import AnalysisNeedsError, BookError, unknown_name
from pci_core.executing import execute, inputs, recipe_argument, stale, stamp
from pci_core.recipe import load
from pci_core.run import Run
from pci_core.storage import as_storage_error, atomic_path, locked, write_json, write_text

CONFIG, TOC, PROSE, TEMPLATES, ATLAS = "_config.yml", "_toc.yml", "book", "notebooks", "atlas.html"


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
        up to date; the pages of the others say that they were not run.

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
    book, templates = _open(root, recipe)
    missing = [name for name in ("yaml", "papermill", "jupyter_book", "ipykernel") if importlib.util.find_spec(name) is None]
    if missing:
        raise BookError(
            f"not installed: {', '.join(missing)}. Install what the book needs: pip install 'pci-core[book]', or run 'make book'."
        )
    target = recipe_argument(recipe)
    wanted = _choose(list(templates), only)
    build_folder = root / "_build"
    with locked(build_folder / ".lock"), as_storage_error(build_folder):
        executed = book.executed
        left_out: dict[str, str] = {}
        for name, template in templates.items():
            try:
                if name in wanted:
                    execute(root, template, executed / template.name, {"recipe": target})
                elif stale(executed / template.name, inputs(template, {"recipe": target})):
                    left_out[name] = _not_run(recipe, name)
            except AnalysisNeedsError as needs:
                left_out[name] = str(needs)
                print(f"{template.name}: left out: {needs}", flush=True)
        made_from = book_pages.inputs(book, left_out)
        if book.stamp.is_file():  # else all pages are new
            for page, why in book_pages.stale(book, made_from):
                print(f"{page}: stale, because {why}", flush=True)
        source = _gather(root, _read_toc(root / TOC), executed, left_out, target)
        index = _render(book, source, target, made_from)
        book_pages.note(book, made_from)
        return index


def check(root: Path, recipe: str = "simulated-human") -> list[tuple[str, str]]:
    """Return the pages of the book that are stale, each with the reason; nothing is made.

    Parameters
    ----------
    root, recipe
        See `build`.

    Raises
    ------
    BookError, RecipeError, UnknownNameError
        See `build`.
    """
    root = Path(root).resolve()
    book, templates = _open(root, recipe)
    target = recipe_argument(recipe)
    left_out: dict[str, str] = {}
    told: dict[str, str] = {}
    for name, template in templates.items():
        executed, wanted = book.executed / template.name, inputs(template, {"recipe": target})
        known = stamp(executed)
        if known.get("needs") and known.get("inputs") == wanted:
            left_out[name] = known["needs"]
        elif why := stale(executed, wanted):
            left_out[name] = _not_run(recipe, name)  # as a page of a build that did not run it
            told[f"{TEMPLATES}/{name}"] = "; ".join(why)
    for page, reason in book_pages.stale(book, book_pages.inputs(book, left_out)):
        told.setdefault(page, reason)
    return [(page, told[page]) for page in book.pages if page in told]


def _open(root: Path, recipe: str) -> tuple[Book, dict[str, Path]]:
    """Return the book of a repository on a recipe, and its notebook templates by name."""
    for name in (CONFIG, TOC, PROSE):
        if not (root / name).exists():
            raise BookError(f"{root} holds no book ({name} is missing). Run this in a clone of the repository.")
    target = recipe_argument(recipe)
    pages = tuple(_pages(_read_toc(root / TOC)))
    templates = {Path(page).name: root / f"{page}.ipynb" for page in pages if page.startswith(f"{TEMPLATES}/")}
    for template in templates.values():
        if not template.is_file():
            raise BookError(f"{template} is in {TOC} but not there. Write the notebook or take the line out.")
    run = Run(target, _runs(root), quiet=True)
    return Book(root, pages, root / "_build" / "executed" / run.recipe.name, run), templates


def _not_run(recipe: str, name: str) -> str:
    shown = Path(recipe).name  # of a file, not where it lies
    return f"It was not run on {shown} in this build: `pci book --recipe {shown} --only {name[:2]}`."


def _read_toc(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BookError(f"{path} cannot be read as YAML ({' '.join(str(error).split())[:160]}). Correct it.") from error
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


def _gather(root: Path, toc: dict[str, Any], executed: Path, left_out: Mapping[str, str], recipe: str) -> Path:
    """Copy all that the book is made of into one fresh folder, which is the only one that Sphinx sees."""
    source = root / "_build" / "book-source"
    with atomic_path(source, folder=True) as temporary:
        shutil.copytree(root / PROSE, temporary / PROSE, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.csv", "*.json"))
        shutil.copyfile(root / CONFIG, temporary / CONFIG)
        shutil.copyfile(root / TOC, temporary / TOC)
        for page in _pages(toc):
            if not page.startswith(f"{TEMPLATES}/"):
                continue
            (temporary / TEMPLATES).mkdir(exist_ok=True)
            name = Path(page).name
            if name in left_out:
                _write_left_out(root / f"{page}.ipynb", temporary / f"{page}.ipynb", left_out[name])
            else:
                _copy_folded(executed / f"{name}.ipynb", temporary / f"{page}.ipynb")
        glance = temporary / PROSE / results.PAGE
        if glance.exists():
            tables = _runs(root) / load(recipe).name / "tables"
            write_text(glance, results.fill(glance.read_text(encoding="utf-8"), root / PROSE / results.FOLDER, tables))
        own = temporary / PROSE / book_examples.PAGE
        if own.exists():
            write_text(own, book_examples.fill(own.read_text(encoding="utf-8"), own.parent, root / "_build" / "examples"))
        (temporary / "_static").mkdir()  # Jupyter Book adds every style sheet in it to every page
        for sheet in (root / PROSE / "_static").glob("*.css"):
            shutil.copyfile(sheet, temporary / "_static" / sheet.name)
    return source


def _runs(root: Path) -> Path:
    return Path(os.environ.get("PCI_RUNS", root / "runs"))


def _write_left_out(template: Path, page: Path, why: str) -> None:
    """Write a page with the title of a notebook and why it was left out, so that links to it still lead somewhere."""
    content = json.loads(template.read_text(encoding="utf-8"))
    title = "".join(content["cells"][0]["source"]).split("\n")[0]
    content["cells"] = [
        {
            "cell_type": "markdown",
            "id": "left-out",
            "metadata": {},
            "source": f"{title}\n\n:::{{admonition}} Left out\n:class: warning\n{as_text_of_page(' '.join(why.split()))}\n:::\n",
        }
    ]
    write_json(page, content)


def as_text_of_page(text: str) -> str:
    """Return Markdown in which nothing is HTML: what stands in angle brackets is shown, not done."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def _copy_folded(executed: Path, page: Path) -> None:
    """Copy an executed notebook with its code folded, for readers who came for the figures; parameters stay open."""
    content = json.loads(executed.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        tags = cell["metadata"].setdefault("tags", [])
        if cell["cell_type"] == "code" and not {"parameters", "injected-parameters"} & set(tags):
            tags.append("hide-input")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/markdown" in data:  # names of proteins, recipes and columns stand in it: none of them becomes markup of the page
                data["text/markdown"] = as_text_of_page("".join(data["text/markdown"]))
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


def _render(book: Book, source: Path, recipe: str, made_from: Mapping[str, Mapping[str, Any]]) -> Path:
    """Run Jupyter Book with warnings as errors and put the pages in place, if all of them came out."""
    root, target = book.root, book.html
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
    if "book/atlas" in _pages(_read_toc(source / TOC)):
        _add_atlas(made, root, recipe)
    book_pages.add_records(book, made, made_from)
    (made / ".nojekyll").touch()  # or GitHub Pages drops the folders that begin with an underscore
    with atomic_path(target, folder=True) as temporary:
        temporary.rmdir()
        made.rename(temporary)
    shutil.rmtree(out, ignore_errors=True)
    return target / "index.html"


def _add_atlas(made: Path, root: Path, recipe: str) -> None:
    """Put the interactive map of the proteins beside the pages; a page that says why where the cells do not allow one."""
    try:
        shutil.copyfile(atlas.make(Run(recipe, _runs(root), quiet=True)), made / ATLAS)
    except AnalysisNeedsError as needs:
        print(f"{ATLAS}: left out: {needs}", flush=True)
        head = "<!doctype html><html lang='en' data-left-out='yes'><meta charset='utf-8'><title>No atlas</title>"
        write_text(made / ATLAS, f"{head}<p>Left out: {html.escape(str(needs))}</p></html>\n")
