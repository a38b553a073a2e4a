"""Encoders that were trained for hours on large simulated sets, so that nobody has to wait for features.

``<name>-<kind>.safetensors``: the source cell encoder alone (convolutions in float16, the rest in float32)
with a card that says how it was made. A recipe names its encoder in ``[training] pretrained``.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from pci_core.errors import CheckpointError, unknown_name
from pci_core.model import KINDS, SourceCellEncoder
from pci_core.recipe import Preprocess
from pci_core.train import load_model
from pci_core.weights import load_safetensors, save_safetensors

SUFFIX = ".safetensors"
_KEPT = (
    "name", "recipe", "simulated", "channels", "um_per_px", "crop", "preprocess", "architecture", "training", "dataset", "precision",
    "epochs", "pairs", "losses", "seconds", "hardware", "versions", "made",
)  # fmt: skip


def folder() -> Path:
    """Return where the shipped encoders lie."""
    return Path(str(resources.files("pci_core") / "pretrained"))


def names() -> list[str]:
    """Return the names that a recipe's ``pretrained`` may have."""
    return sorted({p.name.removesuffix(SUFFIX).rpartition("-")[0] for p in folder().glob(f"*{SUFFIX}")})


def has(name: str, kind: str = "pci") -> bool:
    """Tell whether an encoder of this kind is shipped under a recipe's ``pretrained``; an empty name has none.

    Of some names only the PCI encoder is shipped; the autoencoder is then trained on the recipe's own cells.

    Raises
    ------
    UnknownNameError
        Nothing at all is shipped under the name.
    """
    if name and name not in names():
        raise unknown_name("pretrained encoder", name, names())
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
    if not path.is_file():
        raise unknown_name(
            f"pretrained {kind}", name, [p.name.removesuffix(f"-{kind}{SUFFIX}") for p in folder().glob(f"*-{kind}{SUFFIX}")]
        )
    return path


def load_encoder(path: str | os.PathLike[str], preprocess: Preprocess | None = None) -> tuple[SourceCellEncoder, dict[str, Any]]:
    """Load an encoder that `export_encoder` wrote, in float32 and ready for inference.

    Parameters
    ----------
    path : path-like
        A ``.safetensors`` with its card.
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
    try:
        wanted = card["architecture"]
        encoder = SourceCellEncoder(wanted["n_protein"] + wanted["n_structural"], wanted["width"])
        encoder.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: the weights do not fit the architecture of their card ({str(error)[:200]}).") from error
    if preprocess is not None:
        differ = {k: (v, getattr(preprocess, k)) for k, v in card["preprocess"].items() if getattr(preprocess, k) != v}
        if differ:
            told = "; ".join(f"{k}: {there!r} there, {here!r} in the recipe" for k, (there, here) in differ.items())
            raise CheckpointError(
                f"{path} was trained on cells that were rescaled in another way ({told}). Give the recipe the same [preprocess], "
                "or take 'pretrained' out of its [training] and train on its own cells."
            )
    return encoder.eval(), card


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
    kept = {k: card[k] for k in _KEPT if k in card} | {"trained_weights": card["sha256"], **more}
    save_safetensors(state, out, kept)
    return kept
