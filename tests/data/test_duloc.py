"""Real cells with known fractions: made-up mosaics with every kind of fault, and the real ones where they are at hand."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pci_core import recipe as recipes
from pci_core.cells import CellDataset
from pci_core.data import duloc, many
from pci_core.data.download import git_blob_sha1
from pci_core.errors import CellTableError, DatasetError, DownloadError, ImageError, PCIError, RecipeError
from pci_core.info import _expect
from pci_core.run import Run

TILE, SIDE = 64, 16  # px of a made-up cell, and after the reduction by 4
RECIPE = recipes.load("hpa-duloc").replace(crop={"size": 8, "resize": 8})
WHOLE = recipes.load("hpa-duloc").replace(crop={"size": SIDE, "resize": 8})
CSV = {
    "img_comb1.csv": "Id,Target,m_rate\nmixed_img2,25,1_0\nmixed_img10,25 0,0.25_0.75\nmixed_img11,0,0_1",
    "img_comb3.csv": "Id,Target,m_rate\nmixed_img20,2 0,0.75_0.25\n",
}
MOSAICS = ("img_comb1/mixed_img2", "img_comb1/mixed_img10", "img_comb1/mixed_img11", "img_comb3/mixed_img20")


def png(plane: np.ndarray) -> bytes:
    """Lossless, so that pixels can be compared; the reader goes by content, not by the name's ending."""
    buffer = io.BytesIO()
    Image.fromarray(plane).save(buffer, "png")
    return buffer.getvalue()


def tile_of(mosaic: np.ndarray, row: int, column: int) -> np.ndarray:
    """The reduced cell, by slices and Python's own sum: independent of the code under test."""
    cell = mosaic[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE].astype(int)
    total = sum(cell[i::4, j::4] for i in range(4) for j in range(4))
    return np.array([[round(int(v) / 16) for v in line] for line in total])  # round() rounds half to even


class Mirror:
    """Four small mosaics, the source's tables, their registry, and the folder that stands for the network."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(0)
        self.root = folder / duloc.RAW.removeprefix("https://")
        self.planes: dict[str, np.ndarray] = {}
        self.nuclei: dict[str, list[tuple[int, int]]] = {}
        for mosaic in MOSAICS:
            for colour in ("green", "red"):
                self.planes[f"{mosaic}_{colour}.jpg"] = rng.integers(0, 256, (3 * TILE, 3 * TILE), np.uint8)
            nucleus = np.zeros((3, TILE, 3, TILE), np.uint8)
            # centres in px of the reduced cell; 8x8 px of the source are 2x2 px there
            self.nuclei[mosaic] = [(int(y), int(x)) for y, x in rng.integers(2, SIDE - 2, (9, 2))]
            for i, (y, x) in enumerate(self.nuclei[mosaic]):
                nucleus[i // 3, 4 * y - 4 : 4 * y + 4, i % 3, 4 * x - 4 : 4 * x + 4] = 200
            self.planes[f"{mosaic}_blue.jpg"] = nucleus.reshape(3 * TILE, 3 * TILE)
        self.registry: dict[str, str] = {}
        for name, text in CSV.items():
            self.put(name, text.encode())
        for name, plane in self.planes.items():
            self.put(name, png(plane))
        monkeypatch.setattr(duloc, "registry", lambda: self.registry)
        monkeypatch.setattr(duloc, "tile_facts", lambda: {"comb1_mixed_img10_r0c1": (2, "comb1_mixed_img2_r2c2")})
        monkeypatch.setattr(duloc, "TILE", TILE)
        monkeypatch.setenv("PCI_MIRROR", str(folder))

    def put(self, name: str, content: bytes) -> None:
        """Put a file there, and its hash into the registry, as if the source had published it."""
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(content)
        self.registry[name] = git_blob_sha1(content)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    return Mirror(tmp_path / "mirror", monkeypatch)


def test_table(mirror: Mirror, tmp_path: Path) -> None:
    cells = duloc.duloc_cells(RECIPE, tmp_path / "out")
    cells.verify()
    table = cells.table
    assert len(cells) == 36 and cells.crops.dtype == np.uint8 and cells.um_per_px is None
    assert duloc.known_cells() == (36, 4)
    assert table["cell_id"].tolist()[:4] == [f"comb1_mixed_img2_r{i}" for i in ("0c0", "0c1", "0c2", "1c0")]
    assert table["image"].unique().tolist() == ["comb1_mixed_img2", "comb1_mixed_img10", "comb1_mixed_img11", "comb3_mixed_img20"]
    by_image = table.groupby("image", sort=False).first()
    assert by_image["location"].tolist() == ["cytosol", "cytosol;nucleoplasm", "nucleoplasm", "nucleoli;nucleoplasm"]
    fractions = by_image[["fraction_cytosol", "fraction_nucleoplasm", "fraction_nucleoli"]].to_numpy().tolist()
    assert fractions == [[1, 0, 0], [0.25, 0.75, 0], [0, 1, 0], [0, 0.25, 0.75]]
    odd = table[(table["n_nuclei"] != 1) | (table["landmark_group"] != table["cell_id"])]
    assert odd[["cell_id", "n_nuclei", "landmark_group"]].to_numpy().tolist() == [["comb1_mixed_img10_r0c1", 2, "comb1_mixed_img2_r2c2"]]
    assert "protein" not in table and "proteinatlas.org" in cells.info["source"]["terms"]
    assert cells.info["source"]["commit"] == duloc.COMMIT and not cells.info["simulated"]


def test_whole_tiles_are_means_of_the_mosaics_pixels(mirror: Mirror, tmp_path: Path) -> None:
    recipe = WHOLE.replace(crop={"resize": SIDE})
    cells = duloc.duloc_cells(recipe, tmp_path / "out")
    assert [c.name for c in cells.channels] == ["protein", "nucleus", "microtubules"]
    for row, (mosaic, r, c) in {0: (0, 0, 0), 5: (0, 1, 2), 16: (1, 2, 1), 35: (3, 2, 2)}.items():
        for channel, colour in enumerate(("green", "blue", "red")):
            np.testing.assert_array_equal(cells.crops[row, channel], tile_of(mirror.planes[f"{MOSAICS[mosaic]}_{colour}.jpg"], r, c))
    halved = duloc.duloc_cells(WHOLE, tmp_path / "halved")
    expected = cells.crops.reshape(36, 3, 8, 2, 8, 2).astype(float).sum((3, 5)) / 4
    np.testing.assert_array_equal(halved.crops, np.rint(expected))


def test_squares_lie_around_the_nucleus_and_are_black_beyond_the_tile(mirror: Mirror, tmp_path: Path) -> None:
    whole = duloc.duloc_cells(WHOLE.replace(crop={"resize": SIDE}), tmp_path / "whole")
    cells = duloc.duloc_cells(RECIPE, tmp_path / "out")
    beyond = 0
    for row, (cell, crop) in enumerate(zip(whole.crops, cells.crops, strict=True)):
        cy, cx = mirror.nuclei[MOSAICS[row // 9]][row % 9]
        # the nucleus covers px c-1 and c, so that its centre is c - 0.5, which is rounded half to even
        top, left = (round(v - 0.5) - 4 for v in (cy, cx))
        for y in range(8):
            for x in range(8):
                inside = 0 <= top + y < SIDE and 0 <= left + x < SIDE
                beyond += not inside
                np.testing.assert_array_equal(crop[:, y, x], cell[:, top + y, left + x] if inside else 0)
    assert beyond > 100  # the nuclei were placed so that this happens


def test_same_mosaics_same_dataset(mirror: Mirror, tmp_path: Path) -> None:
    assert duloc.duloc_cells(RECIPE, tmp_path / "a").sha256 == duloc.duloc_cells(RECIPE, tmp_path / "b").sha256


def test_missing_mosaics_are_counted_and_named(mirror: Mirror, tmp_path: Path) -> None:
    before = duloc.duloc_cells(RECIPE, tmp_path / "out").sha256
    for name in ("img_comb1/mixed_img10_blue.jpg", "img_comb3/mixed_img20_red.jpg"):
        (mirror.root / name).unlink()
    with pytest.raises(
        DownloadError, match=r"12 of 14 files were had, 2 failed: img_comb1/mixed_img10_blue\.jpg, img_comb3/.*not in the mirror"
    ):
        duloc.duloc_cells(RECIPE, tmp_path / "out")
    assert CellDataset(tmp_path / "out").sha256 == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mirror", "out"]  # no partial folder


def test_wrong_hash(mirror: Mirror, tmp_path: Path) -> None:
    (mirror.root / "img_comb1/mixed_img2_red.jpg").write_bytes(png(np.zeros((3 * TILE, 3 * TILE), np.uint8)))
    with pytest.raises(DownloadError, match=r"13 of 14 files were had, 1 failed: img_comb1/mixed_img2_red\.jpg.*git blob hash"):
        duloc.duloc_cells(RECIPE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_a_network_it_gives_up_soon(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PCI_MIRROR")
    monkeypatch.setattr(many, "THREADS", 1)
    tried = []

    def fetch(url: str, **options: Any) -> Path:
        tried.append(url)
        if len(tried) > 7:
            threading.Event().wait(0.2)  # as a connection that does not come about; the others are cancelled meanwhile
        if len(tried) > 2:
            raise DownloadError(f"{url} could not be downloaded.")
        return mirror.root / url.removeprefix(f"{duloc.RAW}/")

    monkeypatch.setattr(many, "fetch", fetch)
    with pytest.raises(
        DownloadError, match=r"2 of 14 files were had, [5-9] failed and the others were not tried: .* is kept; run the same again"
    ):
        duloc.duloc_cells(RECIPE, tmp_path / "out")
    assert len(tried) < 14


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("img_comb1/mixed_img2_green.jpg", png(np.zeros((3 * TILE, 2 * TILE), np.uint8)), ImageError, r"is uint8 \(192, 192\)"),
        ("img_comb1/mixed_img2_green.jpg", png(np.zeros((3 * TILE, 3 * TILE), np.uint16)), ImageError, "uint16"),
        ("img_comb1/mixed_img2_green.jpg", png(np.zeros((3 * TILE, 3 * TILE, 3), np.uint8)), ImageError, r"\(192, 192, 3\)"),
        ("img_comb1/mixed_img2_green.jpg", b"no image", ImageError, "mixed_img2_green"),
        ("img_comb1/mixed_img2_blue.jpg", png(np.zeros((3 * TILE, 3 * TILE), np.uint8)), ImageError, "comb1_mixed_img2_r0c0.*no centre"),
        ("img_comb1.csv", b"Id,Target\nmixed_img2,25", CellTableError, "img_comb1.csv is not the expected table"),
        ("img_comb1.csv", b"Id,Target,m_rate\nmixed_img2,99,1_0", CellTableError, "99"),
        ("img_comb1.csv", b"Id,Target,m_rate\nmixed_img2,25,0.5_0.5", CellTableError, "not the expected table"),
        ("img_comb1.csv", b"Id,Target,m_rate\nmixed_img2,25,1_0", DatasetError, "no row for mixed_img10"),
    ],
)  # fmt: skip
def test_unusable_files(mirror: Mirror, tmp_path: Path, name: str, content: bytes, error: type[PCIError], says: str) -> None:
    mirror.put(name, content)
    with pytest.raises(error, match=says):
        duloc.duloc_cells(RECIPE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_recipes_that_do_not_fit(mirror: Mirror, tmp_path: Path) -> None:
    changes: list[tuple[recipes.Recipe, str]] = [
        (RECIPE.replace(fields={"downscale": 3}), "downscale must divide 64"),
        (RECIPE.replace(crop={"size": 20}), "larger than the reduced DULoc cell of 16 px"),
        (RECIPE.replace(crop={"min_cells": 10}), "9 cells, fewer than min_cells = 10"),
        (recipes.load("authors-toy-yeast"), "protein, nucleus, microtubules, not gfp, rfp"),
    ]
    without = recipes.parse(
        {"name": "x", "title": "x", "source": {"kind": "duloc"}, "fields": {"downscale": 4}, "crop": {"size": 8, "resize": 8},
         "channels": [{"name": "protein", "role": "protein"}, {"name": "microtubules", "role": "structural"}]}, "x"
    )  # fmt: skip
    for recipe, says in [*changes, (without, "cut around the nucleus")]:
        with pytest.raises(RecipeError, match=says):
            duloc.duloc_cells(recipe, tmp_path / "out")
    assert duloc.duloc_cells(without.replace(crop={"size": SIDE}), tmp_path / "out").crops.shape == (36, 2, 8, 8)


class Ready:
    """The same cells as ready tiles."""

    def __init__(self, mirror: Mirror, folder: Path) -> None:
        folder.mkdir()
        self.folder, rows, tiles = folder, [], []
        fractions = ("cytosol=1", "cytosol=0.25;nucleoplasm=0.75", "nucleoplasm=1", "nucleoli=0.75;nucleoplasm=0.25")
        for mosaic, text in zip(MOSAICS, fractions, strict=True):
            planes = [mirror.planes[f"{mosaic}_{c}.jpg"] for c in ("green", "blue", "red", "red")]
            for i in range(9):
                tiles.append([tile_of(p, i // 3, i % 3) for p in planes])
                reused = (mosaic, i) in ((MOSAICS[0], 8), (MOSAICS[1], 1))
                rows.append(
                    [*mosaic.split("/"), i // 3, i % 3, 2 if (mosaic, i) == (MOSAICS[1], 1) else 1, text, 7 if reused else 100 + len(rows)]
                )
        self.table = pd.DataFrame(rows, columns=["folder", "id", "tile_row", "tile_col", "n_nuclei", "fractions", "landmark_group"])
        self.tiles = np.array(tiles, np.uint8)
        self.recipe = RECIPE.replace(source={"path": str(folder)})
        self.write()

    def write(self) -> None:
        np.savez_compressed(self.folder / f"tiles_{SIDE}.npz", crops=self.tiles)
        self.table.to_csv(self.folder / "tiles.csv", index=False)


@pytest.fixture
def ready(mirror: Mirror, tmp_path: Path) -> Ready:
    return Ready(mirror, tmp_path / "ready")


def test_ready_tiles_give_the_same_dataset(ready: Ready, tmp_path: Path) -> None:
    assert duloc.duloc_cells(ready.recipe, tmp_path / "a").sha256 == duloc.duloc_cells(RECIPE, tmp_path / "b").sha256


def test_ready_tiles_of_other_combinations_are_not_used(ready: Ready, tmp_path: Path) -> None:
    ready.table.loc[ready.table["folder"] == "img_comb3", "folder"] = "img_comb2"
    ready.write()
    cells = duloc.duloc_cells(ready.recipe, tmp_path / "out")
    assert len(cells) == 27 and "nucleoli;nucleoplasm" not in set(cells.table["location"])


def test_damaged_ready_tiles(ready: Ready, tmp_path: Path) -> None:
    def fails(error: type[PCIError], says: str) -> None:
        with pytest.raises(error, match=says):
            duloc.duloc_cells(ready.recipe, tmp_path / "out")

    table, tiles = ready.table.copy(), ready.tiles.copy()
    ready.table = table.drop(columns="landmark_group")
    ready.write()
    fails(CellTableError, "tiles.csv has no column landmark_group")
    ready.table = table.iloc[:-1]
    ready.write()
    fails(DatasetError, r"one tile for each row")
    ready.table = table.assign(fractions=["cytosol=much", *table["fractions"][1:]])
    ready.write()
    fails(CellTableError, "comb1_mixed_img2 differ in 'fractions'")
    ready.table = table.assign(fractions="golgi=1")
    ready.write()
    fails(CellTableError, "fractions of golgi; known are cytosol")
    ready.table = table.assign(fractions="cytosol")
    ready.write()
    fails(CellTableError, "fractions 'cytosol' cannot be read")
    ready.table, ready.tiles = table, tiles[:, :3]
    ready.write()
    fails(DatasetError, r"uint8 \(36, 3, 16, 16\); expected uint8 \(36, 4, 16, 16\)")
    (ready.folder / f"tiles_{SIDE}.npz").write_bytes(b"PK no archive")
    fails(ImageError, "cannot be read as an archive")
    np.savez(ready.folder / f"tiles_{SIDE}.npz", crops=np.array([{}], object))
    fails(ImageError, "cannot be read as an archive")  # never unpickled
    (ready.folder / f"tiles_{SIDE}.npz").unlink()
    fails(DatasetError, "tiles_16.npz is not there")


def test_run_and_info_know_the_source(mirror: Mirror, tmp_path: Path) -> None:
    run = Run(RECIPE, tmp_path / "runs", quiet=True)
    assert (_expect(RECIPE, run.folder).cells, _expect(RECIPE, run.folder).images) == (36, 4)
    assert len(run.cells()) == 36 and _expect(RECIPE, run.folder).how == "already made"
    with pytest.raises(PCIError, match="fields"):
        run.fields()


def test_the_embedded_recipe_fits_networks_of_simulated_human() -> None:
    human, real = recipes.load("simulated-human"), recipes.load("hpa-duloc")
    assert real.channels == human.channels and real.preprocess == human.preprocess and real.crop.resize == human.crop.resize
    assert real.training.pretrained == "simulated-human" and real.training.width == human.training.width
    assert real.group == "landmark_group" and not real.simulated


def test_packaged_tables() -> None:
    registry = duloc.registry()
    assert len(registry) == 632 and duloc.known_cells() == (1890, 210)
    assert all(len(digest) == 40 and set(digest) <= set("0123456789abcdef") for digest in registry.values())
    assert {p.split("/")[0].removesuffix(".csv") for p in registry} == set(duloc.FOLDERS)
    mosaics = {p.rpartition("_")[0] for p in registry if p.endswith(".jpg")}
    assert all(f"{m}_{c}.jpg" in registry for m in mosaics for c in duloc.COLOURS.values())
    cells = {f"{m.removeprefix('img_').replace('/', '_')}_r{i // 3}c{i % 3}" for m in mosaics for i in range(9)}
    facts = duloc.tile_facts()
    assert set(facts) <= cells and {group for _, group in facts.values()} <= set(facts)


def test_real_ready_tiles(test_data: Path, tmp_path: Path) -> None:
    recipe = recipes.load("hpa-duloc").replace(source={"path": str(test_data / "hpa-duloc")})
    cells = duloc.duloc_cells(recipe, tmp_path / "out")
    assert cells.crops.shape == (1890, 3, 64, 64)
    pure = cells.table[~cells.table["location"].str.contains(";")]
    assert pure["location"].value_counts().to_dict() == {"nucleoplasm": 279, "cytosol": 234, "nucleoli": 45}
    assert cells.table["location"].str.contains(";").sum() == 1215 + 117
    for cell in cells.table.itertuples():  # what the package tells of each cell is what was found in the images
        assert duloc.tile_facts().get(cell.cell_id, (1, cell.cell_id)) == (cell.n_nuclei, cell.landmark_group)
    # the tables that the source publishes say the same fractions
    for folder in duloc.FOLDERS:
        published = duloc._fractions(test_data / "mirror" / duloc.RAW.removeprefix("https://") / f"{folder}.csv")
        for image, rows in cells.table[cells.table["image"].str.startswith(f"{folder.removeprefix('img_')}_")].groupby("image"):
            row = rows.iloc[0]
            expected = published[str(image).partition("_")[2]]
            assert {n: row[f"fraction_{n}"] for n in duloc.LOCATIONS.values() if row[f"fraction_{n}"]} == expected


def test_real_mosaics_give_the_ready_tiles_exactly(test_data: Path) -> None:
    tiles = np.load(test_data / "hpa-duloc" / "tiles_128.npz")["crops"]
    table = pd.read_csv(test_data / "hpa-duloc" / "tiles.csv")
    folder = test_data / "mirror" / duloc.RAW.removeprefix("https://") / "img_comb1"
    names = sorted({p.name.rpartition("_")[0] for p in folder.glob("*.jpg")})
    assert names == ["mixed_img0", "mixed_img100", "mixed_img150", "mixed_img40"]
    for name in names:
        rows = np.flatnonzero((table["folder"] == "img_comb1") & (table["id"] == name))
        for channel, (plane, colour) in enumerate(zip(duloc._PLANES, ("green", "blue", "red", "yellow"), strict=True)):
            found = duloc.mosaic_tiles(folder / f"{name}_{colour}.jpg", 128)
            np.testing.assert_array_equal(found, tiles[rows, channel], err_msg=f"{name} {plane}")
            if plane != "er":
                digest = duloc.registry()[f"img_comb1/{name}_{colour}.jpg"]
                assert git_blob_sha1((folder / f"{name}_{colour}.jpg").read_bytes()) == digest
