"""Steps: made once, made again when what they were made from changes, several in one pass."""

from __future__ import annotations

import os
from pathlib import Path

import joblib
import pytest

from pci_core.steps import Steps


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    return Steps(tmp_path / "steps")


def test_only_what_is_missing_is_made(steps: Steps, tmp_path: Path) -> None:
    files = {name: [tmp_path / "features" / f"{name}.txt"] for name in "abc"}
    (tmp_path / "features").mkdir()
    made: list[list[str]] = []

    def work(todo: list[str]) -> None:
        made.append(todo)
        for name in todo:
            files[name][0].write_text(name)

    steps.make_all({n: files[n] for n in "ab"}, {"x": 1}, work)
    steps.make_all(files, {"x": 1}, work)
    assert made == [["a", "b"], ["c"]]
    files["b"][0].unlink()
    steps.make_all(files, {"x": 1}, work)
    steps.make_all(files, {"x": 2}, work)
    assert made[2:] == [["b"], ["a", "b", "c"]]


def test_a_step_that_fails_is_not_noted(steps: Steps, tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        steps.make("s", {}, [tmp_path / "s.txt"], fail)
    assert steps.stamp("s") is None and not steps.is_made("s", {}, [])


def test_a_stamp_says_what_was_made_from_what(steps: Steps, tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    steps.make("models/pci", {"epochs": 2}, [path], lambda: path.write_text("12345"))  # type: ignore[arg-type, return-value]
    stamp = steps.stamp("models/pci")
    assert stamp is not None and stamp["inputs"] == {"epochs": 2}
    assert stamp["files"]["out.txt"][0] == 5
    assert steps.is_made("models/pci", {"epochs": 2}, [path]) and not steps.is_made("models/pci", {"epochs": 3}, [path])


def test_workers_end_with_the_step(steps: Steps, tmp_path: Path) -> None:
    workers: set[int] = set()

    def work() -> None:
        workers.update(joblib.Parallel(n_jobs=2)(joblib.delayed(os.getpid)() for _ in range(8)))
        (tmp_path / "out").write_text("made")

    steps.make("one", {}, [tmp_path / "out"], work)
    assert workers and os.getpid() not in workers
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(i) for i in (-1, -2)) == [1, 2]  # and others start when they are needed
