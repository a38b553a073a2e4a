"""Whole images read in blocks into a buffer on the device, the next chunk while the network works on this one.

The file is read and not mapped, so memory stays flat, and whether its pages are in the system's cache or
on the disk is the system's affair: the same path serves both.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pci_core.cells import CellDataset
from pci_core.errors import DatasetError
from pci_core.pairs import Chunk

BLOCK = 32 << 20  # bytes read at once: enough for the full rate of a disk or a bus, and the thread can be stopped between two
_KEPT_AS = {"uint8": torch.uint8, "uint16": torch.int16, "float32": torch.float32}  # uint16 cannot be indexed everywhere; same bits


@dataclass
class Rate:
    """How much was read, and in how long."""

    bytes: int = 0
    seconds: float = 0.0

    @contextlib.contextmanager
    def of(self, n: int) -> Iterator[None]:
        """Count a read of `n` bytes."""
        began = time.perf_counter()
        yield
        self.bytes, self.seconds = self.bytes + n, self.seconds + time.perf_counter() - began

    @property
    def mb_per_second(self) -> float:
        """Megabytes (10^6) a second; 0 before anything was read."""
        return self.bytes / self.seconds / 1e6 if self.seconds else 0.0


def new_buffer(dataset: CellDataset, cells: int, device: torch.device, pinned: bool = False) -> Tensor:
    """Return an empty (cells, C, H, W) tensor for stored crops; uint16 is kept as int16, see `as_stored`."""
    kept = _KEPT_AS[dataset.crops.dtype.name]
    return torch.empty((cells, *dataset.crops.shape[1:]), dtype=kept, device=device, pin_memory=pinned)


def as_stored(crops: Tensor) -> Tensor:
    """Give crops out of a `new_buffer` their stored dtype back; nothing is copied."""
    return crops.view(torch.uint16) if crops.dtype == torch.int16 else crops


class Held:
    """Crops of some ranges of rows, side by side in a buffer, taken by their row in the dataset."""

    def __init__(self, buffer: Tensor, spans: np.ndarray) -> None:
        length = spans[:, 1] - spans[:, 0]
        self.buffer = buffer
        self._first = torch.from_numpy(spans[:, 0].copy()).to(buffer.device)
        self._last = torch.from_numpy(spans[:, 1].copy()).to(buffer.device)
        self._shift = torch.from_numpy(np.cumsum(length) - length - spans[:, 0]).to(buffer.device)

    def take(self, rows: Tensor) -> Tensor:
        """Return the crops of `rows`, (len(rows), C, H, W), as the buffer keeps them (see `as_stored`).

        Raises
        ------
        DatasetError
            A row is not held here (seen on the CPU only: elsewhere the look would make the device wait).
        """
        rows = rows.to(self.buffer.device)
        span = (torch.searchsorted(self._first, rows, right=True) - 1).clamp_(min=0)
        if rows.device.type == "cpu" and bool(((rows < self._first[span]) | (rows >= self._last[span])).any()):
            raise DatasetError("rows were asked for that are not among the images of this feed; sampler and feed need the same images.")
        return self.buffer[rows + self._shift[span]]


def load(
    dataset: CellDataset,
    spans: np.ndarray,
    buffer: Tensor,
    rate: Rate,
    stop: Callable[[], bool] = lambda: False,
    staging: Sequence[Tensor] = (),
) -> None:
    """Read ranges of rows into `buffer`, one after another, in blocks.

    Parameters
    ----------
    dataset : CellDataset
    spans : ndarray
        (k, 2) ranges of rows.
    buffer : Tensor
        See `new_buffer`; on the CPU it is read into directly.
    rate : Rate
        Told of each read.
    stop : callable
        Looked at between blocks; once it says True the rest is left out.
    staging : sequence of Tensor
        On other devices: buffers in host memory, page-locked for CUDA, of which one is read into while the other is
        copied, on torch's current stream. The copies are complete when this returns.

    Raises
    ------
    DatasetError
        The file ends early or changed.
    """
    row = dataset.crops[0].nbytes
    step = max(1, BLOCK // row) if not staging else len(staging[0])
    copied: list[torch.cuda.Event | None] = [None] * len(staging)
    turn = filled = position = 0  # which staging buffer, rows in it, rows in `buffer`

    def flush() -> None:
        nonlocal turn, filled, position
        on_cuda = buffer.device.type == "cuda"  # elsewhere a copy that does not block may still be under way when we overwrite its source
        buffer[position : position + filled].copy_(staging[turn][:filled], non_blocking=on_cuda)
        if on_cuda:
            copied[turn] = event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(buffer.device))
        position, filled, turn = position + filled, 0, (turn + 1) % len(staging)
        if (before := copied[turn]) is not None:
            before.synchronize()  # this buffer is read into next

    try:
        with dataset.opened() as file:
            for first, last in spans.tolist():
                while first < last:
                    if stop():
                        return
                    n = min(last - first, step - filled)
                    target = staging[turn][filled : filled + n] if staging else buffer[position : position + n]
                    with rate.of(n * row):
                        file.read(first, target.numpy())
                    first += n
                    if staging:
                        filled += n
                        if filled == step:
                            flush()
                    else:
                        position += n
        if filled:
            flush()
    finally:
        if buffer.device.type == "cuda":
            torch.cuda.current_stream(buffer.device).synchronize()  # this thread waits, the network does not


def staging_for(dataset: CellDataset, device: torch.device) -> list[Tensor]:
    """Return the two host buffers that `load` wants for this device; none on the CPU."""
    if device.type == "cpu":
        return []
    rows = max(1, BLOCK // dataset.crops[0].nbytes)
    return [new_buffer(dataset, rows, torch.device("cpu"), device.type == "cuda") for _ in range(2)]


@dataclass
class _Slot:
    """One of the two buffers, and when the device has done with what was in it."""

    buffer: Tensor
    done: torch.cuda.Event | None = field(default=None)


class ChunkReader:
    """Read chunks in order into two buffers on the device, on a thread of its own.

    Parameters
    ----------
    dataset : CellDataset
    device : torch.device
    cells : int
        Cells of the largest chunk; two such buffers are allocated.
    rate : Rate
        Told of each read.
    """

    def __init__(self, dataset: CellDataset, device: torch.device, cells: int, rate: Rate) -> None:
        self.cells = cells
        self.coming: deque[Chunk] = deque()  # asked for, not yet delivered
        if device.type == "cuda" and device.index is None:  # a new thread has another current device than this one
            device = torch.device("cuda", torch.cuda.current_device())
        self._dataset, self._device, self._rate = dataset, device, rate
        self._plan: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[_Slot | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[_Slot | BaseException] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._slot: _Slot | None = None  # what the consumer works on
        for _ in range(2):
            self._give_back(_Slot(new_buffer(dataset, cells, device)))
        self._thread = threading.Thread(target=self._work, name="chunks", daemon=True)
        self._thread.start()

    def add(self, chunks: Sequence[Chunk]) -> None:
        """Ask for further chunks."""
        for chunk in chunks:
            self.coming.append(chunk)
            self._plan.put(chunk)

    def next(self) -> Held:
        """Wait for the next chunk; it is valid until `release`.

        Raises
        ------
        DatasetError
            Reading failed; later calls would wait for ever, so close the reader.
        """
        got = self._ready.get()
        if isinstance(got, BaseException):
            raise got
        self._slot = got
        return Held(got.buffer, self.coming.popleft().spans)

    def release(self) -> None:
        """Let the buffer of the chunk that `next` gave be overwritten, once the device has done what it was told so far."""
        assert self._slot is not None
        self._give_back(self._slot)
        self._slot = None

    def _give_back(self, slot: _Slot) -> None:
        if self._device.type == "cuda":
            slot.done = torch.cuda.Event()
            slot.done.record(torch.cuda.current_stream(self._device))
        self._free.put(slot)

    def stop(self) -> None:
        """Tell the thread to end after the block it is reading."""
        self._stopped.set()
        self._plan.put(None)
        self._free.put(None)

    def close(self) -> None:
        """End the thread and wait for it."""
        self.stop()
        self._thread.join()

    def _work(self) -> None:
        try:
            if self._device.type == "cuda":
                with torch.cuda.stream(torch.cuda.Stream(self._device)):
                    self._read_all()
            else:
                self._read_all()
        except BaseException as error:  # told to the consumer, who raises it
            self._ready.put(error)

    def _read_all(self) -> None:
        staging = staging_for(self._dataset, self._device)
        while True:
            chunk, slot = self._plan.get(), self._free.get()
            if chunk is None or slot is None or self._stopped.is_set():
                return
            if slot.done is not None:
                torch.cuda.current_stream(self._device).wait_event(slot.done)
            load(self._dataset, chunk.spans, slot.buffer, self._rate, self._stopped.is_set, staging)
            self._ready.put(slot)
