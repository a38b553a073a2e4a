"""What each page of the book is made from: which are stale and why, and what each says of where it comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pci_core import book_examples, results
from pci_core.executing import differences
from pci_core.lineage import parent_of
from pci_core.provenance import in_html, package_files, record
from pci_core.run import Run
from pci_core.storage import file_sha256, write_json, write_text

STAMP = "pages.json"  # under _build, beside html/
_WHOLE = ("_config.yml", "_toc.yml", "book/references.bib")  # what every page shows or is laid out by
_CODE = ("book.py", "book_pages.py", "docs.py")
_ENVIRONMENT = ("jupyter-book", "sphinx", "sphinx-book-theme", "myst-nb", "sphinx-design", "sphinx-mathjax-offline")
_MODULE = re.compile(r"automodule:: pci_core\.(\S+)")
_IMAGE = re.compile(r"_static/[\w./-]+")


@dataclass(frozen=True)
class Book:
    """The parts of a book on one recipe.

    Attributes
    ----------
    root : Path
        Of the repository.
    pages : tuple of str
        Of the table of contents, without ending.
    executed : Path
        Folder of the executed notebooks.
    run : Run
        Of the recipe.
    """

    root: Path
    pages: tuple[str, ...]
    executed: Path
    run: Run

    @property
    def stamp(self) -> Path:
        """Where it is noted what the pages of the last build were made from."""
        return self.root / "_build" / STAMP

    @property
    def html(self) -> Path:
        """Folder of the built pages."""
        return self.root / "_build" / "html"

    def is_notebook(self, page: str) -> bool:
        """Tell whether a page is a notebook, not prose."""
        return not (self.root / f"{page}.md").is_file()

    def files(self, page: str) -> list[Path]:
        """Return the files that a page is made from."""
        if self.is_notebook(page):
            executed = self.executed / f"{Path(page).name}.ipynb"
            return [executed if executed.is_file() else self.root / f"{page}.ipynb"]
        prose = self.root / f"{page}.md"
        text = prose.read_text(encoding="utf-8")
        out = [prose, *(p for name in dict.fromkeys(_IMAGE.findall(text)) if (p := prose.parent / name).is_file())]
        if prose.name == results.PAGE:
            kept = self.root / "book" / results.FOLDER
            out += [*sorted(kept.glob("*/*.csv")), *sorted(kept.glob(f"*/{results.PROVENANCE}"))]
            measured = self.root / "benchmarks" / "results"
            out += [*sorted((measured / "feature_sets").glob("*.json")), *sorted((measured / "beyond").glob("*.csv"))]
            out += sorted((self.run.folder / "tables").glob("*_scores.csv"))
        return out

    def label(self, path: Path) -> str:
        """Return the name of a file that is the same on every machine."""
        whole = path.resolve()
        return whole.relative_to(self.root).as_posix() if whole.is_relative_to(self.root) else self.run.used.label(path)


def inputs(book: Book, left_out: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return what each page is made from.

    Parameters
    ----------
    book : Book
    left_out : mapping of str to str
        Why there is no executed copy of a notebook, by its name.
    """
    from importlib import metadata

    package = package_files()
    styles = sorted((book.root / "book" / "_static").glob("*.css"))
    common = {
        "layout": {book.label(p): file_sha256(p) for p in [*(book.root / name for name in _WHOLE), *styles] if p.is_file()},
        "libraries": {name: metadata.version(name) for name in _ENVIRONMENT},
    }
    out = {}
    for page in book.pages:
        code = {name: package[name] for name in [*_CODE, *_documented(book, page, package)]}
        why = left_out.get(Path(page).name, "") if book.is_notebook(page) else ""
        files = {} if why else {book.label(p): file_sha256(p) for p in book.files(page)}
        out[page] = {"content": files, "left out": why, "package": code, **common}
    return out


def _documented(book: Book, page: str, package: Mapping[str, str]) -> Iterable[str]:
    """Return the files of the package that a prose page shows: modules whose reference it is, what draws its contact sheets."""
    if book.is_notebook(page):
        return []
    text = (book.root / f"{page}.md").read_text(encoding="utf-8")
    names = [m.replace(".", "/") for m in _MODULE.findall(text)]
    shown = [n for m in names for n in (f"{m}.py", f"{m}/__init__.py") if n in package]
    if Path(page).name == Path(book_examples.PAGE).stem:
        shown += ["book_examples.py", "init.py", *(n for n in package if n.startswith("imaging/") or n == "plots/contact_sheet.py")]
    return [*shown, "results.py"] if Path(page).name == Path(results.PAGE).stem else shown


def stale(book: Book, wanted: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield each built page that is not the one that would be made now, and why."""
    known = _read(book.stamp)
    for page, now in wanted.items():
        found = known.get(page, {})
        html = book.html / f"{page}.html"
        told = differences(found.get("inputs"), now)
        if not told and not html.is_file():
            told = ["its page is gone"]
        elif not told and file_sha256(html) != found.get("sha256"):
            told = ["its page was changed by hand"]
        if told:
            yield page, "; ".join(told)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def note(book: Book, wanted: Mapping[str, Mapping[str, Any]]) -> None:
    """Write down what the pages that are there now were made from."""
    write_json(book.stamp, {p: {"inputs": now, "sha256": file_sha256(book.html / f"{p}.html")} for p, now in wanted.items()})


def add_records(book: Book, made: Path, wanted: Mapping[str, Mapping[str, Any]]) -> None:
    """Let each built page under `made` say where it comes from."""
    for page, now in wanted.items():
        parents = tuple(parent_of(path, book.label(path)) for path in book.files(page) if book.label(path) in now["content"])
        settings = {"left out": now["left out"]} if now["left out"] else {}
        with book.run.recording([]):
            known = record("page", page, parents=parents, settings=settings)
        html = made / f"{page}.html"
        write_text(html, in_html(html.read_text(encoding="utf-8"), known))
