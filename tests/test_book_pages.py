"""Pages of the book: what each is made from, and why it is stale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pci_core import book_pages, lineage
from pci_core.book_pages import Book
from pci_core.run import Run

PAGES = ("book/intro", "book/api/cells", "book/results", "notebooks/01_a")


@pytest.fixture
def book(tmp_path: Path, own_recipe: Path) -> Book:
    root = tmp_path / "root"
    texts = {
        "_config.yml": "title: x", "_toc.yml": "root: book/intro", "book/intro.md": "# Start\n![](_static/a.svg)",
        "book/_static/a.svg": "<svg/>",
        "book/api/cells.md": "```{eval-rst}\n.. automodule:: pci_core.cells\n```", "book/results.md": "# R\n<!-- results: 04_x -->",
        "book/results/own/04_x.csv": "a\n1\n", "notebooks/01_a.ipynb": json.dumps({"cells": [], "metadata": {}}),
    }  # fmt: skip
    for page in PAGES:
        texts[f"_build/html/{page}.html"] = "<html><head></head></html>"
    texts["_build/executed/own/01_a.ipynb"] = json.dumps({"cells": [], "metadata": {}})
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Book(root, PAGES, root / "_build" / "executed" / "own", Run(own_recipe, root / "runs", quiet=True))


def built(book: Book) -> None:
    wanted = book_pages.inputs(book, {})
    book_pages.add_records(book, book.html, wanted)
    book_pages.note(book, wanted)


def reasons(book: Book, left_out: dict[str, str] | None = None) -> dict[str, str]:
    return dict(book_pages.stale(book, book_pages.inputs(book, left_out or {})))


def test_nothing_is_stale_after_a_build_and_everything_before(book: Book) -> None:
    assert reasons(book) == dict.fromkeys(PAGES, "it was not made yet")
    built(book)
    assert reasons(book) == {}


@pytest.mark.parametrize(
    ("name", "page", "why"),
    [
        ("book/intro.md", "book/intro", "content changed: book/intro.md"),
        ("book/_static/a.svg", "book/intro", "content changed: book/_static/a.svg"),
        ("book/results/own/04_x.csv", "book/results", "content changed: book/results/own/04_x.csv"),
        ("_build/executed/own/01_a.ipynb", "notebooks/01_a", "content changed: _build/executed/own/01_a.ipynb"),
        ("_build/html/book/intro.html", "book/intro", "its page was changed by hand"),
        ("runs/own/tables/04_x_conv1_scores.csv", "book/results", "content changed: runs/own/tables/04_x_conv1_scores.csv"),
    ],
)
def test_a_changed_file_is_named_for_the_page_that_shows_it(book: Book, name: str, page: str, why: str) -> None:
    built(book)
    (book.root / name).parent.mkdir(parents=True, exist_ok=True)
    with open(book.root / name, "a") as handle:
        handle.write(" ")
    assert reasons(book) == {page: why}


def test_what_every_page_shows_makes_all_of_them_stale(book: Book) -> None:
    built(book)
    (book.root / "_config.yml").write_text("title: y")
    assert reasons(book) == dict.fromkeys(PAGES, "layout changed: _config.yml")


def test_a_reference_page_depends_on_its_module(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    built(book)
    files = {**book_pages.package_files(), "cells.py": "other", "train.py": "other"}
    monkeypatch.setattr(book_pages, "package_files", lambda: files)
    assert reasons(book) == {"book/api/cells": "package changed: cells.py"}


def test_a_page_that_is_gone_or_left_out(book: Book) -> None:
    built(book)
    (book.html / "book/intro.html").unlink()
    found = reasons(book, {"01_a": "no cell line"})
    assert found["book/intro"] == "its page is gone" and "left out changed" in found["notebooks/01_a"]


def test_a_page_says_what_it_was_made_from(book: Book) -> None:
    built(book)
    page = book.html / "book/results.html"
    found = lineage.read(page)
    assert (found.kind, found.name, found.recipe) == ("page", "book/results", "own")
    assert {p.path: s for _, p, s, _ in lineage.walk(found, page)} == {
        "book/results.md": "unchanged",
        "book/results/own/04_x.csv": "unchanged",
    }


def test_a_damaged_stamp_is_as_good_as_none(book: Book) -> None:
    built(book)
    book.stamp.write_text("[")
    assert reasons(book) == dict.fromkeys(PAGES, "it was not made yet")
