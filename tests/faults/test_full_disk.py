"""A disk that fills up at a random byte, a folder that turns read-only: a clear error, nothing lost, and all well afterwards."""

from __future__ import annotations

import errno
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import scenes
from cuts import Trial
from forks import Ended, Forks
from scenes import SCENES, Scene

TIMES = 20
NAMED = {s.name: s for s in SCENES}
STEPS = [NAMED[n] for n in ("simulate", "cells", "train", "features", "weights export", "weights import", "baselines", "init")]
REMEDIES = ("the disk is full", "may not be so large", "is not writable", "is read-only")


@pytest.fixture
def trial(
    request: pytest.FixtureRequest,
    forks: Forks,
    stage: Callable[[Scene], Path],
    fresh: Callable[[Path], Path],
    tmp_path: Path,
    thorough: bool,
) -> Trial:
    scene: Scene = request.param
    if not thorough:
        pytest.skip("in the full suite: make faults")
    return Trial(scene, forks, stage(scene), fresh, tmp_path)


each_step = pytest.mark.parametrize("trial", STEPS, ids=lambda s: s.name, indirect=True)


def wrong(trial: Trial, here: Path, ended: Ended) -> str:
    """Return what is wrong after a run without room, or nothing: the message, and what was there before."""
    if ended.code == 0:
        return ""
    lines = [line for line in ended.said.splitlines() if line.startswith("pci: ")]
    if ended.code not in (1, 98) or (ended.code == 1 and "Traceback" in ended.said):
        return f"ended with {ended.code}: {ended.said[-400:]}"
    told = lines[-1] if lines else ended.said.strip().splitlines()[-1]
    if ("StorageError" not in told and not told.startswith("pci: cannot ")) or not any(r in told for r in REMEDIES):
        return f"unclear: {told[-300:]}"
    found = scenes.contents(here)
    kept = {name: {trial.first.get(name), (trial.second or {}).get(name)} for name in (trial.first if trial.over else {})}
    lost = [name for name, known in kept.items() if found.get(name) not in known and not name.startswith("own/")]
    return f"not as before: {lost}" if lost else ""


def check(trial: Trial, here: Path, ended: Ended) -> str:
    return wrong(trial, here, ended) or trial.again(here, trial.second or trial.first)


def report(what: str, trial: Trial, faults: dict[object, str]) -> None:
    failed = {k: v for k, v in faults.items() if v}
    print(f"{trial.scene.name}: {what} {len(faults)} times, {len(failed)} failed")
    assert not failed, "\n".join(f"{k}: {v}" for k, v in failed.items())


@pytest.mark.slow
@each_step
def test_files_that_may_not_grow(trial: Trial) -> None:
    here, rng = trial.fresh(trial.over or trial.stage), random.Random(0)
    trial.run(here)
    largest = max(p.stat().st_size for p in here.rglob("*") if p.is_file())
    faults: dict[object, str] = {}
    for size in [4096, *(rng.randrange(4096, largest) for _ in range(TIMES // 2 - 1))]:  # with less, Python itself does not start
        here = trial.fresh(trial.over or trial.stage)
        faults[size] = check(trial, here, trial.run(here, fsize=size))
    report("no room for a whole file", trial, faults)


@pytest.mark.slow
@each_step
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES], ids=lambda c: errno.errorcode[c])
def test_every_call_may_be_refused(trial: Trial, code: int) -> None:
    rng = random.Random(code)
    faults: dict[object, str] = {}
    for k in sorted(rng.sample(range(1, trial.uncut.calls + 1), min(TIMES // 2, trial.uncut.calls))):
        here = trial.fresh(trial.over or trial.stage)
        faults[k] = check(trial, here, trial.run(here, fails=(k, code)))
    report(f"refused ({errno.errorcode[code]})", trial, faults)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a file system in memory with given options, or mount it anew with others; skips where that is not allowed."""
    where = tmp_path / "disk"
    where.mkdir()

    def mount(options: str) -> Path:
        again = ["-o", f"remount,{options}"] if os.path.ismount(where) else ["-t", "tmpfs", "-o", options]
        kind = ["tmpfs"] if not os.path.ismount(where) else []
        done = subprocess.run(["mount", *again, *kind, str(where)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here ({done.stderr.strip()}): that takes root")
        return where

    yield mount
    if os.path.ismount(where):
        subprocess.run(["umount", "-l", str(where)], check=True)


def used(folder: Path) -> int:
    """Return the bytes that a file system of 4 KiB pages needs for a folder."""
    return sum(4096 + -(-p.lstat().st_size // 4096) * 4096 for p in folder.rglob("*"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk takes root")
@each_step
def test_a_small_disk_fills_up(trial: Trial, small_disk: Callable[[str], Path]) -> None:
    stage = trial.over or trial.stage
    here, rng = trial.fresh(stage), random.Random(0)
    before, after = used(here), 0
    trial.run(here)
    after = used(here)
    faults: dict[object, str] = {}
    for i in range(TIMES // 2):
        disk = small_disk("size=64m")
        here = scenes.copy(stage, disk / "here")
        size = before + int((i + rng.random()) / (TIMES // 2) * max(after - before, before // 2))
        small_disk(f"size={max(size, used(here)) // 4096 * 4096}")
        ended = trial.run(here)
        fault = wrong(trial, here, ended)
        small_disk("size=64m")
        faults[size] = fault or trial.again(here, trial.second or trial.first)
        subprocess.run(["umount", "-l", str(disk)], check=True)
    report("disk full", trial, faults)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a disk read-only takes root")
@each_step
def test_a_disk_turns_read_only(trial: Trial, small_disk: Callable[[str], Path]) -> None:
    here = scenes.copy(trial.over or trial.stage, small_disk("size=64m") / "here")
    small_disk("ro")
    ended = trial.run(here)
    assert ended.code != 0 and not (fault := wrong(trial, here, ended)), fault
    small_disk("rw")
    assert not (fault := trial.again(here, trial.second or trial.first)), fault


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becoming another user takes root")
@each_step
def test_a_folder_of_somebody_else(trial: Trial) -> None:
    here = trial.fresh(trial.over or trial.stage)
    for folder in (here, *here.parents):
        if not folder.stat().st_mode & 0o005:
            pytest.skip(f"others may not even look into {folder}")
    ended = trial.run(here, uid=65534)
    assert ended.code != 0 and not (fault := wrong(trial, here, ended)), fault
    assert not (fault := trial.again(here, trial.second or trial.first)), fault
