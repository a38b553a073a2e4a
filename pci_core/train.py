"""The training loop, read top to bottom: set up, resume, train, measure, save.

Lu et al. 2019, "Datasets, Preprocessing, and Training": 30 epochs of Adam at 1e-4; each epoch every
cell is a source once; source and target are flipped independently. From the authors' code: beta1
0.5, batches of 64. A run that is cut at any moment resumes from its last checkpoint and ends with
the same weights as an uncut one (bit for bit on the CPU in float32).

Several processes (see `pci_core.distributed`) share every batch: each takes the pairs of its shards, gradients are averaged,
BatchNorm takes its statistics over the whole batch. The losses are those of one process with as many shards, within rounding.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from tqdm.auto import tqdm

import pci_core
from pci_core import device as devices
from pci_core import distributed, memory
from pci_core.augment import Strength, strength_of
from pci_core.cells import CellDataset
from pci_core.checkpoint import (
    CHECKPOINT,
    LOSSES,
    WEIGHTS,
    Board,
    load_checkpoint,
    save_checkpoint,
    state_hash,
    training_key,
    with_speeds,
    without_speeds,
    write_cost,
    write_losses,
)
from pci_core.collapse import EVERY, Watch
from pci_core.delivery import Delivery
from pci_core.distributed import World
from pci_core.errors import CheckpointError, DistributedError
from pci_core.feed import Feed
from pci_core.logs import read_log
from pci_core.networks import Model, build, build_for
from pci_core.pairing import Pairing
from pci_core.pairs import Pairs
from pci_core.provenance import record
from pci_core.reading import refusing
from pci_core.recipe import Recipe
from pci_core.shards import ShardedSampler
from pci_core.step import TrainingStep
from pci_core.stopping import Stopping
from pci_core.synchronised import plain, synchronise
from pci_core.weights import load_safetensors, save_safetensors

TALK = 20  # steps between two looks at the loss; several processes add up theirs and decide on a checkpoint then


@dataclass(frozen=True)
class Trained:
    """What a training leaves: the network, its losses, and what it cost."""

    model: Model
    losses: list[dict[str, float]]
    seconds: float
    pairs_per_second: float
    waited: float


@distributed.together
@memory.told_when_out("training", "[training] batch_size")
def train(
    dataset: CellDataset,
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    kind: str = "pci",
    device: str = "auto",
    precision: str = "auto",
    data: str = "auto",
    chunk: int | None = None,
    compile: str = "auto",
    quiet: bool = False,
    checkpoint_seconds: float = 60.0,
    start: dict[str, torch.Tensor] | None = None,
    shards: int | None = None,
    leave_out: np.ndarray | None = None,
) -> Trained:
    """Train a network on a dataset, or go on where an earlier call was cut.

    Parameters
    ----------
    dataset : CellDataset
        Cells to train on.
    recipe : Recipe
        Its ``training`` and ``preprocess`` sections are used.
    out : path-like
        Folder for ``checkpoint.pt``, ``losses.csv``, ``tensorboard/`` and, at the end, ``weights.safetensors``.
    kind : str
        ``"pci"`` or ``"autoencoder"``.
    device, precision, compile : str
        See `pci_core.device`.
    data : str
        ``"auto"``, ``"resident"``, ``"chunked"`` or ``"streamed"``, see `pci_core.feed`.
    chunk : int, optional
        Order an epoch by chunks of whole images of at most so many cells; by default it does so only where the crops are
        larger than memory. A checkpoint's order is kept.
    quiet : bool
        No progress bar and no printed lines.
    checkpoint_seconds : float
        A checkpoint is written when this long has passed since the last one, at Ctrl-C, and at the end.
    start : dict of str to Tensor, optional
        State of a source cell encoder to start from, of the same width and channels; the rest starts at random.
    shards : int, optional
        Parts that the images are divided into, see `pci_core.shards`; the order of the pairs depends on it. By default
        that of the checkpoint, or the number of processes.
    leave_out : array of int, optional
        Numbers of images that are neither trained on nor held out: those that ``leave_out_varying`` of the recipe means, which
        `Run` finds (see `pci_core.varying`).

    Returns
    -------
    Trained

    Raises
    ------
    CheckpointError
        The checkpoint in `out` is damaged or belongs to another training, or `start` does not fit the network.
    SamplingError
        No image has two cells, or fewer have than there are shards; or the cells do not allow what the recipe asks of their
        pairs, see `pci_core.pairing`.
    DeviceError
        A batch does not fit into memory; said before anything is written but the folder.
    DistributedError
        Processes have other code, data or settings; one is gone; there are fewer shards than processes.
    KeyboardInterrupt
        Ctrl-C: after the batch that was begun, with a checkpoint (several processes: at once, with the last one).
    """
    # --- what is trained, on what, with what
    world = distributed.world()
    quiet = quiet or not world.is_first
    spec = recipe.training
    pairing = Pairing(dataset, spec, leave_out, kind)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    where = devices.choose_device(device)
    dtype = devices.choose_precision(where, precision)
    devices.tune(where)
    mode = devices.compile_mode(where, compile)
    model = build_for(kind, dataset.n_protein, dataset.n_structural, spec)
    if start is not None:
        _start_from(model, start)
    model.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    need = memory.training_need(model, dataset.crops.shape[1:], dataset.crops.itemsize, where, dtype)
    config = {
        "architecture": model.architecture,
        "training": training_key(spec),
        "preprocess": asdict(recipe.preprocess),
        "dataset": dataset.sha256,
        "precision": str(dtype).removeprefix("torch."),
        **pairing.identity,
    }
    if start is not None:
        config["start"] = state_hash(start)
    if world.size > 1:
        world.agree({**config, "epochs": spec.epochs, "device": where.type, "shards": shards})
        synchronise(model, where)
    optimizer = torch.optim.Adam(model.parameters(), lr=spec.learning_rate, betas=(spec.beta1, 0.999), eps=1e-7, fused=where.type != "mps")
    strength = strength_of(spec.augment, model.pretext) if kind == "pci" else None
    train_step = TrainingStep(model, optimizer, recipe.preprocess, where, dtype, world.size, strength)
    _check_usable(model, strength, world)
    watch = Watch(dataset, pairing.train, recipe.preprocess, where, model.pretext or kind, pairing.sets)

    # --- resume
    epoch, step, seconds = 0, 0, 0.0
    seen = 0  # pairs of this epoch so far, and their losses summed (on the device: reading it makes a GPU wait)
    total = torch.zeros((), dtype=torch.float32 if where.type == "mps" else torch.float64, device=where)
    losses: list[dict[str, float]] = []
    kept: int | None = None
    use = "pairs"
    if (out / CHECKPOINT).exists():
        state = load_checkpoint(out / CHECKPOINT, config)
        with refusing(out / CHECKPOINT, CheckpointError, "does not fit this network", "Delete it to train from the start."):
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            train_step.scaler.load_state_dict(state["scaler"])
            torch.set_rng_state(state["rng"])
        epoch, step, losses = state["epoch"], state["step"], with_speeds(out, state["losses"])
        seconds = float(state.get("seconds", read_log(out / WEIGHTS).get("seconds", 0.0)))  # earlier checkpoints hold them themselves
        seen, kept = state["seen"], state.get("shards", 1)  # there were none in earlier checkpoints
        chunk = state.get("chunk")  # the order stays, also on a machine with other memory; there was none before there were chunks
        use = "rows" if chunk is None else "pairs"
        if world.is_first:  # each process adds up its own
            total.copy_(state["total"])
    else:
        torch.manual_seed(spec.seed)
    world.agree({"checkpoint": [epoch, step]})  # and nobody writes the next one before all have read this one

    where_drawn = "cpu" if where.type == "mps" else where

    def sampler_of(shards: int) -> ShardedSampler:
        return pairing.sampler(shards, range(world.rank, shards, world.size), where_drawn)

    sampler = sampler_of(_choose_shards(kept, step, shards, world.size))
    next_sampler = sampler if sampler.shards >= world.size else sampler_of(world.size)
    share = min(-(-spec.batch_size // min(world.size, sampler.shards)), sampler.cells)
    reserve = memory.check_batch(need, share, where, "training", "pairs", "[training] batch_size")
    feed = Delivery(dataset, sampler, where, data, use=use, chunk=chunk, reserve=reserve, world=world)
    held_feed = Feed(dataset, where, images=pairing.held, sets=pairing.sets)  # auto: beside those trained on, or row by row

    def save(total: torch.Tensor) -> None:
        if not world.is_first:
            return
        content = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": train_step.scaler.state_dict(),
            "rng": torch.get_rng_state(),
        }
        content |= {"config": json.dumps(config), "epoch": epoch, "step": step, "losses": without_speeds(losses)}
        save_checkpoint(out / CHECKPOINT, {**content, "seen": seen, "total": total.cpu(), **feed.order})
        write_cost(out, losses, seconds + time.perf_counter() - begun)

    if not quiet:
        told = "" if kind != "pci" or model.pretext == "inpainting" else f", pretext {model.pretext}"
        print(f"Training {kind} (width {spec.width:g}{told}) on {devices.describe(where, dtype)}; crops {feed.told}")
        if sampler.shards > 1 or world.size > 1:
            print(f"  {world.size} processes, {sampler.shards} shards of whole images; BatchNorm over the whole batch of all processes")
        if next_sampler is not sampler:
            print(
                f"  this epoch was begun in {sampler.shards} shards: {world.size - sampler.shards} of {world.size} processes have nothing "
                f"to do until it ends; then there are {world.size} shards"
            )
        print(*(f"  {line}" for line in pairing.told(sampler)), sep="\n")
    if mode and sampler.cells >= spec.batch_size and epoch < spec.epochs:
        shape = (2 * spec.batch_size, *dataset.crops.shape[1:])
        compiled = train_step.compile(mode, devices.blank(shape, dataset.crops.dtype.name, where))
        if not quiet:
            print(f"  {compiled}")
    board = Board(out / "tensorboard", epoch) if world.is_first else None
    bar = tqdm(
        total=spec.epochs * sampler.cells,
        initial=min(sampler.cells, step * spec.batch_size) + epoch * sampler.cells,
        unit=" pairs",
        disable=quiet,
        smoothing=0.05,
    )
    begun = saved = time.perf_counter()
    done = 0

    def stop() -> None:
        save(total)
        bar.close()
        now = f"epoch {epoch + 1} of {spec.epochs}, {seen:,} of {sampler.cells:,} pairs"
        if not quiet:
            print(f"Stopped in {now}. {out / CHECKPOINT} is kept: the same training goes on from there.", flush=True)
        raise KeyboardInterrupt

    # --- train
    with Stopping("stopping after this batch; Ctrl-C again stops at once", active=world.size == 1) as stopping:
        while epoch < spec.epochs:
            model.train()
            for batch, raw, pairs in feed.batches(epoch, step, last=epoch + 1 == spec.epochs):
                total += train_step(raw, batch.flips, pairs, batch.group, (spec.seed, epoch, step))
                seen += pairs
                step += 1
                done += pairs
                bar.update(pairs)
                talk = step % TALK == 0
                if step % EVERY == 0:
                    watch.look(model, f"epoch {epoch + 1}, after {seen:,} pairs")
                if stopping.asked and step < sampler.steps:
                    stop()
                if world.size > 1 and not talk:
                    continue
                whole, due = _over_all(world, total, time.perf_counter() - saved > checkpoint_seconds and step < sampler.steps)
                if talk and not quiet:
                    elapsed = time.perf_counter() - begun
                    bar.set_postfix_str(
                        f"epoch {epoch + 1}/{spec.epochs}, loss {whole.item() / seen:.5f}, waited {feed.waited / elapsed:.1%}"
                    )
                    if slow := feed.slow(elapsed, done // spec.batch_size):
                        bar.write(slow)
                if due:
                    save(whole)
                    saved = time.perf_counter()
            epoch, step = epoch + 1, 0
            watch.look(model, f"end of epoch {epoch}")
            if sampler is not next_sampler:
                sampler = next_sampler
                feed = feed.of(sampler)
            row = {
                "epoch": epoch,
                "train_loss": _over_all(world, total)[0].item() / seen,
                "held_out_loss": _held_out_loss(train_step, held_feed, pairing.held_pairs, world, memory.held_out_size(spec.batch_size)),
            }
            row |= {
                "pairs_per_second": done / (time.perf_counter() - begun),
                "data_wait_share": feed.waited / (time.perf_counter() - begun),
            }
            losses.append(row)
            total.zero_()
            seen = 0
            if board:
                board.add(row)
                write_losses(out / LOSSES, losses)
            if time.perf_counter() - saved > checkpoint_seconds or epoch == spec.epochs:
                save(total)
                saved = time.perf_counter()
            if stopping.asked and epoch < spec.epochs:
                stop()

    # --- save what is kept
    bar.close()
    if board:
        board.close()
        write_losses(out / LOSSES, losses)  # also where the checkpoint came from elsewhere and nothing was left to train
    spent = time.perf_counter() - begun
    card = {
        **config,
        "name": kind,
        "recipe": recipe.name,
        "simulated": recipe.simulated,
        "channels": [asdict(c) for c in dataset.channels],
        "um_per_px": dataset.um_per_px,
        "crop": list(dataset.crops.shape[2:]),
        "epochs": epoch,
        "pairs": sampler.cells * epoch,
        "losses": without_speeds(losses[-1:])[0] if losses else {},
        "processes": world.size,
        "shards": sampler.shards,
        **pairing.facts,
        "batch_norm": "over the whole batch of all processes",
        "versions": {"pci_core": pci_core.__version__, "torch": torch.__version__},
        "provenance": record("weights", kind, recipe=recipe.name, data=dataset.sha256, seed=spec.seed).plain(),
    }

    def keep() -> None:
        if done or not (out / WEIGHTS).exists():
            save_safetensors({k: v.cpu() for k, v in model.state_dict().items()}, out / WEIGHTS, card)
            write_cost(out, losses, seconds + spent, hardware=devices.describe(where, dtype))

    world.first(keep)
    if stopping.asked:  # during the last batches: the network is whole, but nothing more is wanted
        raise KeyboardInterrupt
    if world.size > 1:
        model = plain(model)
    return Trained(model.eval(), losses, seconds + spent, done / spent if done else 0.0, feed.waited)


def load_model(path: str | os.PathLike[str]) -> tuple[Model, dict[str, Any]]:
    """Load a network that `train` saved, ready for inference.

    Parameters
    ----------
    path : path-like
        A ``weights.safetensors`` with its card.

    Returns
    -------
    model : Model
    card : dict
        Architecture, channels, training, losses, hardware.

    Raises
    ------
    CheckpointError
        The file is damaged, or its weights do not fit the architecture that its card names.
    """
    state, card = load_safetensors(path)
    try:
        model = build(**card["architecture"])
        model.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: the weights do not fit the architecture of their card ({str(error)[:200]}). Train again."
        ) from error
    return model.eval(), card


def _check_usable(model: Model, strength: Strength | None, world: World) -> None:
    """Refuse several processes where they would not give what one gives."""
    if world.size > 1 and (model.over_batch or strength is not None):
        what = f"pretext '{model.pretext}' compares all pairs of a batch" if model.over_batch else "augmentation is drawn for a whole batch"
        raise DistributedError(
            f"{what}, which several processes would have in parts: it is trained by one process, here are {world.size}. Start one, or take "
            "pretext = 'inpainting' and augment = 'none'."
        )


def _start_from(model: Model, start: dict[str, torch.Tensor]) -> None:
    try:
        model.source.load_state_dict(start)
    except RuntimeError as error:
        raise CheckpointError(
            f"the encoder to start from does not fit this network ({str(error)[:160]}). It needs the same width and number of channels."
        ) from error


@torch.no_grad()
def _held_out_loss(step: TrainingStep, feed: Feed, pairs: Pairs | None, world: World, size: int) -> float:
    """Return the loss on images never trained on, NaN where none was held out. The processes share the pairs."""
    if pairs is None:
        return float("nan")
    step.model.eval()
    total = 0.0
    batches = list(itertools.islice(pairs.batches(size), world.rank, None, world.size))
    rows = (torch.cat([b.source, b.target]) for b in batches)
    for batch, raw in zip(batches, feed.batches(rows), strict=True):
        total += step.losses(raw, batch.flips, batch.group).sum().item()
    step.model.train()
    return _over_all(world, torch.tensor(total, dtype=torch.float64))[0].item() / len(pairs)


def _over_all(world: World, total: torch.Tensor, due: bool = False) -> tuple[torch.Tensor, bool]:
    """Add up a sum over all processes; with it travels what rank 0 wants done."""
    if world.size == 1:
        return total, due
    both = torch.stack([total, total.new_tensor(float(due and world.is_first))]).cpu()  # over the CPU: every TALK steps
    dist.all_reduce(both)
    return both[0], bool(both[1])


def _choose_shards(kept: int | None, step: int, asked: int | None, processes: int) -> int:
    """Return how many shards to go on with: those of the checkpoint where one was cut inside an epoch.

    At the end of an epoch they may change; fewer than processes are only kept until the epoch ends.
    """
    if asked is not None and asked < processes:
        raise DistributedError(
            f"{processes} processes cannot share {asked} shards; ask for at least {processes}, or start fewer processes."
        )
    if kept is None or step == 0:
        return asked or max(kept or 1, processes)
    if asked is not None and asked != kept:
        raise CheckpointError(f"the checkpoint was cut inside an epoch of {kept} shards, {asked} are asked for. End the epoch with {kept}.")
    return kept
