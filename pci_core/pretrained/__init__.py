"""Trained networks by name or file: those shipped here, the authors', and files of a user's.

Shipped, ``<name>-<kind>.safetensors``: the source cell encoder alone (convolutions in float16, the rest in float32) with
a card that says how it was made. ``[training] pretrained`` of a recipe, or ``--weights``, names one of them, one of the
authors' (`pci_core.imported.AUTHORS`) or a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from pci_core import imported, reading
from pci_core.encoders import Encoder, encoder_of
from pci_core.errors import CheckpointError, unknown_name
from pci_core.networks import KINDS, Model
from pci_core.pretrained.fit import channels_of, check_channels, check_preprocess
from pci_core.provenance import Parent, record
from pci_core.recipe import Preprocess, Recipe
from pci_core.storage import file_sha256
from pci_core.train import load_model
from pci_core.weights import PICKLES, SUFFIX, load_safetensors, refuse_pickle, save_safetensors

_KEPT = (
    "name", "recipe", "simulated", "channels", "um_per_px", "crop", "preprocess", "architecture", "training", "dataset", "precision",
    "epochs", "pairs", "losses", "seconds", "hardware", "versions", "made", "data", "source", "licence", "import", "assumed",
)  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """Weights that somebody named, ready to be read.

    Attributes
    ----------
    name : str
        As it was given; of a file its name without the folder.
    path : Path
        The ``.safetensors``; of a Keras file the converted one.
    sha256 : str
        Of the file as it was handed out.
    shipped : bool
        Whether it is an encoder of this package.
    converted : int
        Version of the conversion of a Keras file, 0 for others.
    """

    name: str
    path: Path
    sha256: str
    shipped: bool = False
    converted: int = 0


def folder() -> Path:
    """Return where the shipped encoders lie."""
    return Path(str(resources.files("pci_core") / "pretrained"))


def names() -> list[str]:
    """Return the names that a recipe's ``pretrained`` may have."""
    return sorted({p.name.removesuffix(SUFFIX).rpartition("-")[0] for p in folder().glob(f"*{SUFFIX}")})


def has(name: str, kind: str = "pci") -> bool:
    """Tell whether an encoder of this kind is shipped under a recipe's ``pretrained``; an empty name and the authors' have none.

    Of some names only the PCI encoder is shipped; the autoencoder is then trained on the recipe's own cells.

    Raises
    ------
    UnknownNameError
        Nothing at all has that name.
    """
    if name and name not in names() and name not in imported.AUTHORS:
        raise unknown_name("pretrained encoder", name, [*names(), *imported.AUTHORS])
    return bool(name) and (folder() / f"{name}-{kind}{SUFFIX}").is_file()


def path_of(name: str, kind: str = "pci") -> Path:
    """Return the file of a shipped encoder.

    Raises
    ------
    UnknownNameError
        There is none of that name or kind.
    """
    if kind not in KINDS:
        raise unknown_name("model", kind, KINDS)
    path = folder() / f"{name}-{kind}{SUFFIX}"
    if not reading.is_file(path):
        raise unknown_name(
            f"pretrained {kind}", name, [p.name.removesuffix(f"-{kind}{SUFFIX}") for p in folder().glob(f"*-{kind}{SUFFIX}")]
        )
    return path


def is_file(name: str) -> bool:
    """Tell whether a text names a file of weights, rather than one of the names that everybody knows."""
    return Path(name).suffix.lower() in (SUFFIX, *imported.KERAS, *PICKLES) or Path(name).name != name


def absolute(name: Any, folder: Path | None = None) -> Any:
    """Return a name as it is and a file as an absolute path, started from `folder` or the current one."""
    text = os.fspath(name) if isinstance(name, os.PathLike) else name
    return str(((folder or Path()) / text).resolve()) if isinstance(text, str) and is_file(text) else text


def holds(name: str, kind: str = "pci", folder: Path | None = None) -> bool:
    """Tell whether weights of that name or file are there for a kind of network; downloads nothing.

    Raises
    ------
    UnknownNameError
        Nothing has that name.
    CheckpointError
        The file is not there or damaged, or PCI features are asked of an autoencoder's file.
    """
    if not is_file(name):
        return kind == "pci" if name in imported.AUTHORS else has(name, kind)
    path = _file(name, folder)
    architecture = {} if path.suffix.lower() in imported.KERAS else load_safetensors(path)[1].get("architecture")
    found = architecture.get("kind", "pci") if isinstance(architecture, Mapping) else "pci"
    if found != kind == "pci":
        raise CheckpointError(f"{path} holds a network of kind '{found}'. Ask for {found}_conv1 … {found}_conv5, or give other weights.")
    return bool(found == kind)


def find(name: str, kind: str = "pci", folder: Path | None = None, progress: bool = False) -> Weights:
    """Return weights by name or file: shipped, the authors' (downloaded and converted once), or a user's.

    Parameters
    ----------
    name : str
        A shipped name, a name of `pci_core.imported.AUTHORS`, or a path of a ``.safetensors`` or Keras ``.h5``.
    kind : str
        ``"pci"`` or ``"autoencoder"``, of a shipped encoder.
    folder : Path, optional
        Where a relative path starts.
    progress : bool
        Show a progress bar while downloading.

    Raises
    ------
    UnknownNameError
        Nothing has that name; the nearest are listed.
    CheckpointError
        The file is not there, damaged, foreign, or a pickle, which is not opened.
    DownloadError
        The authors' file cannot be had.
    """
    if is_file(name):
        path = _file(name, folder)
        if path.suffix == SUFFIX:
            return Weights(path.name, path, file_sha256(path))
        return Weights(path.name, imported.cached(path), file_sha256(path), converted=imported.FORMAT)
    if name in imported.AUTHORS:
        path = imported.fetched(name, progress)
        return Weights(name, imported.cached(path), file_sha256(path), converted=imported.FORMAT)
    has(name)  # a name that nobody knows is told with all that there are
    path = path_of(name, kind)
    return Weights(name, path, file_sha256(path), shipped=True)


def _file(name: str, folder: Path | None) -> Path:
    path = (folder or Path()) / name
    refuse_pickle(path)
    if path.suffix.lower() not in (SUFFIX, *imported.KERAS):
        raise CheckpointError(f"{path} is no file of weights by its name. Give a {SUFFIX} of this package or a Keras .h5.")
    if not reading.is_file(path):
        raise CheckpointError(f"{path} is not there. Shipped: {', '.join(names())}. Of the paper's authors: {', '.join(imported.AUTHORS)}.")
    return path


def load_encoder(path: str | os.PathLike[str], preprocess: Preprocess | None = None) -> tuple[Encoder, dict[str, Any]]:
    """Load the source cell encoder of a file, in float32 and ready for inference.

    Parameters
    ----------
    path : path-like
        A ``.safetensors`` with its card: an encoder of `export_encoder`, or a whole network.
    preprocess : Preprocess, optional
        How the cells at hand are rescaled; must be what the encoder was trained with.

    Returns
    -------
    encoder : SourceCellEncoder
    card : dict

    Raises
    ------
    CheckpointError
        Damaged, of another architecture, or trained on cells that were rescaled in another way.
    """
    state, card = load_safetensors(path)
    if any(k.startswith("source.") for k in state):  # a whole network
        state = {k.removeprefix("source."): v for k, v in state.items() if k.startswith("source.")}
    try:
        encoder = encoder_of(card["architecture"])
        encoder.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: the weights do not fit the architecture of their card ({str(error)[:200]}).") from error
    if preprocess is not None:
        check_preprocess(path, card, preprocess)
    return encoder.eval(), card


def load_fitting(path: str | os.PathLike[str], name: str, recipe: Recipe) -> tuple[Encoder, dict[str, Any]]:
    """Load an encoder as `load_encoder` does, for cells of a recipe.

    Parameters
    ----------
    path : path-like
    name : str
        Of the weights, for the message.
    recipe : Recipe
        Its channels and rescaling must be those of the training.

    Raises
    ------
    CheckpointError
        See `load_encoder` and `check_channels`.
    """
    encoder, card = load_encoder(path)
    check_channels(recipe, encoder, channels_of(card, name), name)  # first: other channels mostly are rescaled otherwise, too
    check_preprocess(name, card, recipe.preprocess)
    return encoder, card


def load_network(weights: Weights, recipe: Recipe) -> Model:
    """Load a whole network, with its decoder, for cells of a recipe.

    Raises
    ------
    CheckpointError
        See `load_fitting`; or the file holds the encoder alone.
    """
    if not any(k.startswith("decoder.") for k in load_safetensors(weights.path)[0]):
        raise CheckpointError(
            f"{weights.name} holds the source cell encoder alone: enough for features, but painting needs the decoder. Give the "
            "training's own weights.safetensors, or train on the recipe's cells (--scratch, or 'pretrained' empty)."
        )
    load_fitting(weights.path, weights.name, recipe)
    return load_model(weights.path)[0]


def export_encoder(weights: str | os.PathLike[str], out: str | os.PathLike[str], **more: Any) -> dict[str, Any]:
    """Keep the source cell encoder of a trained network in a small file.

    Parameters
    ----------
    weights : path-like
        ``weights.safetensors`` of `pci_core.train.train`.
    out : path-like
        The file to write. Convolution weights are rounded to float16 (relative 5e-4, a tenth of what bfloat16
        arithmetic costs anyway); biases and BatchNorm statistics stay float32.
    **more
        Further entries of the card: command, number of cells, scores.

    Returns
    -------
    dict
        The card.
    """
    model, card = load_model(weights)
    state = {k: v.half() if v.ndim == 4 else v for k, v in model.source.state_dict().items()}
    if not all(torch.isfinite(v.float()).all() for v in state.values()):
        raise CheckpointError(f"{weights}: weights do not fit into float16; the training has diverged.")
    training = card.get("training")  # of an imported network: "unknown"
    seed = training.get("seed") if isinstance(training, dict) else None
    facts = {"recipe": card.get("recipe", ""), "data": card.get("dataset", ""), "seed": seed}
    made = record("weights", Path(out).stem, **facts)
    if not made.parents:  # of a file alone, without its run
        made = replace(made, parents=(Parent(Path(weights).name, file_sha256(weights)),))
    kept = {k: card[k] for k in _KEPT if k in card} | {"trained_weights": card["sha256"], **more, "provenance": made.plain()}
    save_safetensors(state, out, kept)
    return kept
