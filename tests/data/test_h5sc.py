"""scPortrait's single-cell files: written here as its format says, read back by hand and by us."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from pci_core import recipe as recipes
from pci_core.data import exchange
from pci_core.data.h5sc import h5sc_cells, h5sc_size, init_recipe
from pci_core.data.sources import ready_cells, ready_size
from pci_core.errors import CellTableError, DatasetError, ImageError, PCIError, RecipeError

pytestmark = pytest.mark.usefixtures("looked_at_here")
N, SIDE = 20, 16
NAMES = ["seg_nucleus", "seg_cytosol", "DAPI", "a_rather_long_protein_name", "Tubulin"]
KINDS = ["mask", "mask", "image_channel", "image_channel", "image_channel"]
IMAGES = "obsm/single_cell_images"

RECIPE = """
name = "cells"
title = "Cells of scPortrait"
[[channels]]
name = "protein"
role = "protein"
[[channels]]
name = "nucleus"
role = "structural"
[source]
kind = "h5sc"
path = "cells.h5sc"
channels = ["a_rather_long_protein_name", "DAPI"]
[fields]
um_per_px = 0.5
[crop]
size = 16
resize = 8
"""


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((N, len(NAMES), SIDE, SIDE)).astype(np.float16)


def obs() -> pd.DataFrame:
    table = {
        "scportrait_cell_id": np.arange(N, dtype=np.uint64) + 100,
        "plate": 1,
        "well": pd.Categorical([f"A{i % 4}" for i in range(N)]),  # the cells of a well do not lie together
        "score": np.linspace(0, 1, N),
        "drug": ["DMSO", "taxol"] * (N // 2),
        "alive": [True, False] * (N // 2),
    }
    return pd.DataFrame(table, index=[str(i) for i in range(N)])


def write(path: Path, images: np.ndarray | None = None, table: pd.DataFrame | None = None, **attributes: Any) -> Path:
    """Write a file as scPortrait does: the table by anndata, then the pixels, one chunk a channel of a cell."""
    images = pixels() if images is None else images
    var = pd.DataFrame({"channels": [n[:15] for n in NAMES], "channel_mapping": KINDS}, index=[str(i) for i in range(len(NAMES))])
    anndata.AnnData(obs=obs() if table is None else table, var=var).write_h5ad(path)
    with h5py.File(path, "a") as file:
        data = file.create_dataset(IMAGES, data=images, chunks=(1, 1, *images.shape[2:]), compression="gzip")
        said = {"n_masks": 2, "channel_names": [n.encode() for n in NAMES], "channel_mapping": [k.encode() for k in KINDS], **attributes}
        data.attrs.update({k: v for k, v in said.items() if v is not None})
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., recipes.Recipe]:
    def make(text: str = RECIPE, **sections: dict[str, Any]) -> recipes.Recipe:
        return recipes.parse(tomllib.loads(text), "cells.toml", tmp_path).replace(**sections)

    return make


def test_cells_are_those_of_the_file(tmp_path: Path, recipe: Callable[..., recipes.Recipe]) -> None:
    write(tmp_path / "cells.h5sc")
    spec = recipe()
    assert ready_size(spec) == h5sc_size(spec) == (N, 4)
    found = ready_cells(spec, tmp_path / "out", progress=False)
    assert found.crops.shape == (N, 2, 8, 8) and found.crops.dtype == np.float32
    order = [i for w in range(4) for i in range(N) if i % 4 == w]  # well by well, in the file's order
    chosen = pixels()[order][:, [3, 2]].astype(np.float64)
    # float32 rounding of a mean of four
    np.testing.assert_allclose(found.crops, chosen.reshape(N, 2, 8, 2, 8, 2).mean((3, 5)), rtol=1e-6)
    table = found.table
    assert table["cell_id"].tolist() == [str(100 + i) for i in order]
    assert table["image"].tolist() == [f"1_A{i % 4}" for i in order]
    assert table["drug"].tolist() == [["DMSO", "taxol"][i % 2] for i in order] and table["alive"].tolist() == [i % 2 == 0 for i in order]
    np.testing.assert_array_equal(table["score"], np.linspace(0, 1, N)[order])
    assert found.um_per_px == 1.0 and found.info["source"]["masks"] == ["seg_nucleus", "seg_cytosol"]
    assert not (tmp_path / "out" / "obs").exists() and found.info["left_out"] == {"images_below_min_cells": {}, "cells": 0}


def test_blocks_do_not_matter(tmp_path: Path, recipe: Callable[..., recipes.Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "cells.h5sc")
    whole = h5sc_cells(recipe(), tmp_path / "a", progress=False)
    monkeypatch.setattr(exchange, "_BYTES", 3 * 4 * 2 * SIDE**2)  # three cells at a time
    assert h5sc_cells(recipe(), tmp_path / "b", progress=False).sha256 == whole.sha256


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "float64"])
def test_pixel_types(kind: str, tmp_path: Path, recipe: Callable[..., recipes.Recipe]) -> None:
    images = (pixels().astype("float64") * (1 if kind.startswith("f") else 200)).astype(kind)
    write(tmp_path / "cells.h5sc", images)
    found = h5sc_cells(recipe(crop={"resize": SIDE}), tmp_path / "out", progress=False)
    assert found.crops.dtype == ("float32" if kind.startswith("f") else kind)
    np.testing.assert_array_equal(found.crops[0], images[0, [3, 2]].astype(found.crops.dtype))


def test_which_cells_may_be_paired(tmp_path: Path, recipe: Callable[..., recipes.Recipe]) -> None:
    write(tmp_path / "cells.h5sc")
    assert h5sc_size(recipe(source={"names": "drug"})) == (N, 2)
    assert h5sc_size(recipe(source={"names": "plate, drug"})) == (N, 2)
    assert h5sc_size(recipe(source={"names": "*"})) == (N, 1)
    assert set(h5sc_cells(recipe(source={"names": "drug"}), tmp_path / "out", progress=False).table["image"]) == {"DMSO", "taxol"}
    with pytest.raises(CellTableError, match="unknown column 'drugs'. Did you mean drug"):
        h5sc_size(recipe(source={"names": "drugs"}))
    write(tmp_path / "cells.h5sc", table=obs()[["scportrait_cell_id", "score"]])  # scPortrait's own, without annotation
    with pytest.raises(CellTableError, match=r'no column \'image\'.*found: scportrait_cell_id, score.*names = "plate,well".*names = "\*"'):
        h5sc_size(recipe())
    write(tmp_path / "cells.h5sc", table=obs().assign(image=["", "b"] * (N // 2)))
    with pytest.raises(CellTableError, match=r"10 of 20 cells have no image, e.g. rows \[0, 2"):
        h5sc_size(recipe())


def test_names_of_cells(tmp_path: Path, recipe: Callable[..., recipes.Recipe]) -> None:
    number = np.arange(N, dtype=np.uint64) // 4  # numbered anew in each well
    write(tmp_path / "cells.h5sc", table=obs().assign(scportrait_cell_id=number))
    found = h5sc_cells(recipe(), tmp_path / "out", progress=False).table
    assert found["cell_id"].tolist()[:3] == ["1_A0_0", "1_A0_1", "1_A0_2"]
    write(tmp_path / "cells.h5sc", table=obs().assign(scportrait_cell_id=np.uint64(7)))
    with pytest.raises(CellTableError, match="'cell_id' occur more than once"):
        h5sc_cells(recipe(), tmp_path / "out", progress=False)
    write(tmp_path / "cells.h5sc", table=obs().drop(columns="scportrait_cell_id"))
    with pytest.raises(CellTableError, match="neither scportrait_cell_id nor cell_id"):
        h5sc_cells(recipe(), tmp_path / "out", progress=False)


def test_small_images_are_left_out_and_counted(tmp_path: Path, recipe: Callable[..., recipes.Recipe]) -> None:
    write(tmp_path / "cells.h5sc", table=obs().assign(image=["a"] * 15 + ["b"] * 4 + ["c"]))
    found = h5sc_cells(recipe(crop={"min_cells": 5}), tmp_path / "out", progress=False)
    assert len(found) == 15 and found.info["left_out"] == {"images_below_min_cells": {"b": 4, "c": 1}, "cells": 5}
    with pytest.raises(DatasetError, match="none of 3 images has the 16 cells.*largest has 15"):
        h5sc_cells(recipe(crop={"min_cells": 16}), tmp_path / "other", progress=False)


def test_names_of_channels_from_each_place(tmp_path: Path, recipe: Callable[..., recipes.Recipe]) -> None:
    short = recipe(source={"channels": ["a_rather_long_p", "DAPI"]})
    write(tmp_path / "cells.h5sc", channel_names=None, channel_mapping=None)  # var has them, cut to 15 characters
    from_var = h5sc_cells(short, tmp_path / "a", progress=False)
    write(tmp_path / "cells.h5sc", channel_mapping=None)
    with h5py.File(tmp_path / "cells.h5sc", "a") as file:
        del file["var"]["channel_mapping"]
    by_number = h5sc_cells(recipe(), tmp_path / "b", progress=False)
    assert np.array_equal(from_var.crops, by_number.crops)
    write(tmp_path / "cells.h5sc", channel_names=None, channel_mapping=None)
    with h5py.File(tmp_path / "cells.h5sc", "a") as file:
        del file["var"]["channels"]
    with pytest.raises(ImageError, match="5 channels, but their names are None"):
        h5sc_cells(recipe(), tmp_path / "c", progress=False)


def test_draft_of_a_recipe(tmp_path: Path) -> None:
    write(tmp_path / "My cells.h5sc")
    text = init_recipe(tmp_path / "My cells.h5sc")
    (tmp_path / "draft.toml").write_text(text, encoding="utf-8")
    spec = recipes.load(tmp_path / "draft.toml")
    assert [(c.name, c.role) for c in spec.channels] == [
        ("a_rather_long_protein_name", "protein"), ("DAPI", "structural"), ("Tubulin", "structural")
    ]  # fmt: skip
    assert spec.name == "My-cells" and spec.crop.size == SIDE and text.count("CHECK") > 5
    assert "share plate and well" in text and "masks (not read) seg_nucleus, seg_cytosol" in text
    assert len(h5sc_cells(spec, tmp_path / "out", progress=False)) == N
    write(tmp_path / "plain.h5sc", table=obs()[["scportrait_cell_id"]])
    assert 'names = ""  # CHECK: FILL IN' in init_recipe(tmp_path / "plain.h5sc")
    write(tmp_path / "one.h5sc", channel_mapping=["mask"] * 4 + ["image_channel"])
    with pytest.raises(RecipeError, match="has the image channels Tubulin; paired cell inpainting needs"):
        init_recipe(tmp_path / "one.h5sc")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source": {"channels": ["GFP", "DAPI"]}}, r"channels GFP of recipe 'cells' are not among its image channels \(DAPI, a_rather"),
        ({"source": {"channels": ["seg_nucleus", "DAPI"]}}, "channels seg_nucleus .* are not among its image channels"),
        ({"source": {"channels": []}}, "channels protein, nucleus of recipe"),
        ({"source": {"channels": ["DAPI", "DAPI"]}}, "each of the 2 channels once"),
        ({"crop": {"size": 32}}, r"crops of 16 px, the recipe says 32. Set \[crop\] size = 16"),
    ],
)
def test_recipe_that_does_not_fit(change: dict[str, Any], says: str, tmp_path: Path, recipe: Callable[..., recipes.Recipe]) -> None:
    write(tmp_path / "cells.h5sc")
    with pytest.raises(RecipeError, match=says):
        h5sc_cells(recipe(**change), tmp_path / "out", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["cells.h5sc"]


def _edit(change: Callable[[h5py.File], Any]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        write(path)
        with h5py.File(path, "a") as file:
            change(file)

    return apply


def _nan(path: Path) -> None:
    images = pixels()
    images[[3, 7], 3, 0, 0] = np.nan
    write(path, images)


def _replace(name: str, **how: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **how)

    return change


def _never_written(file: h5py.File) -> None:
    del file[IMAGES]
    data = file.create_dataset(IMAGES, (N, 5, SIDE, SIDE), "f2", chunks=(1, 1, SIDE, SIDE))
    data.attrs.update({"channel_names": NAMES, "channel_mapping": KINDS})
    data[: N // 2] = pixels()[: N // 2]


def _external(file: h5py.File) -> None:
    del file["obs"]["score"]
    file["obs"]["score"] = h5py.ExternalLink("other.h5", "/secret")


def _cut(path: Path) -> None:
    write(path)
    path.write_bytes(path.read_bytes()[:-3000])


def _broken_chunk(path: Path) -> None:
    write(path)
    with h5py.File(path, "r") as file:
        found = file[IMAGES].id.get_chunk_info(7)
    content = bytearray(path.read_bytes())
    content[found.byte_offset : found.byte_offset + found.size] = bytes(found.size)
    path.write_bytes(bytes(content))


BAD: dict[str, tuple[Callable[[Path], Any], type[PCIError], str]] = {
    "not there": (lambda path: None, ImageError, "is not there"),
    "empty": (lambda path: path.write_bytes(b""), ImageError, "no .h5sc file"),
    "text": (lambda path: path.write_text("cells"), ImageError, "no .h5sc file"),
    "cut": (_cut, ImageError, "damaged, cut short"),
    "broken chunk": (_broken_chunk, ImageError, "damaged, cut short"),
    "plain h5ad": (lambda path: anndata.AnnData(obs=obs()).write_h5ad(path), ImageError, "holds no obsm/single_cell_images"),
    "old layout": (_edit(lambda f: (f.pop("obsm"), f.create_dataset("single_cell_data", data=[1]))), ImageError, "before 1.3"),
    "not written to its end": (_edit(_never_written), ImageError, r"not written to its end \(50 of 100 pieces"),
    "not square": (lambda path: write(path, pixels()[:, :, :8]), ImageError, "expected .cells, channels, side, side"),
    "complex": (_edit(_replace(IMAGES, data=np.zeros((N, 5, SIDE, SIDE), complex))), ImageError, "pixels are complex128"),
    "huge chunk": (_edit(_replace(IMAGES, shape=(10**6, 5, 64, 64), dtype="f2", chunks=(10**5, 5, 64, 64))), ImageError, "GB of memory"),
    "NaN": (_nan, ImageError, "NaN or infinite pixels in cells 107|NaN or infinite pixels in cells 103"),
    "other names": (lambda path: write(path, channel_names=NAMES[:3]), ImageError, "5 channels, but their names are"),
    "other kinds": (lambda path: write(path, channel_mapping=["mask"] * 4 + ["image"]), ImageError, "their kinds"),
    "external link": (_edit(_external), ImageError, r"'obs/score' is a link to another file \(other.h5\)"),
    "external pixels": (
        _edit(_replace(IMAGES, shape=(N, 5, SIDE, SIDE), dtype="f2", external=[("pixels.raw", 0, h5py.h5f.UNLIMITED)])),
        ImageError,
        "lies in another file",
    ),
    "short column": (_edit(_replace("obs/score", data=np.zeros(3))), CellTableError, r"other lengths: \{'score': 3\}"),
    "endless column": (_edit(_replace("obs/score", shape=(10**9,), dtype="f8", chunks=(1000,))), ImageError, "8.0 GB of memory"),
    "references": (_edit(_replace("obs/score", shape=(N,), dtype=h5py.ref_dtype)), CellTableError, "neither numbers nor text"),
    "wrong codes": (_edit(lambda f: f["obs/well/codes"].write_direct(np.full(N, 99, "i1"))), CellTableError, "categories that it does not"),
    "text for x": (lambda path: write(path, table=obs().assign(x="left")), CellTableError, "'x' of obs must be numbers"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_files(what: str, tmp_path: Path, recipe: Callable[..., recipes.Recipe]) -> None:
    make, kind, says = BAD[what]
    make(tmp_path / "cells.h5sc")
    with pytest.raises(kind, match=says) as caught:
        h5sc_cells(recipe(), tmp_path / "out", progress=False)
    assert "cells.h5sc" in str(caught.value)
    assert not re.search("out", " ".join(p.name for p in tmp_path.iterdir()))  # nothing half-made
