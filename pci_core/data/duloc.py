"""Real cells of the Human Protein Atlas with known fractions, from the public repository of DULoc at one commit.

Xue et al. (Bioinformatics, 2021) cut single cells out of fields of the atlas, blackened what is not the cell,
summed pairs of aligned cells with known weights, and laid nine cells to a mosaic, one JPEG a channel. Here the
mosaics are cut into their cells again; ``duloc_mosaics.tsv`` has the hash of every file, ``duloc_tiles.tsv`` what
the source does not tell: cells with other than one nucleus, and cells that occur more than once.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL
from skimage.filters import threshold_otsu
from tqdm import tqdm

import pci_core
from pci_core.cells import CellDataset, CellWriter
from pci_core.data.many import fetch_all
from pci_core.errors import CellTableError, DatasetError, ImageError, RecipeError
from pci_core.imaging.crop import resize_crops
from pci_core.imaging.read import read_pixels
from pci_core.reading import read_csv, refusing
from pci_core.recipe import Recipe
from pci_core.unpacking import check_growth

COMMIT = "dee6822d854498e47a10315275738a30bd01fd60"
RAW = f"https://raw.githubusercontent.com/PRBioimages/DULoc/{COMMIT}/part1-Dataset/Synthetic_dataset/data"
TERMS_OF_USE = "Images: Human Protein Atlas, proteinatlas.org, CC BY-SA; cells and mixtures: DULoc, Xue et al., Bioinformatics 2021."
FOLDERS = ("img_comb1", "img_comb3")  # cytosol + nucleoplasm, nucleoli + nucleoplasm
COLOURS = {"protein": "green", "nucleus": "blue", "microtubules": "red"}
LOCATIONS = {"25": "cytosol", "0": "nucleoplasm", "2": "nucleoli"}  # the source writes the codes of HPA's Kaggle contest
GRID, TILE = 3, 512  # cells a row and column of a mosaic; side of a cell, px
_PLANES = ("protein", "nucleus", "microtubules", "er")  # of ready tiles
_COLUMNS = ("folder", "id", "tile_row", "tile_col", "n_nuclei", "fractions", "landmark_group")


@lru_cache(maxsize=1)
def registry() -> dict[str, str]:
    """Return git's SHA-1 of each file that is used, by its path under the source's data folder."""
    lines = (resources.files("pci_core") / "data" / "duloc_mosaics.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return dict(line.split("\t") for line in lines)


@lru_cache(maxsize=1)
def tile_facts() -> dict[str, tuple[int, str]]:
    """Return number of nuclei and landmark group of the cells that differ from the rule (one nucleus, a group of its own)."""
    lines = (resources.files("pci_core") / "data" / "duloc_tiles.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return {cell: (int(nuclei), group) for cell, nuclei, group in (line.split("\t") for line in lines)}


def known_cells() -> tuple[int, int]:
    """Return how many cells and mosaics the download holds."""
    mosaics = sum(path.endswith(f"_{COLOURS['protein']}.jpg") for path in registry())
    return mosaics * GRID**2, mosaics


def duloc_cells(recipe: Recipe, out: str | os.PathLike[str], progress: bool = False) -> CellDataset:
    """Make a CellDataset of real cells whose protein lies in one or two compartments at a known fraction.

    Parameters
    ----------
    recipe : Recipe
        Channels out of ``protein``, ``nucleus`` and ``microtubules``. ``fields.downscale`` reduces the source's
        tiles of 512 px by local means. ``crop.size`` is the side, px of the reduced tile, of a square around the
        centre of the nucleus; what of it lies beyond the tile is black, as is all that is not the cell. A
        ``crop.size`` of the whole tile's side takes the tile as it is. ``crop.resize``: side of the stored crop.
        ``source.path``: a folder with ready tiles (``tiles_<side>.npz``, ``tiles.csv``) instead of the download.
    out : path-like
        Folder of the dataset; an older one is replaced at the end.
    progress : bool
        Show progress bars on stderr.

    Returns
    -------
    CellDataset
        uint8 crops (N, C, H, W). ``image`` is the mosaic: its cells share their location, and nothing else is
        known of their proteins. ``location`` is one term, or two joined by ``;`` for sums of two cells;
        ``fraction_cytosol``, ``fraction_nucleoplasm`` and ``fraction_nucleoli`` are the weights, in [0, 1], sum 1.
        ``landmark_group`` is equal for crops that reuse one cell; ``n_nuclei`` counts nuclei, 1 for nearly all.

    Raises
    ------
    DownloadError
        Files cannot be had or are not those of the registry. Those that were had are kept for the next attempt.
    ImageError
        A mosaic has another size or type, its nucleus channel is empty, or the ready tiles are damaged.
    CellTableError, DatasetError
        The table of ready tiles lacks columns, does not fit them, or names fractions that cannot be read.
    RecipeError
        The recipe names other channels or an impossible size.
    """
    side = _check_recipe(recipe)
    names = [c.name for c in recipe.channels]
    where: dict[str, Any] = {"kind": "duloc", "terms": TERMS_OF_USE}
    if recipe.source.path:
        folder = (recipe.folder or Path()) / recipe.source.path
        where["path"] = folder.name  # not where it lies: that differs between machines
        n, blocks = _ready(folder, names, side)
    else:
        where |= {"url": RAW, "commit": COMMIT}
        n, blocks = _downloaded(names, side, progress)
    info = {
        "recipe": recipe.name,
        "simulated": False,
        "source": where,
        "versions": {"pci_core": pci_core.__version__, "numpy": np.__version__, "pillow": PIL.__version__},
    }
    um = recipe.fields.um_per_px * recipe.fields.downscale * recipe.crop.size / recipe.crop.resize or None
    with CellWriter(out, recipe.channels, um, rule=recipe.crop.rule, **info) as writer:
        for tiles, table in tqdm(blocks, total=n, desc="hpa-duloc", unit=" mosaics", disable=not progress):
            writer.add(resize_crops(_cut(tiles, names, recipe.crop.size, table), recipe.crop.resize), table)
    return CellDataset(out)


def mosaic_tiles(path: str | os.PathLike[str], side: int) -> np.ndarray:
    """Cut one channel of a mosaic into its nine cells, row by row.

    Parameters
    ----------
    path : path-like
        A grey image of 1536x1536 px, 8 bits.
    side : int
        Side of the tiles that are returned; a divisor of 512.

    Returns
    -------
    ndarray
        (9, side, side) uint8: means over squares of pixels, rounded half to even.

    Raises
    ------
    ImageError
        The file cannot be read or is no such image.
    """
    plane = read_pixels(path)
    if plane.shape != (GRID * TILE, GRID * TILE) or plane.dtype != np.uint8:
        raise ImageError(
            f"{path} is {plane.dtype} {plane.shape}; a mosaic of DULoc is uint8 ({GRID * TILE}, {GRID * TILE}). Fetch the file again."
        )
    tiles = plane.reshape(GRID, TILE, GRID, TILE).swapaxes(1, 2).reshape(GRID**2, 1, TILE, TILE)
    return resize_crops(tiles, side)[:, 0]


def _check_recipe(recipe: Recipe) -> int:
    """Return the side of the reduced tile."""
    if unknown := [c.name for c in recipe.channels if c.name not in COLOURS]:
        raise RecipeError(f"{recipe.name}: the DULoc cells have the channels {', '.join(COLOURS)}, not {', '.join(unknown)}.")
    if TILE % recipe.fields.downscale:
        raise RecipeError(f"{recipe.name}: fields downscale must divide {TILE}, the side of a DULoc cell; found {recipe.fields.downscale}.")
    side = TILE // recipe.fields.downscale
    if recipe.crop.size > side:
        raise RecipeError(f"{recipe.name}: crop size {recipe.crop.size} is larger than the reduced DULoc cell of {side} px. Lower it.")
    if recipe.crop.size < side and "nucleus" not in {c.name for c in recipe.channels}:
        raise RecipeError(f"{recipe.name}: a crop size below {side} px is cut around the nucleus. Add that channel, or cut {side} px.")
    if recipe.crop.min_cells > GRID**2:
        raise RecipeError(f"{recipe.name}: every DULoc mosaic has {GRID**2} cells, fewer than min_cells = {recipe.crop.min_cells}.")
    return side


def _cut(tiles: np.ndarray, names: list[str], size: int, table: pd.DataFrame) -> np.ndarray:
    """Cut a square of `size` px around the centre of each cell's nucleus out of (n, C, S, S)."""
    side = tiles.shape[-1]
    if size == side:
        return tiles
    out = np.empty((*tiles.shape[:2], size, size), tiles.dtype)
    margin = size  # black, as the source is outside of a cell; the centre lies within the tile
    padded = np.pad(tiles, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    for i, (tile, nucleus) in enumerate(zip(padded, tiles[:, names.index("nucleus")], strict=True)):
        mask = nucleus > threshold_otsu(nucleus)
        if not mask.any():
            raise ImageError(f"cell {table['cell_id'].iloc[i]}: the nucleus channel is constant, so there is no centre to cut around.")
        y, x = (int(np.rint(v.mean())) + margin - size // 2 for v in np.nonzero(mask))
        out[i] = tile[:, y : y + size, x : x + size]
    return out


def _mosaics() -> list[str]:
    return [p.removesuffix(f"_{COLOURS['protein']}.jpg") for p in registry() if p.endswith(f"_{COLOURS['protein']}.jpg")]


def fetch_mosaics(progress: bool = False, names: Iterable[str] = tuple(COLOURS)) -> dict[str, Path]:
    """Fetch the tables and the mosaics of the named channels, each checked; return their local paths.

    Raises
    ------
    DownloadError
        See `pci_core.data.many.fetch_all`.
    """
    wanted = [*(f"{folder}.csv" for folder in FOLDERS), *(f"{m}_{COLOURS[n]}.jpg" for m in _mosaics() for n in names)]
    return fetch_all({path: (f"{RAW}/{path}", f"gitblob:{registry()[path]}") for path in wanted}, "hpa-duloc", progress)


def _downloaded(names: list[str], side: int, progress: bool) -> tuple[int, Iterator[tuple[np.ndarray, pd.DataFrame]]]:
    """Fetch all mosaics and return their number and a generator over them."""
    mosaics = _mosaics()
    files = fetch_mosaics(progress, names)
    known = {folder: _fractions(files[f"{folder}.csv"]) for folder in FOLDERS}

    def blocks() -> Iterator[tuple[np.ndarray, pd.DataFrame]]:
        for mosaic in mosaics:
            folder, name = mosaic.split("/")
            if name not in known[folder]:
                raise DatasetError(f"{files[f'{folder}.csv']} has no row for {name}, so its fractions are not known. Correct the registry.")
            image = _image(folder, name)
            cells = [f"{image}_r{i // GRID}c{i % GRID}" for i in range(GRID**2)]
            facts = [tile_facts().get(cell, (1, cell)) for cell in cells]
            tiles = np.stack([mosaic_tiles(files[f"{mosaic}_{COLOURS[n]}.jpg"], side) for n in names], axis=1)
            yield tiles, _table(image, cells, known[folder][name], [n for n, _ in facts], [g for _, g in facts])

    return len(mosaics), blocks()


def _fractions(path: Path) -> dict[str, dict[str, float]]:
    """Read the source's table: mosaic -> location -> fraction, e.g. codes ``25 0`` and rates ``0.25_0.75``."""
    with refusing(path, CellTableError, "is not the expected table of mosaics", "Fetch it again."):
        rows = read_csv(path, dtype=str, keep_default_na=False)
    out = {}
    try:
        for name, codes, rates in zip(rows["Id"], rows["Target"], rows["m_rate"], strict=True):
            values = [float(r) for r in rates.split("_") if float(r)]  # a pure cell has one code and the rates 1_0 or 0_1
            out[name] = dict(zip((LOCATIONS[c] for c in codes.split()), values, strict=True))
    except (KeyError, ValueError) as error:
        raise CellTableError(f"{path} is not the expected table of mosaics ({error!r}). Fetch it again.") from error
    return out


def _ready(folder: Path, names: list[str], side: int) -> tuple[int, Iterator[tuple[np.ndarray, pd.DataFrame]]]:
    """Check the ready tiles and return the number of mosaics and a generator over them."""
    tiles_path, table_path = folder / f"tiles_{side}.npz", folder / "tiles.csv"
    for path in (tiles_path, table_path):
        if not path.is_file():
            raise DatasetError(f"{path} is not there. Correct 'path' in the recipe's [source], or leave it out to download the mosaics.")
    what = "cannot be read as an archive with the array 'crops'"
    with refusing(tiles_path, ImageError, what, "Copy it again."), zipfile.ZipFile(tiles_path) as archive:
        check_growth(archive.getinfo("crops.npy").file_size, tiles_path.stat().st_size)
    with refusing(tiles_path, ImageError, what, "Copy it again."), np.load(tiles_path, allow_pickle=False) as content:
        tiles = content["crops"]
    with refusing(table_path, CellTableError, "cannot be read as the table of the tiles", "Copy it again."):
        table = read_csv(table_path, dtype={"landmark_group": str, "folder": str, "id": str, "fractions": str})
    if missing := [c for c in _COLUMNS if c not in table]:
        raise CellTableError(f"{table_path} has no column {', '.join(missing)} (found: {', '.join(table)}). Copy it again.")
    if tiles.shape != (len(table), len(_PLANES), side, side) or tiles.dtype != np.uint8:
        raise DatasetError(
            f"{tiles_path} holds {tiles.dtype} {tiles.shape}; expected uint8 ({len(table)}, {len(_PLANES)}, {side}, {side}), one tile "
            f"for each row of {table_path.name}. Copy both again."
        )
    wanted = [_PLANES.index(n) for n in names]
    table["image"] = [_image(f, i) for f, i in zip(table["folder"], table["id"], strict=True)]
    table["cell_id"] = [f"{i}_r{r}c{c}" for i, r, c in zip(table["image"], table["tile_row"], table["tile_col"], strict=True)]
    table = table[table["folder"].isin(FOLDERS)]
    # named by its first cell, so that the same cells make the same dataset whichever way they came
    table["landmark_group"] = table.groupby("landmark_group")["cell_id"].transform("first")

    def blocks() -> Iterator[tuple[np.ndarray, pd.DataFrame]]:
        for image, rows in table.groupby("image", sort=False):
            if rows["fractions"].nunique() > 1:
                raise CellTableError(f"{table_path}: the cells of mosaic {image} differ in 'fractions'. Copy the table again.")
            fractions = _parse_fractions(str(rows["fractions"].iloc[0]), f"{table_path}, mosaic {image}")
            made = _table(str(image), rows["cell_id"], fractions, rows["n_nuclei"], rows["landmark_group"])
            yield tiles[rows.index][:, wanted], made

    return table["image"].nunique(), blocks()


def _parse_fractions(text: str, where: str) -> dict[str, float]:
    """Read ``cytosol=0.25;nucleoplasm=0.75``."""
    try:
        out = {name: float(value) for name, value in (part.split("=") for part in text.split(";"))}
    except ValueError as error:
        raise CellTableError(f"{where}: fractions '{text}' cannot be read; expected e.g. cytosol=0.25;nucleoplasm=0.75.") from error
    if unknown := set(out) - set(LOCATIONS.values()):
        raise CellTableError(f"{where}: fractions of {', '.join(sorted(unknown))}; known are {', '.join(LOCATIONS.values())}.")
    return out


def _image(folder: str, name: str) -> str:
    return f"{folder.removeprefix('img_')}_{name}"


def _table(image: str, cells: Iterable[str], fractions: dict[str, float], nuclei: Iterable[int], groups: Iterable[str]) -> pd.DataFrame:
    columns: dict[str, Any] = {
        "cell_id": list(cells),
        "image": image,
        "location": ";".join(fractions),
        "field": image,
        **{f"fraction_{name}": fractions.get(name, 0.0) for name in LOCATIONS.values()},
        "landmark_group": list(groups),
        "n_nuclei": list(nuclei),
    }
    return pd.DataFrame(columns)
