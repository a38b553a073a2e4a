"""Which of the processes that work together are still there: each counts up a number, all watch the others'.

A process that was killed, stopped or cut off may leave the others waiting inside a collective operation for good. So a
thread of each writes a sign of life into the store that all share, and a second one, which needs no answer from that store,
looks at the clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

INTERVAL = 1.0  # seconds between two signs of life; longer with many processes, see `Heartbeat`
LIMIT = 45.0  # seconds without one, and a process is taken for dead: the others end within a minute
GRACE = 10.0  # seconds for the main thread to end by its own error before the watching thread ends the process
FAILED = "failed"  # the store's key for what went wrong first
LEFT = "left"


class Heartbeat:
    """Signs of life of one process, and the watch over all.

    Parameters
    ----------
    store : torch.distributed.Store
        A connection of its own: one that is shared is blocked while the main thread waits.
    rank, size : int
        This process, and how many there are.
    on_loss : callable
        Called from the watching thread with one line of what is wrong; it is to end the process.
    host : str
        Who keeps the store, in words.

    Attributes
    ----------
    failure : str
        What the first process that failed has told; empty if none.
    """

    def __init__(self, store: Any, rank: int, size: int, on_loss: Callable[[str], None], host: str) -> None:
        self._store, self._rank, self._on_loss, self._host = store, rank, on_loss, host
        self._keys = [f"beat/{r}" for r in range(size)]
        self._interval = max(INTERVAL, size / 64)  # one request reads all numbers: the store's host has `size` of them an interval
        self._count = 0
        self._seen = [""] * size
        self._moved = [time.monotonic()] * size
        self._round = time.monotonic()  # when the store answered last
        self._unreachable = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.failure = ""
        store.set(self._keys[rank], "0")

    def start(self) -> None:
        """Begin, once all processes have made theirs."""
        self._moved = [time.monotonic()] * len(self._keys)
        self._round = time.monotonic()
        for work in (self._beat, self._watch):
            threading.Thread(target=work, name=f"heartbeat{work.__name__}", daemon=True).start()

    def leave(self) -> None:
        """Stop counting and say that this process has ended well, or has told of its own error."""
        self._ended.set()
        with self._lock:  # not before a beat that is under way: it would write over it
            try:
                if not self._unreachable:
                    self._store.set(self._keys[self._rank], LEFT)
            except RuntimeError:
                self._unreachable = True

    def look(self) -> None:
        """Read the others' numbers now, beside the thread's own rounds."""
        if self._unreachable:
            return
        with self._lock:
            try:
                values = [value.decode() for value in self._store.multi_get(self._keys)]
                failure = self._store.get(FAILED).decode() if self._store.check([FAILED]) else ""
            except RuntimeError:
                self._unreachable = True
                return
        now = time.monotonic()
        for rank, value in enumerate(values):
            if value != self._seen[rank]:
                self._seen[rank], self._moved[rank] = value, now
        self._round = now
        self.failure = failure

    @property
    def unreachable(self) -> bool:
        """Whether the store is gone; asking it again is of no use."""
        return self._unreachable

    def lost(self, seconds: float | None = None) -> str:
        """Return which processes have shown no sign of life for so long, in words; empty if all have.

        Parameters
        ----------
        seconds : float, optional
            Three intervals by default: enough where another sign says already that something is wrong.
        """
        seconds = 3 * self._interval if seconds is None else seconds
        if self._unreachable:
            return f"{self._host} is"
        now = time.monotonic()
        gone = [r for r, value in enumerate(self._seen) if r != self._rank and value != LEFT and now - self._moved[r] > seconds]
        named = ", ".join(map(str, gone[:8])) + (" …" if len(gone) > 8 else "")
        return f"rank {named} is" if len(gone) == 1 else f"ranks {named} are" if gone else ""

    def others_left(self) -> bool:
        """Tell whether every other process has left, or shows no sign of life any more."""
        self.look()
        quiet = time.monotonic() - 3 * self._interval
        others = [r for r in range(len(self._keys)) if r != self._rank]
        return self._unreachable or all(self._seen[r] == LEFT or self._moved[r] < quiet for r in others)

    def _beat(self) -> None:
        while not self._ended.wait(self._interval) and not self._unreachable:
            self._count += 1
            with self._lock:
                if self._ended.is_set():
                    return
                try:
                    self._store.set(self._keys[self._rank], str(self._count))
                except RuntimeError:
                    self._unreachable = True
                    return
            self.look()

    def _watch(self) -> None:
        wrong_since: float | None = None
        last = time.monotonic()
        while not self._ended.wait(min(0.5, LIMIT / 4)):
            now = time.monotonic()
            if now - last > LIMIT / 2:  # this process or machine slept: what it has not seen meanwhile says nothing
                self._moved = [now] * len(self._keys)
                self._round, wrong_since = now, None
            last = now
            if now - self._round > LIMIT and not self._unreachable:
                self._on_loss(f"{self._host} is")
            elif found := "" if self._unreachable else self.lost(LIMIT):
                self._on_loss(found)
            wrong_since = (wrong_since or now) if self._unreachable or self.failure else None
            if wrong_since is not None and now - wrong_since > GRACE:
                self._on_loss(self.failure or self.lost())
