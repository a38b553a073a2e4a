"""Which device and precision to compute with, and what to set up for it."""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from pci_core.distributed import local_rank
from pci_core.errors import DeviceError, unknown_name

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
COMPILE = ("auto", "on", "graphs", "off")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device to compute on: CUDA, else Apple's MPS, else the CPU, or the one named.

    Where several processes train together (see `pci_core.distributed`), each gets the CUDA device of its number on the machine.

    Raises
    ------
    DeviceError
        The named device is not there, or there are more processes than devices.
    """
    if (number := local_rank()) is not None:
        name = _own_device(name, number)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise unknown_name("device", name, ("auto", "cpu", "cuda", "cuda:0", "mps")) from None
    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not found.get(device.type, False):
        raise DeviceError(f"device '{name}' is not available here; use --device cpu, or --device auto to take the best there is.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device '{name}' is not available: this machine has {torch.cuda.device_count()} CUDA device(s), numbered from 0."
        )
    return device


def _own_device(name: str, number: int) -> str:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "mps" or name.startswith("cuda:"):
        raise DeviceError(f"device '{name}' is a single one, and several processes work together; use --device cuda or cpu.")
    if name != "cuda" or not torch.cuda.is_available():
        return name
    if number >= torch.cuda.device_count():
        raise DeviceError(
            f"more processes than GPUs: process {number + 1} on a machine with {torch.cuda.device_count()} CUDA device(s). "
            f"Start with --nproc-per-node {torch.cuda.device_count()}."
        )
    return f"cuda:{number}"


def choose_precision(device: torch.device, name: str = "auto") -> torch.dtype:
    """Return the type to multiply in: bfloat16 where the processor has it, else float16 (GPU), else float32.

    Raises
    ------
    DeviceError
        The named precision cannot be used on this device.
    """
    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS)
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if _gpu_has_bfloat16(device) else torch.float16
        if device.type == "cpu" and _cpu_has_bfloat16():
            return torch.bfloat16
        return torch.float32
    if name == "bfloat16" and device.type == "cuda" and not _gpu_has_bfloat16(device):
        major, minor = torch.cuda.get_device_capability(device)
        raise DeviceError(
            f"bfloat16 was asked for, but {torch.cuda.get_device_name(device)} ({device}) has compute capability {major}.{minor} and "
            "multiplies in bfloat16 from 8.0 on; use --precision float16, or --precision auto to take what it has."
        )
    if name == "float16" and device.type == "cpu":
        raise DeviceError("float16 is for GPUs; use --precision bfloat16 or float32 on the CPU.")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def _gpu_has_bfloat16(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _cpu_has_bfloat16() -> bool:
    # without such units bfloat16 is emulated and slower than float32
    return any(bool(getattr(torch.cpu, test, lambda: False)()) for test in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """Return the context in which forward passes run at `precision`."""
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision)


def describe(device: torch.device, precision: torch.dtype) -> str:
    """Return the device and precision in words, for the first line of long work."""
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)} ({device})"
    else:
        name = f"{device.type} ({_processor()}, {torch.get_num_threads()} threads)"
    return f"{name}, {str(precision).removeprefix('torch.')}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            return next(line.split(":", 1)[1].strip() for line in handle if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def compile_mode(device: torch.device, how: str = "auto") -> str | None:
    """Return the mode to give to `torch.compile`, None where nothing shall be compiled.

    Parameters
    ----------
    device : torch.device
    how : str
        ``"on"``, ``"graphs"`` (CUDA graphs too, which save the starts of many small kernels: for batches so small that the
        processor cannot start them fast enough), ``"off"``, or ``"auto"``: on for CUDA, off elsewhere, where it gains
        little and costs a minute or more.

    Raises
    ------
    DeviceError
        CUDA graphs on another device.
    """
    if how not in COMPILE:
        raise unknown_name("way to compile", how, COMPILE)
    if how == "graphs" and device.type != "cuda":
        raise DeviceError(f"CUDA graphs need a CUDA device, this is '{device}'; use --compile on or off.")
    if how == "off" or (how == "auto" and device.type != "cuda"):
        return None
    return "reduce-overhead" if how == "graphs" else "default"


NOT_COMPILED = "not compiled"


def warm_up(work: Callable[[], object]) -> str:
    """Run what was given to `torch.compile` for the first times; return what to print of it.

    The text begins with `NOT_COMPILED` where there is no compiler or it failed: then the caller goes on with the
    function as it was.
    """
    began = time.perf_counter()
    try:
        for _ in range(3):  # compiled, then recorded where there are graphs, then replayed
            work()
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # a compiler that is missing or fails has no error class of its own
        return f"{NOT_COMPILED}: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return f"compiled in {time.perf_counter() - began:.0f} s"


def blank(shape: tuple[int, ...], dtype: str, device: torch.device) -> torch.Tensor:
    """Return zeros of a stored type, e.g. ``"uint8"``, on the device: a batch to compile for."""
    return torch.zeros(shape, dtype=getattr(torch, dtype), device=device)


def tune(device: torch.device) -> None:
    """Set what makes long work with batches of one size faster on a device: convolution algorithms, kept memory."""
    keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # tries the algorithms once for each shape: seconds at the start


@functools.cache
def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks instead of returning them to the system at every step.

    Large batches run about twice as fast on the CPU with it. Returns whether it could be set
    (Linux with glibc only; elsewhere nothing is done).
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    m_trim_threshold, m_mmap_max = -1, -4
    libc = ctypes.CDLL("libc.so.6")
    return bool(libc.mallopt(m_mmap_max, 0) and libc.mallopt(m_trim_threshold, -1))
