"""Device and precision: what there is is taken, what there is not is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pci_core import recipe
from pci_core.cells import CellDataset
from pci_core.device import autocast, blank, choose_device, choose_precision, compile_mode, describe
from pci_core.errors import DeviceError, UnknownNameError
from pci_core.train import train

CPU = torch.device("cpu")


def test_auto_takes_the_best_there_is() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device().type == expected


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown device 'gpu'"):
        choose_device("gpu")
    with pytest.raises(DeviceError, match="cuda:99.*not available"):
        choose_device("cuda:99")
    with pytest.raises(DeviceError, match="float16 is for GPUs"):
        choose_precision(CPU, "float16")
    with pytest.raises(UnknownNameError, match="'bf16'"):
        choose_precision(CPU, "bf16")


def test_what_is_not_there_is_refused_before_any_work(
    make_cells: Callable[..., CellDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr("pci_core.train.build", lambda *_, **__: pytest.fail("work had begun"))
    spec = recipe.load("authors-toy-yeast")
    for name, match in (("cuda:7", r"'cuda:7' is not available: this machine has 2 CUDA"), ("mps", "'mps' is not available here; use")):
        with pytest.raises(DeviceError, match=match):
            train(make_cells(name=name.replace(":", "")), spec, tmp_path / "model", device=name, quiet=True)
    assert not list((tmp_path / "model").iterdir())


def test_a_gpu_without_bfloat16_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(DeviceError, match=r"Tesla T4 \(cuda:0\) has compute capability 7.5 .* --precision float16, or --precision auto"):
        choose_precision(gpu, "bfloat16")
    assert choose_precision(gpu) == choose_precision(gpu, "float16") == torch.float16
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert choose_precision(gpu) == choose_precision(gpu, "bfloat16") == torch.bfloat16


def test_precision_of_the_cpu_follows_its_units(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("pci_core.device._cpu_has_bfloat16", lambda there=there: there)
        assert choose_precision(CPU) == expected
    assert choose_precision(CPU, "float32") == torch.float32


def test_autocast_changes_the_type_of_products() -> None:
    x = torch.ones(2, 2)
    with autocast(CPU, torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
    with autocast(CPU, torch.float32):
        assert (x @ x).dtype == torch.float32
    assert "bfloat16" in describe(CPU, torch.bfloat16)


def test_what_is_compiled_where() -> None:
    cpu, cuda = CPU, torch.device("cuda")
    assert [compile_mode(cpu, how) for how in ("auto", "on", "off")] == [None, "default", None]
    assert [compile_mode(cuda, how) for how in ("auto", "on", "graphs", "off")] == ["default", "default", "reduce-overhead", None]
    with pytest.raises(DeviceError, match="CUDA graphs need a CUDA device, this is 'cpu'"):
        compile_mode(cpu, "graphs")
    with pytest.raises(UnknownNameError, match="'yes'"):
        compile_mode(cpu, "yes")


def test_a_blank_batch_has_the_stored_type() -> None:
    for name in ("uint8", "uint16", "float32"):
        found = blank((2, 3), name, CPU)
        assert (str(found.dtype), tuple(found.shape)) == (f"torch.{name}", (2, 3))
