"""The toy sets and pretrained weights of the paper's authors, from their public archive at one commit.

The archive's own hash is not stable, so each file is verified by git's SHA-1 of its content, listed in
``authors_registry.tsv``. One folder of the archive is one image in the paper's sense: its cells may be paired.
"""

from __future__ import annotations

import io
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from tqdm import tqdm

import pci_core
from pci_core.cells import CellDataset, CellWriter
from pci_core.data.archives import ZipReader, open_zip
from pci_core.data.download import discard, fetch, git_blob_sha1
from pci_core.errors import DatasetError, DownloadError, ImageError, RecipeError, unknown_name
from pci_core.recipe import Recipe

COMMIT = "f9d758315f99b1d680718ad186c26a41fbd7922b"
REPOSITORY = "https://github.com/alexxijielu/paired_cell_inpainting"
ARCHIVE = f"{REPOSITORY}/archive/{COMMIT}.zip"
RAW = f"https://raw.githubusercontent.com/alexxijielu/paired_cell_inpainting/{COMMIT}"
WEIGHTS = {
    "yeast": "yeast_model/pretrained_weights/model_weights.h5",
    "human": "human_model/pretrained_weights/model_weights.h5",
    "human-filtered": "human_model/pretrained_weights/filtered_model_weights.h5",
}


@dataclass(frozen=True)
class _Subset:
    folder: str
    channels: tuple[str, ...]
    cell: re.Pattern[str]  # file name without channel: field, cell number
    image: re.Pattern[str]  # folder name: protein, and plate and well where it tells them
    terms: str


# Two pairs of the five yeast proteins share a compartment, so that nobody could tell all five apart by where
# they are. The terms are those of the Gene Ontology (cellular component, gene sets of 2018).
YEAST_LOCATIONS = {"AAC1": "mitochondrion", "AAC3": "mitochondrion", "AAH1": "nucleus", "AAP1": "nucleus", "AAR2": "U5 snRNP"}

# Human folders and files: A4GALT_1645_H1_6 and 1645_H1_6_cr57b5683c9a8ca_17_green.tif, A1CF_762_F2 and 762_F2_1_10_green.tif.
SUBSETS = {
    "yeast": _Subset(
        folder="yeast_model/toy_dataset/images",
        channels=("gfp", "rfp"),
        cell=re.compile(r"(?P<field>.+?)(?:_rfp)?_(?P<number>\d+)"),
        image=re.compile(r"(?P<protein>.+)"),
        terms="From the paper's public code repository, whose licence is GPL-2.0; no separate terms are given for the yeast images.",
    ),
    "human": _Subset(
        folder="human_model/toy_dataset",
        channels=("green", "blue", "red"),
        cell=re.compile(r"(?P<field>.+)_(?P<number>\d+)"),
        image=re.compile(r"(?P<protein>[^_]+)_(?P<plate>\d+)_(?P<well>[A-Z]\d+)(?:_.*)?"),
        terms="Images: Human Protein Atlas, proteinatlas.org, CC BY-SA; crops from the paper's public code repository (GPL-2.0).",
    ),
}


@lru_cache(maxsize=1)
def registry() -> dict[str, str]:
    """Return git's SHA-1 of each file that this package uses, by its path in the authors' repository."""
    lines = (resources.files("pci_core") / "data" / "authors_registry.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return dict(line.split("\t") for line in lines)


def toy_size(subset: str) -> tuple[int, int]:
    """Return how many cells and images (in the paper's sense) the archive holds of a toy set, before any filter."""
    if subset not in SUBSETS:
        raise unknown_name("toy set", subset, SUBSETS)
    known = SUBSETS[subset]
    cells = [p for p in registry() if p.startswith(f"{known.folder}/") and p.endswith(f"_{known.channels[0]}.tif")]
    return len(cells), len({p.rsplit("/", 2)[1] for p in cells})


def pretrained(name: str, progress: bool = False) -> Path:
    """Return the authors' pretrained Keras weights (HDF5) as a local file, verified.

    Parameters
    ----------
    name : str
        ``"yeast"``, ``"human"``, or ``"human-filtered"`` (trained without proteins that vary between cells).
    progress : bool
        Show a progress bar.

    Raises
    ------
    UnknownNameError
        Another name.
    DownloadError
        See `pci_core.data.download.fetch`.
    """
    if name not in WEIGHTS:
        raise unknown_name("pretrained weights", name, WEIGHTS)
    return fetch(f"{RAW}/{WEIGHTS[name]}", known_hash=f"gitblob:{registry()[WEIGHTS[name]]}", progress=progress)


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts ``cell_2`` before ``cell_10``."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def toy_cells(subset: str, recipe: Recipe, out: str | os.PathLike[str], progress: bool = False) -> CellDataset:
    """Make a CellDataset of one of the authors' toy sets: real cells, crops ready made.

    Parameters
    ----------
    subset : str
        ``"yeast"`` (five proteins, GFP and cytosolic RFP) or ``"human"`` (three proteins with nucleus and
        microtubules, Human Protein Atlas).
    recipe : Recipe
        Gives the order of the channels, by the names in the files (``gfp``, ``rfp``; ``green``, ``blue``,
        ``red``), the side of the files' crops (``crop.size``) and of the stored ones (``crop.resize``, the
        mean over blocks of pixels) and the smallest number of cells of an image (``crop.min_cells``).
    out : path-like
        Folder of the dataset; an older one is replaced at the end.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    CellDataset
        float32 crops (N, C, H, W) as stored by the authors, within [0, 1] of the camera's or file's full range.
        Images that were left out stand in ``info["left_out"]``.

    Raises
    ------
    DownloadError
        The archive cannot be had, or a file in it is missing or not the one of the registry.
    ImageError
        A channel of a cell is missing, or an image is no float32 TIFF of the expected side.
    RecipeError
        The recipe names other channels or an impossible reduction.
    """
    if subset not in SUBSETS:
        raise unknown_name("toy set", subset, SUBSETS)
    channels = [c.name for c in recipe.channels]
    if unknown := [c for c in channels if c not in SUBSETS[subset].channels]:
        raise RecipeError(
            f"{recipe.name}: the {subset} toy set has the channels {', '.join(SUBSETS[subset].channels)}, not {', '.join(unknown)}."
        )
    if recipe.crop.size % recipe.crop.resize:
        raise RecipeError(
            f"{recipe.name}: crop resize must divide crop size for the toy sets, found {recipe.crop.size} and {recipe.crop.resize}."
        )
    images = _images(subset, channels)
    kept = {image: cells for image, cells in images.items() if len(cells) >= recipe.crop.min_cells}
    left = {image: len(cells) for image, cells in images.items() if image not in kept}
    if not kept:
        raise DatasetError(f"{recipe.name}: every image has fewer than {recipe.crop.min_cells} cells ({left}). Lower crop.min_cells.")
    archive = fetch(ARCHIVE, known_hash=None, progress=progress)
    info: dict[str, Any] = {
        "recipe": recipe.name,
        "simulated": False,
        "source": {"kind": "authors", "subset": subset, "url": ARCHIVE, "commit": COMMIT, "terms": SUBSETS[subset].terms},
        "versions": {"pci_core": pci_core.__version__, "numpy": np.__version__, "tifffile": tifffile.__version__},
        "left_out": {"images_below_min_cells": left, "cells": sum(left.values())},
    }
    um_per_px = recipe.fields.um_per_px * recipe.crop.size / recipe.crop.resize or None
    try:
        with open_zip(archive) as reader, CellWriter(out, recipe.channels, um_per_px, rule=recipe.crop.rule, **info) as writer:
            members = {name.partition("/")[2]: name for name in reader.names}  # all lie in one folder named by the commit
            for image, cells in tqdm(kept.items(), desc=f"{subset} toy set", unit="image", disable=not progress):
                crops = [[_plane(reader, members, files[c], recipe) for c in channels] for files in cells.values()]
                writer.add(np.array(crops, np.float32), _table(subset, image, list(cells)))
    except DownloadError:
        discard(archive)  # its content is wrong; the next attempt must not find it in the cache
        raise
    return CellDataset(out)


def _images(subset: str, channels: list[str]) -> dict[str, dict[str, dict[str, str]]]:
    """Group the registry's paths: image -> cell -> channel -> path, in natural order."""
    images: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for path in sorted(registry(), key=natural_key):
        parts = PurePosixPath(path)
        if str(parts.parent.parent) == SUBSETS[subset].folder and parts.suffix == ".tif":
            cell, _, channel = parts.stem.rpartition("_")
            images[parts.parent.name][cell][channel] = path
    for image, cells in images.items():
        for cell, files in cells.items():
            if missing := [c for c in channels if c not in files]:
                raise ImageError(
                    f"cell {cell} of {SUBSETS[subset].folder}/{image} has no file {cell}_{missing[0]}.tif "
                    f"(found: {', '.join(sorted(files))}). Leave that channel out of the recipe, or the cell out of the registry."
                )
    return images


def _plane(reader: ZipReader, members: dict[str, str], path: str, recipe: Recipe) -> np.ndarray:
    """Return one verified channel of a cell, (resize, resize) float32."""
    if path not in members:
        raise DownloadError(f"{path} is not in the authors' archive ({ARCHIVE}). Fetch it again, or correct the mirror.")
    content = reader.read(members[path])
    found = git_blob_sha1(content)
    if found != registry()[path]:
        raise DownloadError(f"{path} in the authors' archive has git blob hash {found}, expected {registry()[path]}. Fetch it again.")
    try:
        plane = tifffile.imread(io.BytesIO(content))
        if not plane.size:
            raise ValueError("no image in it")
    except (tifffile.TiffFileError, ValueError, KeyError, OSError) as error:
        raise ImageError(f"{path} cannot be read as TIFF ({error}). Leave that cell out of the registry.") from error
    size, small = recipe.crop.size, recipe.crop.resize
    if plane.shape != (size, size) or plane.dtype != np.float32:
        raise ImageError(
            f"{path} is {plane.dtype} {plane.shape}; expected float32 ({size}, {size}). Set the recipe's crop.size to the files' side."
        )
    if size == small:
        return plane
    # Halving by the mean of 2x2 px is what bilinear scaling without smoothing does, as in the authors' code.
    step = size // small
    out: np.ndarray = plane.reshape(small, step, small, step).mean((1, 3), dtype=np.float64).astype(np.float32)
    return out


def _table(subset: str, image: str, cells: list[str]) -> pd.DataFrame:
    known = SUBSETS[subset].image.fullmatch(image)
    if known is None:
        raise ImageError(f"{SUBSETS[subset].folder}/{image}: the folder's name does not tell the protein. Correct the registry.")
    fields = [SUBSETS[subset].cell.fullmatch(cell) for cell in cells]
    return pd.DataFrame(
        {
            "cell_id": cells,
            "image": image,
            **known.groupdict(),
            "location": YEAST_LOCATIONS.get(known["protein"], "") if subset == "yeast" else "",
            "field": [m["field"] if m else cell for m, cell in zip(fields, cells, strict=True)],
        }
    )
