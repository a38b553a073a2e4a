"""The build of the book, on a miniature one in a temporary folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pci_core import book, lineage
from pci_core.errors import RecipeError, UnknownNameError

TOC = {
    "root": "book/intro",
    "parts": [{"chapters": [{"file": "notebooks/01_a"}, {"file": "notebooks/02_b", "sections": [{"file": "book/more"}]}]}],
}


def write_notebook(path: Path, *sources: str, tag: str = "parameters") -> None:
    def cell(kind: str, source: str, tags: list[str] | None = None) -> dict[str, Any]:
        extra: dict[str, Any] = {"outputs": [], "execution_count": None} if kind == "code" else {}
        return {"cell_type": kind, "id": f"c{abs(hash((kind, source)))}"[:12], "metadata": {"tags": tags or []}, "source": source, **extra}

    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [cell("markdown", "# A page"), cell("code", 'recipe = "simulated-human"', [tag]), *(cell("code", s) for s in sources)]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))


@pytest.fixture
def small_book(tmp_path: Path) -> Path:
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "intro.md").write_text("# Start\n\nA formula: $x^2$.\n")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/intro\nchapters:\n  - file: notebooks/01_a\n")
    config = "title: Small\nauthor: us\ncopyright: '2026'\nonly_build_toc_files: true\nexecute:\n  execute_notebooks: 'off'\n"
    (tmp_path / "_config.yml").write_text(config + "sphinx:\n  config:\n    mathjax_path: mathjax/tex-svg.js\n")
    write_notebook(tmp_path / "notebooks" / "01_a.ipynb", "import sys\nprint('ran on', recipe, 'with', sys.executable)")
    return tmp_path


def test_pages_are_listed_in_order() -> None:
    assert list(book._pages(TOC)) == ["book/intro", "notebooks/01_a", "notebooks/02_b", "book/more"]


def test_notebooks_are_chosen_by_how_they_begin() -> None:
    known = ["01_training", "04_clustering"]
    assert book._choose(known, None) == known
    assert book._choose(known, ["04"]) == ["04_clustering"]
    with pytest.raises(UnknownNameError, match="01_training"):
        book._choose(known, ["1_training"])


def test_bad_input_is_named(small_book: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(book.BookError, match="_config.yml"):
        book.build(tmp_path_factory.mktemp("empty"))
    with pytest.raises(UnknownNameError, match="simulated-human"):
        book.build(small_book, "simulated-humann")
    with pytest.raises(RecipeError):
        book.build(small_book, "none.toml")
    write_notebook(small_book / "notebooks" / "01_a.ipynb", tag="parameter")
    with pytest.raises(book.BookError, match="'parameters'"):
        book.build(small_book)
    (small_book / "notebooks" / "01_a.ipynb").unlink()
    with pytest.raises(book.BookError, match="not there"):
        book.build(small_book)


@pytest.mark.slow
def test_build_execute_once_and_keep_the_book_when_a_cell_or_page_fails(
    small_book: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # a user's own kernel of the same name must not win
    home = small_book / "home"
    kernel = {"argv": ["no-such-program"], "display_name": "mine", "language": "python"}
    (home / "kernels" / "python3").mkdir(parents=True)
    (home / "kernels" / "python3" / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(home))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")

    index = book.build(small_book)
    page = index.parent / "notebooks" / "01_a.html"
    assert index.is_file() and "ran on simulated-human with" in page.read_text()
    assert (index.parent / "_static" / "mathjax" / "tex-svg.js").is_file()
    assert "https://cdn" not in (index.parent / "book" / "intro.html").read_text()
    assert "hide-input" in page.read_text() and "tex-svg" not in page.read_text()  # code folded; no formula, no script
    assert book.check(small_book) == []
    found = lineage.read(page)
    assert (found.kind, found.recipe) == ("page", "simulated-human")
    parents = {p.path: s for _, p, s, _ in lineage.walk(found, page)}
    assert parents == {"_build/executed/simulated-human/01_a.ipynb": "unchanged", "notebooks/01_a.ipynb": "unchanged"}
    executed = json.loads((small_book / "_build" / "executed" / "simulated-human" / "01_a.ipynb").read_text())
    assert "papermill" not in executed["metadata"] and lineage.KEY in executed["metadata"]

    capfd.readouterr()
    book.build(small_book, only=["01"])
    assert "up to date" in capfd.readouterr().out

    needs = "from pci_core.errors import AnalysisNeedsError\nraise AnalysisNeedsError('02_b needs the column <cell_line>')"
    write_notebook(small_book / "notebooks" / "02_b.ipynb", needs)
    (small_book / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nchapters:\n  - file: notebooks/01_a\n  - file: notebooks/02_b\n"
    )
    (small_book / "book" / "intro.md").write_text("# Start\n\nA formula: $x^2$. See [](../notebooks/02_b.ipynb).\n")
    stale = dict(book.check(small_book))
    assert stale["book/intro"] == "content changed: book/intro.md; layout changed: _toc.yml" and "not made yet" in stale["notebooks/02_b"]
    book.build(small_book)
    told = capfd.readouterr().out
    assert "book/intro: stale, because content changed: book/intro.md; layout changed: _toc.yml" in told
    assert "02_b.ipynb: left out" in told
    assert book.check(small_book) == []
    left_out = (index.parent / "notebooks" / "02_b.html").read_text()
    assert "A page" in left_out and "02_b needs the column" in left_out and "Traceback" not in left_out
    book.build(small_book, only=["01"])  # what was not asked for has a page all the same, so that links hold
    assert "was not run on simulated-human" in (index.parent / "notebooks" / "02_b.html").read_text()

    before = page.read_text()
    write_notebook(small_book / "notebooks" / "01_a.ipynb", "raise ValueError('no cells')")
    assert dict(book.check(small_book))["notebooks/01_a"] == "template changed"
    with pytest.raises(book.BookError, match="ValueError: no cells"):
        book.build(small_book)
    assert page.read_text() == before
    assert (small_book / "_build" / "failed" / "01_a.ipynb").is_file()

    write_notebook(small_book / "notebooks" / "01_a.ipynb")
    (small_book / "book" / "intro.md").write_text("# Start\n\n[nowhere](missing.md)\n")
    with pytest.raises(book.BookError, match="warned"):
        book.build(small_book)
    assert page.read_text() == before
