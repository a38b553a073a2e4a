"""Networks in Keras' HDF5 form, of the paper's authors or of anybody who ran their code, as files of ours.

The same weights as safetensors, with a card of what is known of them: where the file came from, what it was trained on,
which channels it takes. What nobody has written down is called unknown. A file is converted once and kept in the cache.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pci_core
from pci_core.data import authors
from pci_core.data.download import cache_folder
from pci_core.errors import CheckpointError, unknown_name
from pci_core.provenance import Parent, record
from pci_core.reading import is_file
from pci_core.recipe import Recipe
from pci_core.storage import file_sha256, locked
from pci_core.weights import SUFFIX, import_keras, load_safetensors, refuse_pickle, save_safetensors

KERAS = (".h5", ".hdf5")
FORMAT = 1  # raise it when the conversion or its card changes: files in the cache are then made anew
PREFIX = "authors-"
UNKNOWN = "unknown"

# By numbers of protein and structural channels: what the authors' two networks take, in this order, and other names
# under which the same markers are known. Rescaling: "Datasets, Preprocessing, and Training", and the authors' code.
_CHANNELS: dict[tuple[int, int], list[dict[str, Any]]] = {
    (1, 1): [
        {"name": "gfp", "role": "protein", "also": ["protein", "green"]},
        {"name": "rfp", "role": "structural", "also": ["red", "cytosol"]},
    ],
    (1, 2): [
        {"name": "protein", "role": "protein", "also": ["green", "gfp", "antibody"]},
        {"name": "nucleus", "role": "structural", "also": ["blue", "nuclei", "dapi", "hoechst", "dna"]},
        {"name": "microtubules", "role": "structural", "also": ["red", "microtubule", "tubulin"]},
    ],
}
_PREPROCESS: dict[tuple[int, int], dict[str, Any]] = {
    (1, 1): {"protein": "minmax", "structural": "minmax"},
    (1, 2): {"protein": "minmax", "structural": "clip", "floor": 0.05},
}

_LICENCE = (
    "The repository's licence is GPL-2.0; it gives no separate terms for the weights. They are fetched from there and are no part of "
    "this package. Cite Lu et al. 2019, doi.org/10.1371/journal.pcbi.1007348."
)
_TRAINING = {  # of the paper; beta1 and flips from the authors' code, hardware from their README
    "epochs": 30,
    "optimizer": "Adam",
    "learning_rate": 1e-4,
    "beta1": 0.5,
    "augmentation": "random horizontal and vertical flips of source and target, each for itself",
    "hardware": "Tesla K40c",
    "seed": UNKNOWN,
    "loss": UNKNOWN,
}
_HPA = "Human Protein Atlas, version 18: immunofluorescence of human cell lines"
_HUMAN_BATCH = f"{UNKNOWN} (4 in the published script, a value for the toy set)"
_CLIPPED = "crops of 512 px at the full size of the images (0.08 µm/px) scaled to 64 px"

AUTHORS: dict[str, dict[str, Any]] = {
    "authors-yeast": {
        "data": "CyCLOPS WT2: live yeast, GFP fusions of one protein each, cytosolic RFP as structural marker; crops of 64 px",
        "cells": 1_165_713,
        "images": 4_069,
        "proteins": 4_069,
        "um_per_px": None,  # the paper does not say
        "training": {**_TRAINING, "batch_size": 64},
    },
    "authors-human": {
        "data": f"{_HPA}, nuclei and microtubules as structural markers; {_CLIPPED}",
        "cells": 638_640,
        "images": 41_285,
        "proteins": 11_995,
        "um_per_px": 0.64,
        "training": {**_TRAINING, "batch_size": _HUMAN_BATCH},
    },
    "authors-human-filtered": {
        "data": f"{_HPA}, without proteins that vary between cells; {_CLIPPED}",
        "cells": UNKNOWN,
        "images": UNKNOWN,
        "proteins": UNKNOWN,
        "um_per_px": 0.64,
        "training": {
            **_TRAINING,
            "batch_size": _HUMAN_BATCH,
            "note": "not described for this network; the values are those of authors-human",
        },
        "note": "Not the network of the paper's figures; the authors' README finds its features better than those of authors-human.",
    },
}


def fetched(name: str, progress: bool = False) -> Path:
    """Return the HDF5 file of one of `AUTHORS`, downloaded from the authors' repository at one commit and verified.

    Raises
    ------
    DownloadError
        It cannot be had, or is not the file of that commit.
    """
    return authors.pretrained(name.removeprefix(PREFIX), progress=progress)


def known_card(name: str) -> dict[str, Any]:
    """Return what is known of one of `AUTHORS` without its file: data, training, channels, source, licence."""
    known = copy.deepcopy(AUTHORS[name])
    shape = (1, 1) if name == "authors-yeast" else (1, 2)
    path = authors.WEIGHTS[name.removeprefix(PREFIX)]
    known["source"] = {
        "url": f"{authors.RAW}/{path}",
        "repository": authors.REPOSITORY,
        "commit": authors.COMMIT,
        "file": path,
        "git_blob_sha1": authors.registry()[path],
    }
    return {
        "pretrained": name,
        "simulated": False,
        **known,
        "channels": copy.deepcopy(_CHANNELS[shape]),
        "preprocess": dict(_PREPROCESS[shape]),
        "crop": [64, 64],
        "licence": _LICENCE,
    }


def describe(
    path: str | os.PathLike[str], channels: Sequence[str] | None = None, recipe: Recipe | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a Keras file and return its weights with the card that goes with them.

    Parameters
    ----------
    path : path-like
        HDF5 of ``model.save`` or ``save_weights``, see `pci_core.keras_h5.read_keras_h5`.
    channels : sequence of str, optional
        Names of its channels, the protein's first. Default: those of the recipe, else those that the authors' network of as
        many channels takes.
    recipe : Recipe, optional
        Whose channels and preprocessing the network was trained with.

    Returns
    -------
    state : dict of str to Tensor
        Of `PairedCellInpainting`, float32.
    card : dict
        An authors' file is known by its git hash, whatever its name here. Nothing in it depends on the time or the machine.

    Raises
    ------
    CheckpointError
        See `read_keras_h5`; or the channels do not fit in number or role, or nobody has said how the cells were rescaled.
    """
    path = Path(path)
    refuse_pickle(path)
    state, facts = import_keras(path)
    shape = (facts["n_protein"], facts["n_structural"])
    blob = _git_blob_sha1(path)
    name = next((n for n in AUTHORS if authors.registry()[authors.WEIGHTS[n.removeprefix(PREFIX)]] == blob), None)
    source = {"file": facts["file"], "sha256": facts["file_sha256"], "git_blob_sha1": blob, "bytes": path.stat().st_size}
    card: dict[str, Any] = {
        "simulated": UNKNOWN, "data": UNKNOWN, "cells": UNKNOWN, "images": UNKNOWN, "um_per_px": None, "crop": None, "training": UNKNOWN,
        "licence": UNKNOWN,
    }  # fmt: skip
    if name is not None:
        card = known_card(name)
        source |= card["source"]
    card |= {"channels": _channels(path, shape, channels, recipe), "preprocess": _preprocess(path, shape, name, recipe)}
    if name is None and recipe is None:
        what = "rescaling" if channels else "channel names and rescaling"
        card["assumed"] = f"{what} as in the authors' network of {shape[0]} + {shape[1]} channels; the file does not say"
    return state, {
        **card,
        "name": "pci",
        "architecture": {"kind": "pci", "n_protein": shape[0], "n_structural": shape[1], "width": facts["width"]},
        "source": source,
        "import": {k: facts[k] for k in ("batchnorm", "keras_version", "target_prefix")},
        "versions": {"pci_core": pci_core.__version__},
        "provenance": record("weights", name or path.stem, parents=(Parent(path.name, facts["file_sha256"]),)).plain(),
    }


def import_weights(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    channels: Sequence[str] | None = None,
    recipe: Recipe | None = None,
    progress: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Convert a Keras file into a ``.safetensors`` of the form that training writes: encoder, target encoder and decoder.

    Parameters
    ----------
    source : str or path-like
        A file, or a name of `AUTHORS` (downloaded and verified).
    out : path-like, optional
        Default: beside the file under its stem; for a name, ``<name>.safetensors`` in the current folder. An older file is
        replaced once the new one is whole.
    channels, recipe
        See `describe`.
    progress : bool
        Show a progress bar while downloading.

    Returns
    -------
    path : Path
    card : dict

    Raises
    ------
    CheckpointError, DownloadError
        See `describe` and `fetched`.
    UnknownNameError
        Neither a name nor a file.
    """
    name = os.fspath(source)
    if name not in AUTHORS and not Path(name).suffix and not is_file(name):
        raise unknown_name("network or file", name, AUTHORS)
    path = fetched(name, progress) if name in AUTHORS else Path(name)
    out = Path(out) if out is not None else Path(f"{name}{SUFFIX}") if name in AUTHORS else path.with_suffix(SUFFIX)
    if out.suffix != SUFFIX:
        raise CheckpointError(f"weights are written as {SUFFIX} files, not as '{out.name}'. Change the name.")
    if path.suffix == SUFFIX:
        raise CheckpointError(f"{path} is no Keras file but a {SUFFIX} already; a file of this package is used as it is.")
    state, card = describe(path, channels, recipe)
    save_safetensors(state, out, card)
    return out, card


def cached(path: str | os.PathLike[str]) -> Path:
    """Return a Keras file converted, from the cache where the same content was converted before.

    Raises
    ------
    CheckpointError
        See `describe`; a network of other channels than the authors' must be imported with its recipe.
    """
    path = Path(path)
    digest = file_sha256(path)
    kept = cache_folder() / "imported" / f"{digest}-{FORMAT}{SUFFIX}"
    with locked(kept.with_suffix(".lock")):  # a second process waits for the first one's file
        if not _is_whole(kept, digest):
            state, card = describe(path)
            save_safetensors(state, kept, card)
    return kept


def _is_whole(kept: Path, digest: str) -> bool:
    try:
        return bool(load_safetensors(kept)[1]["source"]["sha256"] == digest)
    except CheckpointError:
        return False  # not there, or damaged in the cache: made anew from the original, which was verified


def _channels(path: Path, shape: tuple[int, int], names: Sequence[str] | None, recipe: Recipe | None) -> list[dict[str, Any]]:
    roles = ["protein"] * shape[0] + ["structural"] * shape[1]
    has = f"{path} has {sum(shape)} channels ({shape[0]} protein, {shape[1]} structural)"
    if recipe is not None and [c.role for c in recipe.channels] != roles:
        raise CheckpointError(
            f"{has}, but {recipe.name} has {', '.join(f'{c.name} ({c.role})' for c in recipe.channels)}. Take its own recipe."
        )
    if names is not None:
        if len(names) != sum(shape) or len(set(names)) != len(names) or not all(names):
            raise CheckpointError(f"{has}, but the names given are {list(names)}. Name each channel once, the protein first.")
        return [{"name": n, "role": r} for n, r in zip(names, roles, strict=True)]
    if recipe is not None:
        return [asdict(c) for c in recipe.channels]
    if shape not in _CHANNELS:
        raise CheckpointError(
            f"{has}; the authors' networks have 1 + 1 or 1 + 2. Import it with its recipe: 'pci weights import {path} --recipe RECIPE'."
        )
    return copy.deepcopy(_CHANNELS[shape])


def _preprocess(path: Path, shape: tuple[int, int], name: str | None, recipe: Recipe | None) -> dict[str, Any]:
    usual = _PREPROCESS.get(shape)
    if recipe is None:
        if usual is None:
            raise CheckpointError(
                f"{path}: how its cells were rescaled is not known. Import it with the recipe it was trained with: --recipe RECIPE."
            )
        return dict(usual)
    own = asdict(recipe.preprocess)
    if name is not None and usual is not None:
        if differ := {k: own[k] for k, v in usual.items() if own[k] != v}:
            raise CheckpointError(
                f"{path} is {name}, trained on cells rescaled by {usual}; {recipe.name} has {differ}. Leave --recipe out."
            )
        return dict(usual)
    return own


def _git_blob_sha1(path: Path) -> str:
    """Return git's name for a file, read in blocks: a file of the user's may be large."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
