"""SubCell's path_list.csv in its three forms, and lists that are wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from pci_core import recipe as recipes
from pci_core.data import exchange
from pci_core.data.sources import ready_cells, ready_size
from pci_core.data.subcell import init_recipe, subcell_cells, subcell_size
from pci_core.errors import CellTableError, ImageError, PCIError, RecipeError

SIDE = 16
RECIPE = """
name = "subcell"
title = "Cells of a list"
[[channels]]
name = "protein"
role = "protein"
[[channels]]
name = "nucleus"
role = "structural"
[source]
kind = "subcell"
path = "path_list.csv"
channels = ["g_image", "b_image"]
[crop]
size = 16
resize = 8
"""
HEADER = "r_image,y_image,b_image,g_image,output_prefix"


def pixels(i: int, channel: str, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng([i, ord(channel[0])]).integers(0, 256, (side, side), dtype=np.uint8)


def images(folder: Path, n: int = 6) -> None:
    (folder / "images").mkdir(exist_ok=True)
    for i in range(n):
        for channel in ("mt", "nuc", "prot"):
            Image.fromarray(pixels(i, channel)).save(folder / "images" / f"{i}_{channel}.png")


def row(i: int, prefix: str, more: str = "") -> str:
    return f"images/{i}_mt.png,,images/{i}_nuc.png,images/{i}_prot.png,{prefix}{more}"


def write(folder: Path, lines: list[str], header: str | None = HEADER) -> Path:
    path = folder / "path_list.csv"
    path.write_text("\n".join([*([header] if header else []), *lines]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., recipes.Recipe]:
    images(tmp_path)

    def make(text: str = RECIPE, **sections: dict[str, Any]) -> recipes.Recipe:
        return recipes.parse(tomllib.loads(text), "cells.toml", tmp_path).replace(**sections)

    return make


PREFIXES = ["p1_A1_1_1_", "p1_B2_1_1_", "p1_A1_1_2_", "p1_B2_1_2_", "p1_A1_1_10_", "p1_B2_1_3_"]


def test_cells_are_those_of_the_files(tmp_path: Path, recipe: Callable[..., recipes.Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [row(i, p) for i, p in enumerate(PREFIXES)])
    spec = recipe()
    assert ready_size(spec) == subcell_size(spec) == (6, 2)
    found = ready_cells(spec, tmp_path / "out", progress=False)
    assert found.table["cell_id"].tolist() == ["p1_A1_1_1", "p1_A1_1_2", "p1_A1_1_10", "p1_B2_1_1", "p1_B2_1_2", "p1_B2_1_3"]
    assert found.table["image"].tolist() == ["p1_A1_1"] * 3 + ["p1_B2_1"] * 3
    assert found.crops.dtype == np.uint8 and found.crops.shape == (6, 2, 8, 8)
    for k, i in enumerate([0, 2, 4, 1, 3, 5]):
        for c, channel in enumerate(("prot", "nuc")):
            mean = pixels(i, channel).reshape(8, 2, 8, 2).mean((1, 3))
            np.testing.assert_array_equal(found.crops[k, c], np.rint(mean).astype(np.uint8))
    monkeypatch.setattr(exchange, "_BYTES", 2 * 4 * 2 * SIDE**2)  # two cells at a time
    assert subcell_cells(spec, tmp_path / "again", progress=False).sha256 == found.sha256


def test_forms_of_the_list(tmp_path: Path, recipe: Callable[..., recipes.Recipe]) -> None:
    new = [row(i, p) for i, p in enumerate(PREFIXES)]
    old = [r.rpartition(",")[0] + f",results,{p}" for r, p in zip(new, PREFIXES, strict=True)]
    old_header = "r_image,y_image,b_image,g_image,output_folder,output_prefix"
    made = []
    for k, (header, lines) in enumerate(
        [
            (HEADER, new),
            ("#" + HEADER, ["", *new[:3], "#" + row(9, "left_out_1"), *new[3:]]),
            (None, new),
            (old_header, old),
            ("#" + old_header, old),
            (None, ["#a remark", *old]),
        ]
    ):
        write(tmp_path, lines, header)
        made.append(subcell_cells(recipe(source={"path": "."}), tmp_path / f"out{k}", progress=False).sha256)  # the list's folder is enough
    assert len(set(made)) == 1


def test_what_is_known_goes_along(tmp_path: Path, recipe: Callable[..., recipes.Recipe]) -> None:
    lines = [row(i, f"cell{i}", f",w{i % 2},{i}") for i in range(6)]
    write(tmp_path, lines, HEADER + ",well,dose")
    found = subcell_cells(recipe(), tmp_path / "out", progress=False)
    assert set(found.table["image"]) == {"w0", "w1"} and sorted(found.table["dose"]) == list("012345")
    assert not [c for c in found.table if "image" in c and c != "image"] and "output_prefix" not in found.table  # no paths
    assert subcell_size(recipe(source={"names": "dose"})) == (6, 6)
    more = HEADER.replace("g_image", "g_image,other_image") + ",well"  # a further protein for each cell
    write(tmp_path, [f"images/{i}_mt.png,,images/{i}_nuc.png,images/{i}_prot.png,images/{i}_mt.png,cell{i},w" for i in range(6)], more)
    other = subcell_cells(recipe(source={"channels": ["other_image", "b_image"]}, crop={"resize": SIDE}), tmp_path / "out", progress=False)
    np.testing.assert_array_equal(other.crops[0, 0], pixels(0, "mt"))


@pytest.mark.parametrize(
    ("prefixes", "images"),
    [
        (["a/cell1", "a/cell2", "b/c/cell1", "b/c/cell2", "/a/9", "b/c/3_"], {"a", "b/c"}),
        (["U2OS_12_C3_6_cell1_", "U2OS_12_C3_6_cell2_", "U2OS_12_C3_7_cell1_", "x_1", "x_2", "x-3"], {"U2OS_12_C3_6", "U2OS_12_C3_7", "x"}),
        (["cell1_", "cell2_", "cell3_", "cell4_", "cell5_", "cell6_"], None),
        (["cell_1", "cell_2", "x_1", "x_2", "x_3", "x_4"], None),
        (["a/cell1", "x_1", "x_2", "x_3", "x_4", "x_5"], None),
    ],
)
def test_images_from_prefixes(prefixes: list[str], images: set[str] | None, tmp_path: Path, recipe: Callable[..., recipes.Recipe]) -> None:
    write(tmp_path, [row(i, p) for i, p in enumerate(prefixes)])
    if images is None:
        with pytest.raises(CellTableError, match="no column 'image'"):
            subcell_size(recipe())
        assert subcell_size(recipe(source={"names": "*"})) == (6, 1)
    else:
        found = subcell_cells(recipe(crop={"min_cells": 1}), tmp_path / "out", progress=False)
        assert set(found.table["image"]) == images


def test_draft_of_a_recipe(tmp_path: Path, recipe: Callable[..., recipes.Recipe]) -> None:
    path = write(tmp_path, [row(i, p) for i, p in enumerate(PREFIXES)])
    text = init_recipe(path)
    (tmp_path / "draft.toml").write_text(text, encoding="utf-8")
    spec = recipes.load(tmp_path / "draft.toml")
    assert [(c.name, c.role) for c in spec.channels] == [("protein", "protein"), ("microtubules", "structural"), ("nucleus", "structural")]
    assert spec.source.channels == ("g_image", "r_image", "b_image") and spec.crop.size == SIDE
    found = subcell_cells(spec, tmp_path / "out", progress=False)
    np.testing.assert_array_equal(found.crops[0], np.stack([pixels(0, c) for c in ("prot", "mt", "nuc")]))
    Image.fromarray(pixels(3, "nuc", 20)).save(tmp_path / "images" / "3_nuc.png")
    lines = [row(i, f"cell{i}").replace("images/1_mt.png", "") for i in range(6)]
    text = init_recipe(write(tmp_path, lines).parent)
    assert "CHECK: not read, since not every cell has them: r_image (5)" in text and "found 16x16 px (5), 20x20 px (1)" in text
    assert "FILL IN" in text


def test_missing_files_are_listed_at_once(tmp_path: Path, recipe: Callable[..., recipes.Recipe]) -> None:
    lines = [row(i, p) for i, p in enumerate(PREFIXES)]
    lines[0] = lines[0].replace("images/0_nuc.png", "")
    lines[1] = lines[1].replace("images/1_prot.png", "https://example.org/1.png")
    (tmp_path / "images" / "2_nuc.png").unlink()
    (tmp_path / "images" / "3_prot.png").unlink()
    (tmp_path / "images" / "4_mt.png").unlink()  # not among the recipe's channels
    write(tmp_path, lines)
    with pytest.raises(CellTableError) as caught:
        subcell_cells(recipe(), tmp_path / "out", progress=False)
    for said in ("1 cells have no b_image: p1_A1_1_1_", "1 of g_image are addresses", "images/2_nuc.png", "images/3_prot.png"):
        assert said in str(caught.value)
    assert "4_mt" not in str(caught.value) and not (tmp_path / "out").exists()


def _save(folder: Path, name: str, content: np.ndarray | bytes) -> None:
    path = folder / "images" / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, content)
    else:
        Image.fromarray(content).save(path)


LINES = [row(i, p) for i, p in enumerate(PREFIXES)]
BAD: dict[str, tuple[Callable[[Path], Any], type[PCIError], str]] = {
    "not there": (lambda folder: None, CellTableError, "is not there"),
    "empty": (lambda folder: write(folder, [], None), CellTableError, "is no list of SubCell"),
    "only a header": (lambda folder: write(folder, ["#" + LINES[0]]), CellTableError, "lists no cell"),
    "another table": (
        lambda folder: write(folder, ["1,2"], "a,b"),
        CellTableError,
        r"first row is \['a', 'b'\]. Expected the columns r_image",
    ),
    "not text": (lambda folder: (folder / "path_list.csv").write_bytes(b"\xff\xfe\0" * 20), CellTableError, "cannot be read"),
    "uneven": (lambda folder: write(folder, [*LINES, "x,y"]), CellTableError, "1 cells have more or fewer than the 5 columns: numbers 7"),
    "no prefix": (lambda folder: write(folder, [*LINES, row(0, "")]), CellTableError, "1 cells have no output_prefix.*numbers 7"),
    "doubled prefix": (lambda folder: write(folder, [*LINES, LINES[0]]), CellTableError, "1 values of output_prefix occur.*p1_A1_1_1"),
    "no column": (
        lambda folder: write(folder, [f"images/{i}_nuc.png,x_{i}" for i in range(6)], "b_image,output_prefix"),
        RecipeError,
        "columns g_image, b_image; the list has b_image",
    ),
    "another side": (
        lambda folder: (write(folder, LINES), *(_save(folder, f"1_{c}.png", pixels(1, c, 20)) for c in ("nuc", "prot"))),
        ImageError,
        r"1 of 3 crops looked at are not 16x16 px: p1_B2_1_1 \(20x20 px\)",
    ),
    "one channel of another side": (
        lambda folder: (write(folder, LINES), _save(folder, "1_nuc.png", pixels(1, "nuc", 20))),
        ImageError,
        "sizes",
    ),
    "another type": (
        lambda folder: (
            write(folder, [line.replace("5_nuc.png", "5_nuc.tif").replace("5_prot.png", "5_prot.tif") for line in LINES]),
            *(_save(folder, f"5_{c}.tif", pixels(5, c).astype("uint16")) for c in ("nuc", "prot")),
        ),
        ImageError,
        r"other types than uint8: p1_B2_1_3 \(uint16\)",
    ),
    "damaged": (lambda folder: (write(folder, LINES), _save(folder, "2_prot.png", b"\x89PNG no")), ImageError, "2_prot.png"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_lists(what: str, tmp_path: Path, recipe: Callable[..., recipes.Recipe]) -> None:
    make, kind, says = BAD[what]
    spec = recipe()
    make(tmp_path)
    with pytest.raises(kind, match=says):
        subcell_cells(spec, tmp_path / "out", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) in (["images", "path_list.csv"], ["images"])


def test_channels_by_their_own_names(tmp_path: Path, recipe: Callable[..., recipes.Recipe]) -> None:
    write(tmp_path, LINES)
    text = (
        RECIPE.replace('channels = ["g_image", "b_image"]\n', "").replace('"protein"\nrole', '"g"\nrole').replace('"nucleus"', '"b_image"')
    )
    found = subcell_cells(recipe(text), tmp_path / "out", progress=False)
    assert [c.name for c in found.channels] == ["g", "b_image"] and len(found) == 6
    with pytest.raises(RecipeError, match="channels protein, nucleus are looked for in the columns protein_image, nucleus_image"):
        subcell_cells(recipe(source={"channels": []}), tmp_path / "other", progress=False)
