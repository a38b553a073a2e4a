"""Contact sheets in the chapter on one's own images: made at build time, or a sentence that says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pci_core import book_examples


def test_images_that_cannot_be_had_are_told_without_the_machines_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("PCI_MIRROR", str(tmp_path / "mirror"))
    page = book_examples.fill("before\n\n<!-- example: example-yeast -->\n\nafter\n", tmp_path, tmp_path / "work")
    assert "*The contact sheet of `example-yeast` is not shown" in page and "0 of 25 files" in page
    assert str(tmp_path) not in page and "<!--" not in page
    assert page.startswith("before\n") and page.endswith("after\n")
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.slow
def test_simulated_fields_become_a_figure_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_examples, "_PROTEINS", 1)
    page = book_examples.fill("<!-- example: simulated -->\n", tmp_path, tmp_path / "work")
    assert page.startswith("```{figure} contact_sheet_simulated.png\n:alt: ")
    assert "SIMULATED cells" in page
    assert (tmp_path / "contact_sheet_simulated.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_without_markers_stays_as_it_is(tmp_path: Path) -> None:
    assert book_examples.fill("nothing\n", tmp_path, tmp_path) == "nothing\n"
