"""Waiting on a GPU is what lies between two events, read when both have passed."""

from __future__ import annotations

import pytest
import torch

from pci_core.waiting import Wait


class Event:
    """Stands for a CUDA event: passed and at a time, as the test says."""

    made: list[Event] = []

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at, self.passed = 0.0, False
        Event.made.append(self)

    def record(self, stream: object) -> None: ...

    def query(self) -> bool:
        return self.passed

    def elapsed_time(self, other: Event) -> float:
        return other.at - self.at


def test_device_time_is_read_when_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    Event.made.clear()
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    wait = Wait(torch.device("cuda"))
    for _ in range(3):
        with wait:
            pass
    for event, at in zip(Event.made, (0, 2000, 5000, 5000, 7000, 7500), strict=True):
        event.at = at
    assert wait.seconds == 0  # the device has not come so far
    for event in Event.made[:4]:
        event.passed = True
    assert (wait.seconds, wait.first) == (2.0, 2.0)
    for event in Event.made:
        event.passed = True
    assert (wait.seconds, wait.first) == (2.5, 2.0)
    with wait:
        pass
    wait.seconds = 1.0  # what is not counted yet belongs to what is taken back
    Event.made[-1].passed = True
    assert wait.seconds == 1.0
