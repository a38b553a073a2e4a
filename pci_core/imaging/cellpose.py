"""Cellpose run directly, where it is installed (``pip install "pci-core[cellpose]"``): version 4 (one general model) or 3 (several).

Source: Stringer et al. 2021; Pachitariu & Stringer 2022; Pachitariu et al. 2025 (Cellpose-SAM). Not in the PCI paper.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pci_core.errors import ImageError, RecipeError, WeightsUnavailableError, unknown_name
from pci_core.recipe import Recipe

logger = logging.getLogger(__name__)

NUCLEAR = ("nucleus", "nuclei", "nuclear", "dna", "dapi", "hoechst")  # channels of these names help Cellpose beside the segmented one
_ELSEWHERE = "Or run Cellpose elsewhere, save its masks as PNG or TIFF, and use method = 'labels' with their paths in column 'labels'."


def segment_cellpose(field: np.ndarray, recipe: Recipe, index: int) -> np.ndarray:
    """Find the cells of one field by Cellpose.

    Parameters
    ----------
    field : ndarray
        (C, H, W), raw intensities; Cellpose rescales them to their percentiles 1 and 99.
    recipe : Recipe
        ``[segmentation] model``: a model's name or a file of weights (relative to the recipe), empty = Cellpose's default;
        ``diameter`` of a usual cell in px of the (reduced) field; 0 = left to version 4, which copes with cells of any size.
    index : int
        The channel that is segmented. Where it shows no nuclei and another structural channel is named as one that
        does (`NUCLEAR`), that one goes along as Cellpose's second channel.

    Returns
    -------
    ndarray
        (H, W) int32 labels, nothing filtered; all zero for a channel without contrast.

    Raises
    ------
    RecipeError
        Cellpose is not installed, or its version 3 is not told a diameter.
    UnknownNameError
        It has no model of this name (it would quietly take its default).
    WeightsUnavailableError
        Its weights could not be downloaded or read.
    ImageError
        What it returned is no label image of this field.
    """
    check_cellpose(recipe)
    planes = [field[index], *(field[i] for i in _nucleus(recipe, index))]
    if planes[0].min() == planes[0].max():
        return np.zeros(field.shape[1:], np.int32)
    pixels = np.stack([p.astype(np.float32) for p in planes], axis=-1)
    model, old = _model(_wanted(recipe))
    diameter = recipe.segmentation.diameter or None
    known: dict[str, Any] = {"diameter": diameter}
    if old:  # version 3 asks which plane is which: 0 = grey or none; 1, 2 = first, second
        known["channels"] = [1, 2] if len(planes) == 2 else [0, 0]
    if len(planes) == 2:
        known["channel_axis"] = -1
    masks = np.asarray(model.eval(pixels if len(planes) == 2 else pixels[..., 0], **known)[0])
    if masks.shape != field.shape[1:] or masks.dtype.kind not in "iu" or masks.min() < 0:
        raise ImageError(
            f"Cellpose returned {masks.dtype} of shape {masks.shape} for a field of {field.shape[1]}x{field.shape[2]} px, no label image. "
            f"Its version {cellpose_version()} may have changed; versions 3 and 4 are known. {_ELSEWHERE}"
        )
    return masks.astype(np.int32)


def check_cellpose(recipe: Recipe) -> str:
    """Raise before the work starts where Cellpose is not installed, has no such model or lacks a diameter; else return its version."""
    models = _models()
    if recipe.segmentation.diameter < 0:
        raise RecipeError(f"{recipe.name}: [segmentation] diameter must not be negative, found {recipe.segmentation.diameter:g} px.")
    if _is_old(models) and not recipe.segmentation.diameter:  # its estimate comes as a pickle, which is not opened
        raise RecipeError(
            f"{recipe.name}: Cellpose {cellpose_version()} needs [segmentation] diameter, a usual cell's in px; version 4 does without."
        )
    wanted = _wanted(recipe)
    if wanted and not Path(wanted).is_file():
        listed = [*getattr(models, "MODEL_NAMES", ()), *(models.get_user_models() if hasattr(models, "get_user_models") else ())]
        if wanted not in listed:
            raise unknown_name(f"model of Cellpose {cellpose_version()}", wanted, listed)
    return cellpose_version()


def cellpose_version() -> str:
    """Return the version of the installed Cellpose, ``unknown`` where it tells none."""
    try:
        return importlib.metadata.version("cellpose")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _wanted(recipe: Recipe) -> str:
    name = recipe.segmentation.model
    file = (recipe.folder or Path()) / name
    return str(file) if name and file.is_file() else name


def _nucleus(recipe: Recipe, index: int) -> list[int]:
    names = [c.name.lower() for c in recipe.channels]
    if names[index] in NUCLEAR or recipe.segmentation.model == "nuclei":
        return []
    return [i for i, c in enumerate(recipe.channels) if c.role == "structural" and names[i] in NUCLEAR][:1]


def _is_old(models: Any) -> bool:
    return hasattr(models, "Cellpose")  # version 3; gone in 4


def _models() -> Any:
    try:
        return importlib.import_module("cellpose.models")
    except (ImportError, RuntimeError, OSError) as error:  # the last two: PyTorch and torchvision that do not fit
        raise RecipeError(
            f"[segmentation] method = 'cellpose' needs Cellpose, which cannot be imported ({error}). Run "
            f"'pip install \"pci-core[cellpose]\"'. {_ELSEWHERE}"
        ) from error


@functools.lru_cache(maxsize=1)
def _model(wanted: str) -> tuple[Any, bool]:
    """Return the model, kept for the next fields, and whether it is of version 3."""
    models = _models()
    logger.info("Cellpose %s, model %s, loaded once for each process", cellpose_version(), wanted or "as its default")
    try:
        with _plain_weights_only():
            return models.CellposeModel(gpu=True, **({"pretrained_model": wanted} if wanted else {})), _is_old(models)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise WeightsUnavailableError(
            f"Cellpose cannot load its model {wanted or '(default)'} ({type(error).__name__}: {error}). It downloads weights at first "
            f"use: check the network, or put the file into its folder (~/.cellpose/models). {_ELSEWHERE}"
        ) from error


@contextlib.contextmanager
def _plain_weights_only() -> Iterator[None]:
    """Keep older versions of PyTorch from running the pickle that a file of weights may hold."""
    key = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before
