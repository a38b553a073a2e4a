"""Ctrl-C during long work: the step that is being computed is ended first, so that what is kept is whole."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType


class Stopping:
    """Turn the first Ctrl-C (SIGINT) inside the block into a wish, `asked`; a second one interrupts at once.

    Signals reach the main thread only: in another thread, or where `active` is false, Ctrl-C is left as it is.

    Parameters
    ----------
    told : str
        What to print on stderr at the first Ctrl-C; nothing where empty.
    active : bool

    Attributes
    ----------
    asked : bool
        Whether Ctrl-C was pressed. Look at it after each step, keep what there is, and raise ``KeyboardInterrupt``.
    """

    def __init__(self, told: str = "", active: bool = True) -> None:
        self.told, self.asked = told, False
        self._active = active and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Stopping:
        if self._active:
            self._before = signal.getsignal(signal.SIGINT)
            self._active = self._before is not None  # None: set by something that is not Python, which cannot be put back
        if self._active:
            signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._active:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self.told:
            print(f"\n{self.told}", file=sys.stderr, flush=True)
