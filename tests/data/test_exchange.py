"""What the readers of ready crops share; the rest is tested through `h5sc` and `subcell`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from pci_core import recipe as recipes
from pci_core.data.exchange import image_columns, recipe_text, shown


@pytest.mark.parametrize(
    ("columns", "by"),
    [
        (["cell", "image", "plate", "well"], ["image"]),
        (["Metadata_Plate", "Metadata_Well", "drug"], ["Metadata_Plate", "Metadata_Well"]),
        (["WELL"], ["WELL"]),
        (["plate", "drug"], []),  # a whole plate is no image
        ([], []),
    ],
)
def test_image_columns(columns: list[str], by: list[str]) -> None:
    assert image_columns(columns) == by


@pytest.mark.parametrize(
    ("channels", "protein"),
    [
        (["DAPI", "GFP", "Tubulin"], "GFP"),
        (["Hoechst 33342", "MAP4", "Phalloidin"], "MAP4"),
        (["nucleus", "er", "membrane"], "membrane"),  # none stands out: the last, for the person to check
    ],
)
def test_draft_guesses_the_protein(channels: list[str], protein: str, tmp_path: Path) -> None:
    text = recipe_text(tmp_path / 'odd "name" µ.h5sc', "h5sc", channels, 96, ["well"], ["A note."])
    spec = recipes.parse(tomllib.loads(text), "draft.toml", tmp_path)
    assert [c.name for c in spec.channels if c.role == "protein"] == [protein] and len(spec.channels) == 3
    assert spec.source.path == 'odd "name" µ.h5sc' and spec.crop.resize == 64


def test_shown() -> None:
    assert shown([1, 2]) == "1, 2" and shown(range(1020)).endswith("19 and 1,000 more")
