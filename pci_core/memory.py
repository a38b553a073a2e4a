"""How much memory there is, how much a batch needs, and the largest batch that fits: said before the work begins.

What autograd keeps of a pair is counted on the network itself, from a forward pass of a small crop, and grows with the
pixels. What comes and goes (outputs, gradients and copies of the widest layer, what the allocator leaves between blocks)
was measured: `TRAINING` or `EXTRACTION` times the widest layer. Measured on a CPU with glibc, as the growth
of the process's peak resident memory from one batch size to the next, each a process of its own, at widths 0.05, 0.25 and 1,
crops of 16 to 192 px, batches of 8 to 1024, float32 and (without units for it) bfloat16. The estimate lay between 0.95 and 1.4
times the growth. A GPU was not measured: it frees sooner, so there the estimate should lie rather above, and memory that
runs out all the same is told as such (`told_when_out`).
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pci_core.encoders import Encoder
from pci_core.errors import DeviceError
from pci_core.networks import Model

TRAINING, EXTRACTION = 8.0, 3.0  # temporaries, times the widest layer; 5 to 8 and 2.4 to 2.9 were measured
FACTOR = 1.6  # how far above the measured growth the estimate may lie; tested
_FIXED = {"cpu": 128 << 20, "cuda": 512 << 20, "mps": 512 << 20}  # libraries' own buffers; measured on the CPU, taken for granted elsewhere
_SIDE = 32  # px of the small crop that is counted on
CGROUPS, MEMINFO, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/meminfo"), Path("/proc/self/cgroup")

P = ParamSpec("P")
R = TypeVar("R")


def gb(n: float) -> str:
    """Write bytes for people, in kB, MB or GB (10^9)."""
    unit, size = ("GB", 1e9) if n >= 1e9 else ("MB", 1e6) if n >= 1e6 else ("kB", 1e3)
    return f"{n / size:.1f} {unit}"


# --- what is there


def available(device: torch.device) -> int:
    """Return the bytes that can still be taken on a device.

    On CUDA free memory and what torch holds without using it; on MPS what the system recommends; on the CPU the memory
    that the system calls available, or what the container's limit (cgroup v1 or v2) leaves if that is less.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return min([_system(), *_limits()])


def _system() -> int:
    try:
        lines = MEMINFO.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    if sys.platform == "win32":
        return _windows()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # macOS: all there is; what is in use is not told without a library


def _windows() -> int:
    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong), *((name, ctypes.c_ulonglong) for name in "abcdefg")]

    status = Status(length=ctypes.sizeof(Status))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status.b)  # ullAvailPhys


def _limits() -> Iterator[int]:
    """Yield what each limit on this process's group, or one above it, leaves."""
    try:
        lines = [line.split(":", 2) for line in OWN_GROUP.read_text().splitlines()]
    except OSError:
        return  # no Linux
    for _, kinds, path in lines:
        if kinds == "":
            root, limit, used, cache = CGROUPS, "memory.max", "memory.current", "inactive_file "
        elif "memory" in kinds.split(","):
            root, limit, used, cache = CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            with contextlib.suppress(OSError, ValueError):  # "max" is no number; a container does not see the groups above
                bound = int((folder / limit).read_text())
                lines_of = (folder / "memory.stat").read_text().splitlines()
                freed = sum(int(line.split()[1]) for line in lines_of if line.startswith(cache))  # file cache, given up when needed
                yield max(0, bound - int((folder / used).read_text()) + freed)
            if folder == root:
                break


# --- what is needed


@dataclass(frozen=True)
class Need:
    """Bytes that a network needs, once and for each pair or cell of a batch."""

    fixed: int
    each: int

    def batch(self, size: int) -> int:
        """Bytes for a batch."""
        return self.fixed + self.each * size

    def largest(self, room: int) -> int:
        """The largest batch that fits into `room` bytes, 0 if none does."""
        return max(0, (room - self.fixed) // self.each)


def _count(network: nn.Module, call: Callable[[nn.Module, Tensor], object], channels: int) -> tuple[float, float, float, float]:
    """Count what autograd keeps: floats and other bytes a pixel of a crop, floats of the widest layer a pixel, floats once."""
    network = copy.deepcopy(network).to("cpu", torch.float32).train().requires_grad_(True)
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    found = []
    for n in (1, 2):  # what does not grow from one crop to two is kept once
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor, kept: dict[int, Tensor] = kept) -> Tensor:
            if tensor.untyped_storage()._cdata not in own:
                kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with torch.enable_grad(), torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            result = call(network, torch.zeros(n, channels, _SIDE, _SIDE))
        del result
        floats = [t for t in kept.values() if t.is_floating_point()]
        sizes = [sum(t.numel() for t in floats), sum(t.untyped_storage().nbytes() for t in kept.values() if not t.is_floating_point())]
        found.append((*sizes, max(t.numel() for t in floats if t.ndim == 4 and len(t) % n == 0 and t.shape[2] >= _SIDE // 4)))
    pixels = _SIDE**2
    (a, b, _), (c, d, widest) = found
    return (c - a) / pixels, (d - b) / pixels, widest / 2 / pixels, 2 * a - c


def training_need(model: Model, crop: tuple[int, ...], itemsize: int, device: torch.device, dtype: torch.dtype) -> Need:
    """Estimate what a training step needs beside the crops that are held.

    Parameters
    ----------
    model : Model
        As built.
    crop : tuple of int
        (C, H, W).
    itemsize : int
        Bytes of a stored pixel.
    device : torch.device
    dtype : torch.dtype
        What products are computed in.
    """
    floats, others, widest, once = _count(model, lambda m, x: m.loss(x, x), crop[0])  # type: ignore[operator]
    pixels = crop[1] * crop[2]
    temporary = pixels * widest * _temporary_size(device, dtype)
    each = pixels * (dtype.itemsize * floats + others) + temporary * TRAINING + _inputs(2, crop, itemsize)
    weights = sum(p.numel() for p in model.parameters())
    fixed = _FIXED.get(device.type, 0) + 4 * 4 * weights + 2 * dtype.itemsize * once  # gradient, two moments and a copy of each weight
    return Need(int(fixed), int(each))


def held_out_size(batch_size: int) -> int:
    """Return how many pairs to measure the held-out loss on at a time: without gradients twice a batch takes less (7/10 were measured)."""
    return min(256, 2 * batch_size)


def extraction_need(encoder: Encoder, crop: tuple[int, ...], itemsize: int, device: torch.device, dtype: torch.dtype) -> Need:
    """Estimate what describing a batch of cells needs; the arguments are those of `training_need`."""
    widest = _count(encoder, lambda m, x: m.features(x), crop[0])[2]  # type: ignore[operator]
    each = crop[1] * crop[2] * widest * _temporary_size(device, dtype) * EXTRACTION + _inputs(1, crop, itemsize)
    return Need(int(_FIXED.get(device.type, 0)), int(each))


def _temporary_size(device: torch.device, dtype: torch.dtype) -> int:
    if device.type != "cpu" or dtype == torch.float32:
        return dtype.itemsize
    return dtype.itemsize + 4  # a CPU without units for bfloat16 has a float32 copy beside it; measured there


def _inputs(crops: int, crop: tuple[int, ...], itemsize: int) -> float:
    return crops * float(np.prod(crop)) * (4 * itemsize + 3 * 4)  # as stored: two read ahead, one here, one flipped; rescaled, in float32


def check_batch(need: Need, size: int, device: torch.device, work: str, unit: str, where: str) -> int:
    """Refuse a batch that does not fit into memory; return the bytes that it needs.

    Parameters
    ----------
    need : Need
    size : int
        Pairs or cells of a batch.
    device : torch.device
    work : str
        E.g. ``"training"``.
    unit : str
        ``"pairs"`` or ``"cells"``.
    where : str
        What sets the size, for the message.

    Raises
    ------
    DeviceError
        It does not fit. The message says what is needed, what there is and the largest size that fits.
    """
    room = available(device)
    if need.batch(size) <= room:
        return need.batch(size)
    told = f"{work} in batches of {size} {unit} needs about {gb(need.batch(size))} of memory on {device}, and {gb(room)} are free."
    fits = need.largest(room)
    if fits:
        raise DeviceError(f"{told} {fits} fit: set {where} to {fits} or less.")
    raise DeviceError(
        f"{told} Not even one fits ({gb(need.batch(1))}). Take smaller crops ([crop] resize), a smaller width ([training] width), "
        "or a device with more memory."
    )


# --- when it was not enough

_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "could not create a memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error is torch's or Python's way to say that memory is used up."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def told_when_out(work: str, where: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate long work so that memory which runs out becomes a `DeviceError` that says what to do.

    Parameters
    ----------
    work : str
        E.g. ``"training"``.
    where : str
        What sets the batch size.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                first = str(error).strip().splitlines() or ["no more is known"]
                raise DeviceError(
                    f"{work} ran out of memory ({first[0][:200]}). Halve {where}, close other programs on the device, or take another one."
                ) from error

        return call

    return decorate
