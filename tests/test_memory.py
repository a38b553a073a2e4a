"""Memory: what there is, what a batch needs, and a batch too large that is refused with a size that fits."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
import torch

from pci_core import memory
from pci_core import recipe as recipes
from pci_core.cells import CellDataset
from pci_core.errors import DeviceError
from pci_core.features import extract
from pci_core.memory import FACTOR, Need, available, extraction_need, is_out_of_memory, training_need
from pci_core.networks import build
from pci_core.train import train

CPU = torch.device("cpu")
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@LINUX
def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "OWN_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "fs")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    8000 kB\n")
    assert available(CPU) == 8000 * 1024  # no groups at all

    def group(folder: str, names: tuple[str, str], limit: str, used: int, cache: str) -> None:
        (tmp_path / "fs" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / folder / names[0]).write_text(limit + "\n")
        (tmp_path / "fs" / folder / names[1]).write_text(f"{used}\n")
        (tmp_path / "fs" / folder / "memory.stat").write_text(f"anon 5\n{cache} 300\ninactive_file_other 7\n")

    v2 = ("memory.max", "memory.current")
    (tmp_path / "cgroup").write_text("0::/pod/job\n")
    group("pod/job", v2, "max", 500, "inactive_file")
    assert available(CPU) == 8000 * 1024
    group("pod", v2, "2000", 1500, "inactive_file")  # the limit stands a level higher
    assert available(CPU) == 2000 - 1500 + 300
    group("pod/job", v2, "600", 900, "inactive_file")
    assert available(CPU) == 0  # over the limit already

    (tmp_path / "cgroup").write_text("4:cpu,memory:/slurm\n3:cpuset:/\n0::/elsewhere\n")
    group("memory/slurm", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "5000", 1000, "total_inactive_file")
    assert available(CPU) == 5000 - 1000 + 300


def test_this_machine_has_memory() -> None:
    assert 1e6 < available(CPU) < 1e15


def test_sizes_are_written_for_people() -> None:
    assert [memory.gb(n) for n in (0, 65_536, 2_500_000, 140e9)] == ["0.0 kB", "65.5 kB", "2.5 MB", "140.0 GB"]


def test_a_need_and_the_batch_that_fits() -> None:
    need = Need(1000, 10)
    assert need.batch(5) == 1050 and need.largest(1050) == 5 and need.largest(1049) == 4 and need.largest(900) == 0


def test_a_wider_network_larger_crops_and_more_digits_need_more() -> None:
    def each(width: float = 0.25, side: int = 64, dtype: torch.dtype = torch.float32, kind: str = "pci", structural: int = 1) -> int:
        return training_need(build(kind, 1, structural, width), (1 + structural, side, side), 1, CPU, dtype).each

    assert each(width=0.5) == pytest.approx(2 * each(), rel=0.1)  # the inputs and the index of maxima stay
    assert each(side=128) == pytest.approx(4 * each(), rel=0.001)
    assert each(dtype=torch.bfloat16) < 1.2 * each()  # what is kept is halved; what is on the way is there twice, on a CPU
    gpu = torch.device("cuda")
    need = training_need(build("pci", 1, 1, 0.25), (2, 64, 64), 1, gpu, torch.bfloat16)
    assert 0.5 * each() < need.each < 0.65 * each()
    assert each(kind="autoencoder") < each() < each(structural=3)
    encoder = build("pci", 1, 1, 0.25).source
    assert extraction_need(encoder, (2, 64, 64), 1, CPU, torch.float32).each < 0.7 * each()


def test_counting_changes_nothing() -> None:
    model = build("pci", 1, 1, 0.05, seed=0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    training_need(model, (2, 16, 16), 1, CPU, torch.float32)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()) and torch.equal(torch.get_rng_state(), state)


PEAK = """
import json, sys
from pathlib import Path
from pci_core import recipe
from pci_core.cells import CellDataset
from pci_core.train import train
spec = recipe.load("authors-toy-yeast").replace(training=dict(epochs=1, batch_size=int(sys.argv[3]), width=0.05, holdout=0.0))
train(CellDataset(sys.argv[1]), spec, sys.argv[2], precision="float32", device="cpu", quiet=True)
print(next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")))
"""


@LINUX
def test_the_estimate_brackets_a_measured_peak(make_cells: Callable[..., CellDataset], tmp_path: Path) -> None:
    dataset, (small, large) = make_cells(images=8, cells=32, side=64), (32, 256)
    peaks = []
    for size in (small, large):
        told = forked.run(PEAK, dataset.folder, tmp_path / str(size), size)  # both begin with the same pages, so these cancel
        peaks.append(json.loads(told.splitlines()[-1]))
    measured = (peaks[1] - peaks[0]) / (large - small)
    estimate = training_need(build("pci", 1, 1, 0.05), dataset.crops.shape[1:], 1, CPU, torch.float32).each
    # the bounds that the module states; the allocator's blocks and the libraries' own copies are not counted but measured
    assert 0.9 * measured < estimate < FACTOR * measured, (measured, estimate)


def small_memory(monkeypatch: pytest.MonkeyPatch, need: Need, size: int) -> None:
    room = need.batch(size) + need.each // 2
    monkeypatch.setattr(memory, "available", lambda device: room)


def test_a_batch_too_large_is_refused_before_training(
    make_cells: Callable[..., CellDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_cells(images=8, cells=12)
    spec = recipes.load("authors-toy-yeast").replace(training={"epochs": 1, "width": 0.05, "batch_size": 64, "holdout": 0.25})
    need = training_need(build("pci", 1, 1, 0.05), dataset.crops.shape[1:], 1, CPU, torch.float32)
    small_memory(monkeypatch, need, 23)
    out = tmp_path / "m"
    with pytest.raises(DeviceError, match=r"batches of 64 pairs needs about .* MB .* 23 fit: set \[training\] batch_size to 23 or less"):
        train(dataset, spec, out, device="cpu", precision="float32", quiet=True)
    assert not list(out.iterdir())
    train(dataset, spec.replace(training={"batch_size": 23}), out, device="cpu", precision="float32", quiet=True)

    small_memory(monkeypatch, need, 0)
    with pytest.raises(DeviceError, match="Not even one fits .* smaller crops"):
        train(dataset, spec, tmp_path / "none", device="cpu", precision="float32", quiet=True)


def test_a_batch_too_large_is_refused_before_extraction(
    make_cells: Callable[..., CellDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, encoder = make_cells(), build("pci", 1, 1, 0.05).source
    spec, outputs = recipes.load("authors-toy-yeast").preprocess, {"conv1": tmp_path / "f" / "conv1.h5ad"}
    small_memory(monkeypatch, extraction_need(encoder, dataset.crops.shape[1:], 1, CPU, torch.float32), 7)
    with pytest.raises(DeviceError, match="extraction in batches of 24 cells .* 7 fit: set batch_size to 7 or less"):
        extract(dataset, encoder, outputs, spec, {}, device="cpu", precision="float32", quiet=True, batch_size=24)
    assert not (tmp_path / "f").exists()
    extract(dataset, encoder, outputs, spec, {}, device="cpu", precision="float32", quiet=True, batch_size=7)
    whole = outputs["conv1"].read_bytes()
    outputs["conv1"].unlink()
    extract(dataset, encoder, outputs, spec, {}, device="cpu", precision="float32")  # by itself it takes what fits, and says so
    assert "7 at a time" in capsys.readouterr().out and len(outputs["conv1"].read_bytes()) == len(whole)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"), "Tried to allocate 2.00 GiB"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"), "DefaultCPUAllocator"),
        (MemoryError(), "no more is known"),
    ],
)
def test_memory_that_runs_out_says_what_to_do(error: Exception, told: str) -> None:
    assert is_out_of_memory(error)

    @memory.told_when_out("training", "[training] batch_size")
    def work() -> None:
        raise error

    with pytest.raises(DeviceError, match=rf"training ran out of memory \(.*{told}.*\). Halve \[training\] batch_size"):
        work()


def test_real_exhaustion_is_recognised_and_other_errors_pass() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)

    @memory.told_when_out("training", "[training] batch_size")
    def work() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        work()
