"""Steps of a run: each made once, kept with the hash of what it was made from, and reused.

A step is skipped while its inputs are unchanged and made again when they are not. Two processes that
want the same step wait for one another. Where several processes work together (see `pci_core.distributed`), the first
decides and makes the steps, and the others wait; some steps all make together.
"""

from __future__ import annotations

import ctypes
import gc
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pci_core import distributed
from pci_core.reading import read_note
from pci_core.storage import as_storage_error, content_hash, file_sha256, locked, locked_if_free, sweep_temporaries, write_json

HASHED = ("crops.npy", "cells.parquet")  # their hashes stand in dataset.json


class Steps:
    """The stamps of a run's steps, ``<folder>/<name>.json``.

    Parameters
    ----------
    folder : Path
        Of the stamps and locks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def changed(self, name: str, files: Iterable[Path]) -> Path | None:
        """Return the first of a step's files that is not what the step wrote; hashes are looked at where size or time differ."""
        stamp = self.stamp(name) or {}
        seen, kept = stamp.get("files"), stamp.get("sha256")
        if not isinstance(seen, dict) or not isinstance(kept, dict):
            return None  # stamps of earlier versions have no hashes
        for file in files:
            stat = file.stat()
            if seen.get(file.name) != [stat.st_size, stat.st_mtime_ns] and kept.get(file.name, "") != file_sha256(file):
                return file
        return None

    def make(self, name: str, inputs: Mapping[str, Any], files: list[Path], work: Callable[[], None], together: bool = False) -> None:
        """Do the work of a step unless it was done with the same inputs and its files are there, see `make_all`."""
        self.make_all({name: files}, inputs, lambda _: work(), name, together)

    def make_all(
        self,
        steps: Mapping[str, list[Path]],
        inputs: Mapping[str, Any],
        work: Callable[[list[str]], None],
        lock: str | None = None,
        together: bool = False,
    ) -> None:
        """Make several steps in one pass: `work` gets the names of those that are not there yet.

        Parameters
        ----------
        steps : mapping of str to list of Path
            Files of each step by name.
        inputs : mapping
            What they are made from, plain values.
        work : callable
            Called at most once, with the names to make.
        lock : str, optional
            Name of the lock; by default that of the first step.
        together : bool
            All processes of the world do the work, not the first alone; the first holds the lock and notes what was made.
        """
        world = distributed.world()
        if world.size > 1 and not together:
            world.first(lambda: self.make_all(steps, inputs, work, lock))
            return
        lock = lock or next(iter(steps), "")
        if not world.first(lambda: self._missing(steps, inputs)):
            world.first(lambda: self._settle(steps, inputs, lock))
            return
        with world.holding(lambda: self.locked(lock)):
            todo = world.first(lambda: self._missing(steps, inputs))  # another process may have made them while we waited
            if todo:
                world.first(lambda: self._begin(todo, steps))
                with as_storage_error(steps[todo[0]][0]):
                    work(todo)
                give_back_memory()
                world.first(lambda: self._note(todo, inputs, steps))

    def locked(self, name: str) -> AbstractContextManager[None]:
        """Hold the lock of a step."""
        return locked(self.folder / f"{name}.lock")

    def is_made(self, name: str, inputs: Mapping[str, Any], files: Iterable[Path]) -> bool:
        """Tell whether a step was made with these inputs and its files are there."""
        stamp, files = self.stamp(name), list(files)
        if stamp is None or stamp.get("made_from") != content_hash(inputs) or not all(f.exists() for f in files):
            return False
        return not self._begun(name).exists() or stamp.get("files") == _seen(files)

    def stamp(self, name: str) -> dict[str, Any] | None:
        """Return what is noted of a step: ``made_from, inputs, files`` (size and time of each), ``sha256`` (of each), ``made``.

        None where there is no stamp or it is damaged: the step is made again.
        """
        return read_note(self.folder / f"{name}.json")  # the lock will say what is wrong with the folder

    def _begun(self, name: str) -> Path:
        """Return the mark that says: this step was begun anew over an earlier result, and not ended.

        Killed between the new result and its stamp, the old stamp would vouch for a result that is not its own. While the mark is
        there, a stamp counts only for files of the size and time that it names.
        """
        return self.folder / f"{name}.begun"

    def _begin(self, names: list[str], steps: Mapping[str, list[Path]]) -> None:
        _sweep(steps[names[0]][0])
        for name in names:
            if self.stamp(name) is not None:
                with as_storage_error(self._begun(name)):
                    self._begun(name).touch()

    def _settle(self, steps: Mapping[str, list[Path]], inputs: Mapping[str, Any], lock: str) -> None:
        """Clear away what a process that is gone left of beginning steps anew, where the earlier results are whole."""
        if any(self._begun(name).exists() for name in steps):
            with locked_if_free(self.folder / f"{lock}.lock") as free:
                for name, files in steps.items() if free else ():
                    if self.is_made(name, inputs, files):
                        _sweep(files[0])
                        self._begun(name).unlink(missing_ok=True)

    def _missing(self, steps: Mapping[str, list[Path]], inputs: Mapping[str, Any]) -> list[str]:
        return [name for name, files in steps.items() if not self.is_made(name, inputs, files)]

    def _note(self, names: list[str], inputs: Mapping[str, Any], steps: Mapping[str, list[Path]]) -> None:
        for name in names:
            self._stamp(name, inputs, steps[name])
            self._begun(name).unlink(missing_ok=True)

    def _stamp(self, name: str, inputs: Mapping[str, Any], files: list[Path]) -> None:
        made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        hashes = {f.name: file_sha256(f) for f in files if f.name not in HASHED}
        content = {"made_from": content_hash(inputs), "inputs": inputs, "files": _seen(files), "sha256": hashes, "made": made}
        write_json(self.folder / f"{name}.json", content)


def _seen(files: Iterable[Path]) -> dict[str, list[int]]:
    """Return size and time of each file."""
    return {f.name: [f.stat().st_size, f.stat().st_mtime_ns] for f in files}


def _sweep(output: Path) -> None:
    for folder in (output.parent, output.parent.parent):  # a step's output is a file, or a folder of files
        for path in sweep_temporaries(folder):
            print(f"removed what a killed process left: {path}", file=sys.stderr)


def give_back_memory() -> None:
    """End joblib's idle workers and return freed blocks to the system, so that the next step does not come on top of this one.

    Workers would wait for minutes with some hundred MB each, and training keeps what it freed (see
    `pci_core.device.keep_freed_memory`). Costs a second where the next step starts workers again.
    """
    from joblib.externals.loky import get_reusable_executor  # here: few steps need joblib

    get_reusable_executor().shutdown(wait=True)
    gc.collect()
    if sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
