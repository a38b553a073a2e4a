"""Whole or not there: temporary names, locks, errors of the disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pci_core import storage
from pci_core.errors import StorageError


def test_atomic_file_appears_only_when_the_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "a.txt"
    with storage.atomic_path(target) as temporary:
        temporary.write_text("one")
        assert not target.exists()
    with pytest.raises(ValueError, match="cut"), storage.atomic_path(target) as temporary:
        temporary.write_text("two")
        raise ValueError("cut")
    assert target.read_text() == "one"
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


def test_atomic_folder_replaces_the_old_one(tmp_path: Path) -> None:
    for content in ("one", "two"):
        with storage.atomic_path(tmp_path / "d", folder=True) as temporary:
            (temporary / content).touch()
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize(("code", "word"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "not writable"), (errno.EROFS, "read-only")])
def test_errors_of_the_disk_say_what_to_do(tmp_path: Path, code: int, word: str) -> None:
    with pytest.raises(StorageError, match=f"a.txt.*{word}.*--runs"), storage.atomic_path(tmp_path / "a.txt"):
        raise OSError(code, os.strerror(code))


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(StorageError, match="is a file, not a folder"), storage.atomic_path(tmp_path / "runs" / "x" / "a.txt"):
        pass


def test_leftovers_of_dead_processes_are_swept(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    with storage.atomic_path(tmp_path / "alive") as mine:
        mine.touch()
        left = mine.with_name(mine.name.replace(str(os.getpid()), str(dead.pid)))
        left.touch()
        assert storage.sweep_temporaries(tmp_path) == [left]
        assert mine.exists()


LOCK = """
import sys, time
from pci_core.storage import locked
with locked(sys.argv[1]):
    print("in", flush=True)
    time.sleep(60)
"""


def test_a_dead_holders_lock_is_free(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", LOCK, tmp_path / "lock"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "in\n"
    holder.kill()
    holder.wait()
    began = time.monotonic()
    with storage.locked(tmp_path / "lock"):
        pass
    assert time.monotonic() - began < 30  # the holder would have slept for 60 s


def test_hashes_do_not_depend_on_key_order() -> None:
    assert storage.content_hash({"a": 1, "b": [2]}) == storage.content_hash({"b": [2], "a": 1})
    assert storage.content_hash({"a": 1}) != storage.content_hash({"a": 2})
