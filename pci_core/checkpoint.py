"""What a training leaves on disk on its way: checkpoints, losses, a TensorBoard log; and what tells two trainings apart."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pci_core.errors import CheckpointError
from pci_core.logs import log_path, read_log, split, write_log
from pci_core.reading import refusing
from pci_core.recipe import Training, plain
from pci_core.storage import as_storage_error, atomic_path, write_text
from pci_core.unpacking import check_torch
from pci_core.weights import load_safetensors

CHECKPOINT, LOSSES, WEIGHTS = "checkpoint.pt", "losses.csv", "weights.safetensors"
SPEEDS = ("pairs_per_second", "data_wait_share")  # of an epoch: measured, so kept in the log of the weights


def training_key(spec: Training) -> dict[str, Any]:
    """Return what fixes a training but for its length: more epochs go on from fewer."""
    left_out = {"epochs", "pretrained"} | (set() if spec.start else {"start"})  # as in trainings made before there was a start
    return {k: v for k, v in plain(spec).items() if k not in left_out}


def differing(spec: Training, base: Training) -> dict[str, Any]:
    """Return the keys of `training_key`, and the number of epochs, in which a training differs from another, with its own values."""
    keys = {**training_key(base), **training_key(spec), "epochs": 0}
    return {k: getattr(spec, k) for k in keys if getattr(spec, k) != getattr(base, k)}


def state_hash(state: dict[str, torch.Tensor]) -> str:
    """Return a hash of weights, by name and bytes."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def load_checkpoint(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Read a checkpoint of the training that `config` describes.

    Raises
    ------
    CheckpointError
        It is damaged, or belongs to another training; the differences are named.
    """
    again = "Delete it to train from the start."
    with refusing(path, CheckpointError, "is damaged", again):
        check_torch(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = dict(json.loads(state["config"]))
        kept = state.pop("sha256", None)  # there was none before
        whole = kept is None or kept == _content_sha256(state)
    if not whole:
        raise CheckpointError(f"{path} is damaged: its content is not what was written (sha256 {str(kept)[:12]}…). {again}")
    differ = [k for k in config if json.loads(json.dumps(config[k])) != found.get(k)]
    if differ:
        told = "; ".join(f"{k}: {found.get(k)} there, {config[k]} here" for k in differ)
        raise CheckpointError(f"{path} belongs to another training ({told}). Train into another folder, or delete it to start anew.")
    return dict(state)


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all; the same content gives the same bytes.

    A hash of the content goes with it: the check sums of the format itself are not looked at when it is read.

    Raises
    ------
    StorageError
        The disk is full, or the folder cannot be written.
    """
    # into an open file: of a path, torch writes the name into the archive, and it is a temporary one
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        torch.save({**content, "sha256": _content_sha256(content)}, handle)


def start_from_shorter(work: Path, fixed: Mapping[str, Any], epochs: int) -> None:
    """Take over the checkpoint of a training that differs at most by fewer epochs: the result is the same.

    Parameters
    ----------
    work : Path
        Folder of the training that is begun; it is made. Where it has a checkpoint, that stays.
    fixed : mapping
        What the card of the other training, in a folder beside, must say.
    epochs : int
        The most that it may have.

    Raises
    ------
    StorageError
        The folder cannot be written.
    """
    with as_storage_error(work):
        work.mkdir(parents=True, exist_ok=True)
    if (work / CHECKPOINT).exists():
        return
    best: tuple[int, Path] | None = None
    for checkpoint in work.parent.glob(f"*/{CHECKPOINT}"):
        try:
            _, card = load_safetensors(checkpoint.with_name(WEIGHTS))
        except CheckpointError:
            continue  # a training that is not finished has no card
        if {k: card.get(k) for k in fixed} == fixed and card["epochs"] <= epochs:
            best = max(best or (0, checkpoint), (card["epochs"], checkpoint))
    if best:
        with atomic_path(work / CHECKPOINT) as temporary:
            shutil.copyfile(best[1], temporary)
        if (log := log_path(best[1].with_name(WEIGHTS))).is_file():
            shutil.copyfile(log, log_path(work / WEIGHTS))


def _content_sha256(content: Any) -> str:
    """Return a hash of tensors, numbers and texts in dicts, lists and tuples."""
    digest = hashlib.sha256()

    def feed(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            array = value.detach().cpu().contiguous()
            digest.update(f"{array.dtype} {tuple(array.shape)} ".encode())
            digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict):
            digest.update(f"dict {len(value)} ".encode())
            for key in value:
                feed(key)
                feed(value[key])
        elif isinstance(value, (list, tuple)):
            digest.update(f"{type(value).__name__} {len(value)} ".encode())
            for item in value:
                feed(item)
        else:
            digest.update(f"{type(value).__name__} {value!r} ".encode())

    feed(content)
    return digest.hexdigest()


def without_speeds(losses: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return the rows of a training curve with what was computed alone."""
    return [split(row, SPEEDS)[0] for row in losses]


def write_cost(folder: Path, losses: list[dict[str, float]], seconds: float, **more: Any) -> None:
    """Write what a training cost so far into the log of its weights: seconds, and the speed of each epoch."""
    speeds = [{k: v for k, v in split(row, SPEEDS)[1].items() if v == v} for row in losses]
    epochs = [{"epoch": row["epoch"], **speed} for row, speed in zip(losses, speeds, strict=True)]
    write_log(folder / WEIGHTS, {"seconds": round(seconds, 1), **more, "epochs": epochs})


def with_speeds(folder: Path, losses: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return the rows of a training curve with the speeds that the log of its weights knows; NaN where nothing does."""
    known = {row.get("epoch"): row for row in read_log(folder / WEIGHTS).get("epochs", []) if isinstance(row, dict)}
    return [{**row, **{k: known.get(row["epoch"], row).get(k, row.get(k, math.nan)) for k in SPEEDS}} for row in losses]


def write_losses(path: Path, losses: list[dict[str, float]]) -> None:
    """Write the training curve as CSV, one row an epoch, without the speeds; nothing where there is none."""
    losses = without_speeds(losses)
    if losses:
        lines = [",".join(losses[0]), *(",".join(f"{v:.8g}" for v in row.values()) for row in losses)]
        write_text(path, "\n".join(lines) + "\n")


class Board:
    """TensorBoard scalars, one point an epoch; a resumed run overwrites what came after its checkpoint."""

    def __init__(self, folder: Path, epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # here: importing it takes a second

        self.writer = SummaryWriter(str(folder), purge_step=epoch + 1)  # type: ignore[no-untyped-call]

    def add(self, row: dict[str, float]) -> None:
        for name, value in row.items():
            if name != "epoch" and value == value:
                self.writer.add_scalar(name, value, int(row["epoch"]))  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self.writer.close()  # type: ignore[no-untyped-call]
