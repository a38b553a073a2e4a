"""The files that a run has handed out: what is made of them afterwards names them as its parents."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pci_core
from pci_core.lineage import parent_of
from pci_core.provenance import Parent

NOTE = "PCI_USED_FILES"  # where the process that executes a notebook reads what the notebook's own process has used


class Used:
    """Files by the name that a record gives them; nothing is read before `parents`.

    Parameters
    ----------
    runs : Path
        Folder of all runs: a file under it is named from there, one of the package from the package, any other by name alone.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.files: dict[str, Path] = {}

    def add(self, path: Path) -> None:
        """Note that a file, or a folder of cells, was handed out."""
        label = self.label(path)
        if label in self.files:
            return
        self.files[label] = path
        if note := os.environ.get(NOTE):
            with open(note, "a", encoding="utf-8") as handle:
                handle.write(json.dumps([label, str(path.resolve())]) + "\n")

    def label(self, path: Path) -> str:
        """Return the name of a file that is the same on every machine."""
        whole, package = path.resolve(), Path(pci_core.__file__).resolve().parent
        if whole.is_relative_to(package):
            return whole.relative_to(package.parent).as_posix()
        return whole.relative_to(self.runs.resolve()).as_posix() if whole.is_relative_to(self.runs.resolve()) else path.name

    def parents(self, paths: Iterable[Path] | None = None) -> tuple[Parent, ...]:
        """Return these files as parents, or all that were handed out so far."""
        return as_parents(self.files if paths is None else {self.label(p): p for p in paths})


def as_parents(files: dict[str, Path]) -> tuple[Parent, ...]:
    """Return files by name as parents, those that are there, in the order of their names."""
    return tuple(parent_of(path, label) for label, path in sorted(files.items()) if path.exists())


def noted(path: Path) -> tuple[Parent, ...]:
    """Return what another process wrote down under `NOTE`."""
    lines: Iterable[str] = path.read_text(encoding="utf-8").splitlines() if path.is_file() else ()
    return as_parents({label: Path(file) for label, file in map(json.loads, lines)})
