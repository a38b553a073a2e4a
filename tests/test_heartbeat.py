"""Signs of life: who stops giving them is named, who leaves is not, and a silent store is noticed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch.distributed as dist

from pci_core import heartbeat
from pci_core.heartbeat import FAILED, Heartbeat


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.05)
    monkeypatch.setattr(heartbeat, "LIMIT", 1.0)
    monkeypatch.setattr(heartbeat, "GRACE", 0.3)


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "nothing was noticed"
        time.sleep(0.02)


def test_who_falls_silent_is_named_and_who_left_is_not() -> None:
    store, told = dist.HashStore(), list[str]()
    first, leaving, dying = (Heartbeat(store, r, 3, told.append, "rank 0") for r in range(3))
    for beat in (first, leaving, dying):
        beat.start()
    leaving.leave()
    dying._ended.set()  # as if it was killed: it says nothing
    wait_for(lambda: told)
    first.leave()
    assert told[0] == "rank 2 is" and first.lost(0.5) == "rank 2 is" and first.others_left()


def test_nobody_is_lost_while_all_give_signs() -> None:
    store, told = dist.HashStore(), list[str]()
    beats = [Heartbeat(store, r, 2, told.append, "rank 0") for r in range(2)]
    for beat in beats:
        beat.start()
    time.sleep(1.5)  # longer than the limit
    assert not told and not beats[0].lost(0.9) and not beats[0].others_left()
    for beat in beats:
        beat.leave()


def test_an_error_of_another_ends_a_process_that_hangs() -> None:
    store, told = dist.HashStore(), list[str]()
    beats = [Heartbeat(store, r, 2, told.append, "rank 0") for r in range(2)]
    for beat in beats:
        beat.start()
    store.compare_set(FAILED, "", "rank 1 stopped: the disk is full")
    wait_for(lambda: told)
    for beat in beats:
        beat.leave()
    assert set(told) == {"rank 1 stopped: the disk is full"}


class Store:
    """A store whose host is frozen: nothing comes back; or gone: every question fails."""

    def __init__(self, gone: bool) -> None:
        self.gone, self.thawed = gone, threading.Event()

    def set(self, key: str, value: str) -> None:
        if value != "0":
            if self.gone:
                raise RuntimeError("Connection reset by peer")
            self.thawed.wait(60)
            raise RuntimeError("Connection reset by peer")


@pytest.mark.parametrize("gone", [True, False])
def test_a_store_that_is_gone_or_frozen_is_noticed(gone: bool) -> None:
    told = list[str]()
    store = Store(gone)
    beat = Heartbeat(store, 1, 2, told.append, "rank 0")
    beat.start()
    wait_for(lambda: told)
    beat._ended.set()
    store.thawed.set()
    assert told[0] == "rank 0 is"
