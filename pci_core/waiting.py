"""How long work stands still for something, without making a GPU wait to find out."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType

import torch


class Wait:
    """Seconds spent inside ``with`` blocks.

    On CUDA these are the device's: an event before the block, which the device passes when it has done all that
    it was told, and one after it; what lies between is the time in which it had nothing to do. While it still works
    on earlier steps, a block costs nothing. The events are read when they have passed, so no step is synchronised.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self.first = 0.0  # of the first block: a beginning, not a rate
        self._device, self._seconds, self._blocks = device, 0.0, 0
        self._pending: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    def __enter__(self) -> None:
        if self._device.type == "cuda":
            self._before = torch.cuda.Event(enable_timing=True)
            self._before.record(torch.cuda.current_stream(self._device))
        else:
            self._began = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._device.type == "cuda":
            after = torch.cuda.Event(enable_timing=True)
            after.record(torch.cuda.current_stream(self._device))
            self._pending.append((self._before, after))
        else:
            self._add(time.perf_counter() - self._began)

    def _add(self, seconds: float) -> None:
        self._seconds += seconds
        if not self._blocks:
            self.first = seconds
        self._blocks += 1

    @property
    def seconds(self) -> float:
        """Seconds waited, as far as the device has come."""
        while self._pending and self._pending[0][1].query():
            before, after = self._pending.popleft()
            self._add(before.elapsed_time(after) / 1000)
        return self._seconds

    @seconds.setter
    def seconds(self, value: float) -> None:
        self._pending.clear()
        self._seconds = value
