"""Several processes as one: the same losses and features as one, and an end with an error for all when one is gone."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from forked import Forked

from pci_core import distributed, heartbeat
from pci_core import recipe as recipes
from pci_core.cells import CellDataset, CellWriter
from pci_core.device import choose_device
from pci_core.distributed import World
from pci_core.errors import DeviceError, DistributedError
from pci_core.features import extract
from pci_core.train import CHECKPOINT, LOSSES, TALK, WEIGHTS, load_model, train

TINY = {"epochs": 2, "batch_size": 4, "width": 0.05, "holdout": 0.2}
LAYERS = ("conv1", "conv4")
# The same sums in another order. Gradients agree to the last digits of float64 (test_synchronised.py), but training magnifies what
# float32 rounds off: Adam divides by the size of a gradient, also of one near zero. With BatchNorm alone computed another way, in one
# process, these losses moved by 6e-5; BatchNorm over each process' own pairs, or one pair wrong, moves them by a percent.
ROUNDING = 5e-4

# one process of several: trains on arguments of JSON, describes the cells if asked to, and ends as the command line does
SCRIPT = """
import json, sys, time
from pathlib import Path
from pci_core import cli, heartbeat
heartbeat.LIMIT = float(sys.argv[4])
def work():
    from pci_core import recipe
    from pci_core.cells import CellDataset
    from pci_core.train import train
    dataset, out, more = CellDataset(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    spec = recipe.load("authors-toy-yeast").replace(training=more.pop("training"))
    describe = more.pop("describe", False)
    done = train(dataset, spec, out, precision="float32", device="cpu", **more)
    if not describe:
        sys.exit(0)
    from pci_core.features import extract
    files = {layer: out / f"{layer}.h5ad" for layer in ("conv1", "conv4")}
    extract(dataset, done.model.source, files, spec.preprocess, {}, batch_size=8, device="cpu", precision="float32")
    sys.exit(0)
cli.app = work
cli.main()
"""


@pytest.fixture
def dataset(tmp_path: Path, make_cells: Callable[..., CellDataset]) -> CellDataset:
    """Images of unequal size, one with a single cell: 86 cells, enough for a checkpoint inside an epoch of batches of 4."""
    source = make_cells(images=8, cells=24, name="even")
    with CellWriter(tmp_path / "cells", source.channels, 0.5, recipe="made-up") as writer:
        for i, n in enumerate([24, 9, 1, 17, 8, 22, 3, 20]):
            rows = np.arange(24 * i, 24 * i + n)
            writer.add(source.read(rows), source.table.iloc[rows])
    return CellDataset(tmp_path / "cells")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Process = Forked | subprocess.Popen[str]


def start(size: int, *arguments: Any, limit: float = 45.0, folders: list[Path] | None = None, anew: bool = False) -> list[Process]:
    """Start `size` processes with torchrun's variables and no agent that would end them; `anew`, each is a Python of its own."""
    common = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    cells, out, more = arguments
    made: list[Process] = []
    for r in range(size):
        given = [SCRIPT, str(folders[r] if folders else cells), str(out), json.dumps(more), str(limit)]
        env = {**common, "RANK": str(r), "LOCAL_RANK": str(r)}
        if anew:
            made.append(subprocess.Popen([sys.executable, "-c", *given], env={**os.environ, **env}, stdout=PIPE, stderr=PIPE, text=True))
        else:
            made.append(Forked(*given, **env))
    return made


def finish(processes: list[Process], seconds: float = 120) -> list[tuple[int, str, str]]:
    """Wait for all; return status, stdout and stderr of each."""
    try:
        ends = [p.communicate(timeout=seconds) for p in processes]
    finally:
        for p in processes:
            p.kill()
    return [(int(p.returncode or 0), out, err) for p, (out, err) in zip(processes, ends, strict=True)]


def wait_for(path: Path, processes: list[Process]) -> None:
    until = time.monotonic() + 90
    while not path.exists():
        assert time.monotonic() < until and all(p.poll() is None for p in processes), finish(processes, 1)
        time.sleep(0.01)


def losses(folder: Path) -> np.ndarray:
    rows = list(csv.DictReader((folder / LOSSES).open()))
    return np.array([[float(r["train_loss"]), float(r["held_out_loss"])] for r in rows])


def alone(dataset: CellDataset, out: Path, **training: Any) -> Any:
    spec = recipes.load("authors-toy-yeast").replace(training={**TINY, **training})
    return train(dataset, spec, out, precision="float32", device="cpu", quiet=True, shards=2)


def test_two_processes_are_one_also_in_pairs_across_images(dataset: CellDataset, tmp_path: Path) -> None:
    """Of proteins whose images lie apart, each as often, targets far in shape, in chunks."""
    proteins = dataset.table["image"].str[1:].astype(int) % 4
    with CellWriter(tmp_path / "mixed", dataset.channels, 0.5, recipe="made-up") as writer:
        writer.add(np.array(dataset.crops), dataset.table.assign(protein=[f"P{p}" for p in proteins]))
    mixed = CellDataset(tmp_path / "mixed")
    keys = {"pair_by": "protein", "weigh": "images", "targets": "far"}
    ends = finish(start(2, mixed.folder, tmp_path / "two", {"training": {**TINY, **keys}, "data": "chunked", "chunk": 25}))
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert "of 3 values of 'protein', each as often, 1 values of 'protein' held out" in ends[0][1]
    spec = recipes.load("authors-toy-yeast").replace(training={**TINY, **keys})
    train(mixed, spec, tmp_path / "one", precision="float32", device="cpu", quiet=True, shards=2, data="chunked", chunk=25)
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=ROUNDING)


def test_two_processes_are_one(dataset: CellDataset, tmp_path: Path) -> None:
    ends = finish(start(2, dataset.folder, tmp_path / "two", {"training": TINY, "describe": True}))
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert "2 processes, 2 shards of whole images; BatchNorm over the whole batch" in ends[0][1]
    assert (ends[1][1], ends[1][2]) == ("", "")  # one of them speaks
    one = alone(dataset, tmp_path / "one")
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=ROUNDING)
    model, card = load_model(tmp_path / "two" / WEIGHTS)
    for name, value in one.model.state_dict().items():
        # a weight moves by at most the learning rate, 1e-4, a step; one whose gradient is rounding alone may go either way
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0.02, atol=1e-3, msg=name)
    assert (card["processes"], card["shards"]) == (2, 2)
    # features: the same batches, so the same bits
    spec = recipes.load("authors-toy-yeast")
    files = {layer: tmp_path / f"{layer}.h5ad" for layer in LAYERS}
    extract(dataset, model.source, files, spec.preprocess, {}, batch_size=8, device="cpu", precision="float32", quiet=True)
    for layer, path in files.items():
        with h5py.File(path) as a, h5py.File(tmp_path / "two" / path.name) as b:
            assert np.array_equal(a["X"][:], b["X"][:]) and np.ptp(a["X"][:], 0).max() > 0, layer
        pd.testing.assert_frame_equal(pd.read_parquet(path.with_suffix(".parquet")), pd.read_parquet(tmp_path / "two" / f"{layer}.parquet"))
    assert not list((tmp_path / "two").glob(".writing-*"))


@pytest.mark.parametrize("dead", [1, 0])  # rank 0 keeps what the others meet at
def test_one_killed_ends_the_other(dataset: CellDataset, tmp_path: Path, dead: int) -> None:
    more = {"training": {**TINY, "epochs": 10**6}, "checkpoint_seconds": 0.0}
    # where the store goes, torch has most to say, which the command line silences before torch is imported: not so in a fork
    processes = start(2, dataset.folder, tmp_path / "m", more, anew=dead == 0)
    wait_for(tmp_path / "m" / CHECKPOINT, processes)
    processes[dead].send_signal(signal.SIGKILL)
    began = time.monotonic()
    code, _, told = finish([processes[1 - dead]])[0]
    assert time.monotonic() - began < 60
    kept = ", which keeps the meeting point (MASTER_ADDR)," if dead == 0 else ""
    assert code == 1 and f"pci: rank {1 - dead} of 2: rank {dead}{kept} is gone" in told, told
    assert "the same command goes on from there" in told and "Traceback" not in told and "Exception raised" not in told, told
    state = torch.load(tmp_path / "m" / CHECKPOINT, weights_only=True)
    assert state["shards"] == 2 and (state["step"] == 0 or state["step"] % TALK == 0)
    if dead == 0:
        return
    # the run goes on, here in one process, and ends as one that was never cut
    training = {**TINY, "epochs": state["epoch"] + 1}
    spec = recipes.load("authors-toy-yeast").replace(training=training)
    again = train(dataset, spec, tmp_path / "m", precision="float32", device="cpu", quiet=True)
    uncut = alone(dataset, tmp_path / "uncut", epochs=training["epochs"])
    found, wanted = ([[r["train_loss"], r["held_out_loss"]] for r in done.losses] for done in (again, uncut))
    np.testing.assert_allclose(found, wanted, rtol=ROUNDING)


def test_another_number_goes_on(dataset: CellDataset, tmp_path: Path) -> None:
    uncut = alone(dataset, tmp_path / "uncut").losses
    fewer, more = tmp_path / "1", tmp_path / "3"
    cut_inside(dataset, fewer)
    shutil.copytree(fewer, more)
    spec = recipes.load("authors-toy-yeast").replace(training=TINY)
    again = train(dataset, spec, fewer, precision="float32", device="cpu", quiet=True)
    # one process works through both shards: bit for bit the uncut one
    assert [r["train_loss"] for r in again.losses] == [r["train_loss"] for r in uncut]
    ends = finish(start(3, dataset.folder, more, {"training": TINY}))
    assert [code for code, _, _ in ends] == [0, 0, 0], ends
    assert "begun in 2 shards: 1 of 3 processes have nothing to do until it ends; then there are 3 shards" in ends[0][1]
    # the epoch that was cut ends as it would have
    assert losses(more)[0] == pytest.approx([uncut[0]["train_loss"], uncut[0]["held_out_loss"]], rel=ROUNDING)
    assert load_model(more / WEIGHTS)[1]["shards"] == 3 and losses(more)[1, 0] < losses(more)[0, 0]


class Cut(Exception):
    """Stands for the end of a process."""


def cut_inside(dataset: CellDataset, out: Path) -> None:
    """Leave a checkpoint inside the first epoch of a training in two shards."""
    with pytest.MonkeyPatch.context() as patch:
        from pci_core.step import TrainingStep

        original, calls = TrainingStep.__call__, iter(range(10**6))

        def counted(self: TrainingStep, *arguments: Any) -> torch.Tensor:
            if next(calls) == 9:
                raise Cut
            return original(self, *arguments)

        patch.setattr(TrainingStep, "__call__", counted)
        spec = recipes.load("authors-toy-yeast").replace(training=TINY)
        with pytest.raises(Cut):
            train(dataset, spec, out, precision="float32", device="cpu", quiet=True, shards=2, checkpoint_seconds=0.0)
    assert torch.load(out / CHECKPOINT, weights_only=True)["step"] == 9


def test_one_that_hangs_ends_the_other(dataset: CellDataset, tmp_path: Path) -> None:
    processes = start(2, dataset.folder, tmp_path / "m", {"training": {**TINY, "epochs": 10**6}, "checkpoint_seconds": 0.0}, limit=3)
    wait_for(tmp_path / "m" / CHECKPOINT, processes)
    processes[1].send_signal(signal.SIGSTOP)
    try:
        code, _, told = finish(processes[:1], 60)[0]
    finally:
        processes[1].kill()
    assert code == 1 and "rank 1 is gone or hangs" in told, told


def test_other_cells_on_one_process_are_told(dataset: CellDataset, make_cells: Callable[..., CellDataset], tmp_path: Path) -> None:
    other = make_cells(images=8, cells=11, seed=1, name="other")
    ends = finish(start(2, None, tmp_path / "m", {"training": TINY}, folders=[dataset.folder, other.folder]))
    assert [code for code, _, _ in ends] == [1, 1], ends
    told = ends[0][2]
    assert "do not work on the same (dataset: " in told and "on rank 0" in told and "on rank 1" in told, told
    assert told.count("pci:") == 1 and ends[1][2] == ""  # once for both
    assert not (tmp_path / "m" / CHECKPOINT).exists()


COMMAND = """
import sys
from pci_core.cli import main
sys.argv[0] = "pci"
main()
"""


@pytest.mark.slow
def test_torchrun_makes_everything_from_nothing(own_recipe: Path, tmp_path: Path) -> None:
    """What was cut before is gone on with, and a third call finds all of it: these two as torchrun would start them, without its agent."""
    arguments = ["features", str(own_recipe), "conv1", "--device", "cpu", "--jobs", "1", "--runs", str(tmp_path / "runs")]
    features = tmp_path / "runs" / "own" / "features" / "conv1.h5ad"

    def both() -> list[Process]:
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
        return [Forked(COMMAND, *arguments, **common, RANK=str(r), LOCAL_RANK=str(r)) for r in range(2)]

    cut = both()
    wait_for(tmp_path / "runs" / "own" / "cells" / "dataset.json", cut)
    for process in cut:
        process.send_signal(signal.SIGTERM)
    assert [code for code, _, _ in finish(cut, 60)] == [-signal.SIGTERM] * 2 and not features.exists()
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port",
        str(free_port()), "-m", "pci_core.cli", *arguments,
    ]  # fmt: skip
    made = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert made.stdout.count("Training pci") == made.stdout.count("Extracting conv1") == 1, made.stdout
    assert made.stdout.splitlines()[-1] == str(features)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*") if p.is_file() and p.suffix != ".lock"}
    assert [(code, out) for code, out, _ in finish(both())] == [(0, f"{features}\n"), (0, "")]
    assert {p: p.stat().st_mtime_ns for p in before} == before


# --- the world, without processes


def worlds(size: int, work: Callable[[World], Any]) -> list[Any]:
    """Let threads be the processes; return what each returned or raised."""
    store, ends = dist.HashStore(), [None] * size

    def one(rank: int) -> None:
        world = World(rank, size, rank, (store, store))
        try:
            ends[rank] = work(world)
        except Exception as error:
            ends[rank] = error  # type: ignore[call-overload]
        world._beat._ended.set()

    threads = [threading.Thread(target=one, args=(r,)) for r in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return ends


def test_the_first_works_and_all_get_it() -> None:
    calls: list[int] = []

    def work(world: World) -> Any:
        found = world.first(lambda: calls.append(world.rank) or {"todo": ["a"]})
        return found, world.gather(world.rank * 10), world.first(lambda: distributed.world().size)

    assert worlds(3, work) == [({"todo": ["a"]}, [0, 10, 20], 1), ({"todo": ["a"]}, [], 1), ({"todo": ["a"]}, [], 1)]
    assert calls == [0]


def test_where_the_first_fails_all_do() -> None:
    def work(world: World) -> None:
        def fail() -> None:
            raise DeviceError("no such device")

        world.first(fail)

    first, other = worlds(2, work)
    assert isinstance(first, DeviceError)
    assert isinstance(other, DistributedError) and other.told and str(other) == "rank 0 stopped: no such device"


def test_what_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = worlds(3, lambda world: world.agree({"dataset": "abc", "precision": "float32" if world.rank < 2 else "bfloat16"}))
    assert {str(e) for e in found} == {
        "the processes do not work on the same (precision: float32 on rank 0, 1, bfloat16 on rank 2). "
        "Give all of them the same files, then start again."
    }
    assert worlds(2, lambda world: world.agree({"dataset": "abc"})) == [None, None]
    codes = iter(["a" * 64, "b" * 64])
    monkeypatch.setattr(distributed, "source_hash", lambda: next(codes))
    assert all("same (code: " in str(e) for e in worlds(2, lambda world: world.agree({})))


def test_one_process_alone_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    before = threading.active_count()
    world = World.from_environment()
    assert (world.rank, world.size, world.is_first, distributed.local_rank()) == (0, 1, True, None)
    assert world.first(lambda: object) is object and world.gather(3) == [3]
    assert not dist.is_initialized() and threading.active_count() == before


def test_an_environment_that_cannot_work_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    with pytest.raises(DistributedError, match="MASTER_ADDR not set.*torchrun"):
        World.from_environment()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr(distributed, "MEETING", 1.0)
    with pytest.raises(DistributedError, match=r"rank 0 of 2 could not meet the others at 127.0.0.1:\d+"):
        World.from_environment()
    monkeypatch.setenv("RANK", "two")
    with pytest.raises(DistributedError, match="whole numbers"):
        World.from_environment()


def test_a_process_that_one_of_ours_starts_is_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert distributed.is_started_together()
    monkeypatch.setenv("PCI_WORLD_PROCESS", "1")
    assert not distributed.is_started_together() and World.from_environment().size == 1


def test_each_process_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in (("WORLD_SIZE", "3"), ("RANK", "4"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:1") and choose_device("cpu").type == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(DeviceError, match=r"more processes than GPUs.*2 CUDA device.*--nproc-per-node 2"):
        choose_device("auto")
    with pytest.raises(DeviceError, match="'cuda:0' is a single one"):
        choose_device("cuda:0")


def test_commands_of_one_process_refuse_several(own_recipe: Path) -> None:
    assert heartbeat.LIMIT < 60  # the others end within a minute
    done = Forked(COMMAND, "recipes", WORLD_SIZE="1", RANK="0")  # one process is no company
    out, err = done.communicate()
    assert done.returncode == 0 and "simulated-human" in out, err
