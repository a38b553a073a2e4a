"""Weights on disk: safetensors with a card, in and out; the authors' Keras HDF5 files, in (see `keras_h5`).

Nothing here unpickles: both formats hold plain arrays.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from pci_core.errors import CheckpointError
from pci_core.keras_h5 import read_keras_h5
from pci_core.logs import read_log, split, write_log
from pci_core.reading import is_file, refusing
from pci_core.storage import as_storage_error, atomic_path, content_hash

SUFFIX = ".safetensors"
_CARD_HASH = "card_sha256"  # of the card, within it; not part of what is returned
_AGAIN = "Copy or make it again."
PICKLES = (".pth", ".pt", ".ckpt", ".pkl", ".pickle", ".joblib", ".bin")  # such files can hold programs


def weights_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values: the identity of a model's weights."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_safetensors(state: Mapping[str, torch.Tensor], path: str | os.PathLike[str], card: Mapping[str, Any]) -> str:
    """Write weights and their card to one file, whole or not at all.

    Parameters
    ----------
    state : mapping of str to Tensor
        A state dict; any device.
    path : path-like
        The ``.safetensors`` file.
    card : mapping
        What JSON can hold: architecture, recipe, data set, losses, versions. ``sha256`` is added; what was measured (see
        `pci_core.logs`) goes into a log beside the file.

    Returns
    -------
    str
        `weights_sha256` of the state.
    """
    # clone: the format refuses tensors that share memory
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    digest = weights_sha256(tensors)
    computed, measured = split(card)
    known = json.loads(json.dumps({**computed, "sha256": digest}, ensure_ascii=False))  # as it will be read: the hash is of that
    text = json.dumps({**known, _CARD_HASH: content_hash(known)}, ensure_ascii=False, sort_keys=True)
    content = safetensors.torch.save(tensors, metadata={"card": text})  # one entry: the order of several is not fixed
    with as_storage_error(path), atomic_path(path) as temporary:
        temporary.write_bytes(content)
        write_log(path, measured)
    return digest


def load_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read weights and their card.

    Returns
    -------
    state : dict of str to Tensor
        On the CPU.
    card : dict
        As given to `save_safetensors`, with ``sha256`` and what its log says.

    Raises
    ------
    CheckpointError
        Not there, damaged, truncated, without the card of this package, or a pickle. Both the weights and the card are held
        against their hashes; files written before there was one of the card have none.
    """
    path = Path(path)
    refuse_pickle(path)
    if not is_file(path):
        raise CheckpointError(f"weights file {path} is not there. Train the model or correct the path.")
    with refusing(path, CheckpointError, "is damaged or no safetensors file", _AGAIN):
        with safetensors.safe_open(path, framework="pt") as handle:  # type: ignore[no-untyped-call]
            metadata = handle.metadata() or {}
            state = {name: handle.get_tensor(name).clone() for name in handle.keys()}  # noqa: SIM118 no mapping
        card = json.loads(metadata.get("card", "null"))
    if not isinstance(card, dict) or "sha256" not in card:
        raise CheckpointError(f"{path} has no card of pci_core. Use a file written by this package, or 'pci weights import'.")
    kept, expected = card.pop(_CARD_HASH, None), card["sha256"]
    if kept != content_hash(card) and (kept is not None or "provenance" in card):  # they came together: its name may be what is damaged
        raise CheckpointError(f"{path}: its card is not the one that was written (sha256 {str(kept)[:12]}…). {_AGAIN}")
    if weights_sha256(state) != expected:
        raise CheckpointError(f"{path}: the weights are not the ones that its card names (sha256 {str(expected)[:12]}…). {_AGAIN}")
    return state, {**read_log(path), **card}


def refuse_pickle(path: str | os.PathLike[str]) -> None:
    """Refuse a file whose name says that it is a pickle, before anything opens it.

    Raises
    ------
    CheckpointError
        Its suffix is one of `PICKLES`.
    """
    if Path(path).suffix.lower() in PICKLES:
        raise CheckpointError(
            f"{path} was not opened: {Path(path).suffix} files are pickles, which can run programs. Weights are read from {SUFFIX} files "
            "of this package and from Keras' .h5 files."
        )


def import_keras(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the authors' Keras weights as a state dict of `PairedCellInpainting`; see `read_keras_h5`."""
    state, facts = read_keras_h5(path)
    return {name: torch.from_numpy(value).contiguous() for name, value in state.items()}, facts
