"""The Sphinx extension for docstrings."""

from __future__ import annotations

from pci_core.docs import join_names


def test_names_that_share_a_line_become_one_in_attributes_only() -> None:
    text = "Words, more : text||Parameters|----------|a, b : int||Attributes|----------|low, high : float|    x, y|n : int"
    lines = text.split("|")
    join_names(lines)
    assert lines[4] == "a, b : int" and lines[8] == "low/high : float" and lines[0] == "Words, more : text" and lines[10] == "n : int"
