"""What was downloaded, what failed and why: a journal that survives a crash, and a table to read.

``manifest.jsonl`` gets a line for every file as soon as its fate is known; the last line of a file counts, a line
that a crash tore is left out. ``manifest.csv`` has the same as a table and is written anew, whole, from time to time.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pci_core.data.half_file import discard
from pci_core.errors import PCIError
from pci_core.storage import as_storage_error, atomic_path, file_sha256
from pci_core.tables import write_rows

COLUMNS = ("file", "url", "status", "reason", "bytes", "sha256", "tries", "time", "tried")
OK, FAILED, NOT_THERE, LEFT_OUT = "ok", "failed", "not there", "left out"


class Manifest:
    """The manifest of a folder; used by one thread.

    Parameters
    ----------
    folder : path-like
        Where ``manifest.jsonl`` is or will be; file names in it start here.

    Attributes
    ----------
    rows : dict of str to dict
        What is known of each file, by its path in the folder.
    torn : int
        Lines of the journal that could not be read.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.journal, self.table = self.folder / "manifest.jsonl", self.folder / "manifest.csv"
        self.rows: dict[str, dict[str, Any]] = {}
        self.torn = lines = 0
        unfinished = False
        if self.journal.is_file():
            content = self.journal.read_bytes()
            unfinished = bool(content) and not content.endswith(b"\n")  # or the next line would be written behind it
            for line in content.splitlines():
                try:
                    row = json.loads(line)
                    self.rows[str(row["file"])] = {**dict.fromkeys(COLUMNS, ""), **row}
                    lines += 1
                except (ValueError, KeyError, TypeError, RecursionError):
                    self.torn += bool(line.strip())
        if self.torn or unfinished or lines > 2 * len(self.rows) + 100:
            self._rewrite()

    def add(self, file: str, url: str, status: str, reason: str = "", **more: Any) -> dict[str, Any]:
        """Note the fate of a file, on disk at once; `more` are further `COLUMNS`, or ``mtime_ns`` of the file."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        row = {**dict.fromkeys(COLUMNS, ""), "file": file, "url": url, "status": status, "reason": reason, "time": now, **more}
        with as_storage_error(self.journal):
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.journal, "a", encoding="utf-8", newline="\n") as handle:
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.rows[file] = row
        return row

    def has(self, file: str, check: Callable[[Path], None], url: str = "") -> bool:
        """Whether `file` is there and what it was when it was downloaded.

        The time and size of the file speak for it; where its time changed, its hash decides. A whole file that the
        journal does not know, as a crash at the wrong moment leaves it, is checked by `check` and taken in, as from `url`.
        """
        path = self.folder / file
        if not path.is_file():
            return False
        row, stat = self.rows.get(file, {}), path.stat()
        if row.get("status") != OK:
            try:
                check(path)
            except PCIError:
                return False
            discard(path.with_name(f"{path.name}.part"))
            self.add(
                file, row.get("url") or url, OK, "found whole", bytes=stat.st_size, sha256=file_sha256(path), mtime_ns=stat.st_mtime_ns
            )
            return True
        if row["bytes"] != stat.st_size:
            return False
        return row.get("mtime_ns") == stat.st_mtime_ns or file_sha256(path) == row["sha256"]

    def write_table(self, left_out: Iterable[dict[str, str]] = ()) -> None:
        """Write ``manifest.csv``: every file of the journal, then those that were left out (url and reason)."""
        with atomic_path(self.table) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
            write_rows(handle, COLUMNS, (self.rows[file] for file in sorted(self.rows)))
            write_rows(handle, COLUMNS, ({**dict.fromkeys(COLUMNS, ""), **row, "status": LEFT_OUT} for row in left_out), head=False)

    def _rewrite(self) -> None:
        with atomic_path(self.journal) as temporary:
            temporary.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in self.rows.values()), encoding="utf-8")
