"""Half-downloaded files: what has to be known of one to go on with it later, and whether an answer continues it.

Beside ``<name>.part`` lies ``<name>.part.json`` with the address, the version that the server named (ETag or
Last-Modified) and the whole size. Without it, or with another version, a file is started anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import requests

from pci_core.reading import read_note


@dataclass(frozen=True)
class HalfFile:
    """What is known of a half-downloaded file: where it comes from, its version and whole size."""

    url: str
    version: str
    total: int | None

    @staticmethod
    def _beside(part: Path) -> Path:
        return part.with_name(part.name + ".json")

    @classmethod
    def read(cls, part: Path, url: str) -> HalfFile | None:
        """Return what is known of `part` if it can be gone on with."""
        known = read_note(cls._beside(part))
        if known is None or not {"url", "version", "total"} <= set(known) or not part.is_file():
            return None  # no half file, or one that a crash left without its description: it is started anew
        half = cls(str(known["url"]), str(known["version"]), known["total"])
        size = part.stat().st_size
        return half if half.url == url and isinstance(half.total, int) and 0 < size < half.total else None

    @classmethod
    def begin(cls, part: Path, url: str, response: requests.Response, total: int | None) -> None:
        """Remove what is there of `part` and keep what the server says of the file, if it names a version of it."""
        discard(part)
        tag, date = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
        version = tag if tag and not tag.startswith("W/") else date  # a weak tag allows other bytes
        if version and total is not None:
            cls._beside(part).write_text(json.dumps({"url": url, "version": version, "total": total}), encoding="utf-8")

    def fits(self, response: requests.Response, start: int) -> bool:
        """Whether an answer of status 206 continues this file at `start`."""
        named = response.headers.get("ETag" if self.version.startswith('"') else "Last-Modified", "")
        return (
            named in ("", self.version)
            and response.headers.get("Content-Range", "") == f"bytes {start}-{(self.total or 0) - 1}/{self.total}"
        )


def discard(part: Path) -> None:
    """Remove a half file and what is known of it."""
    part.unlink(missing_ok=True)
    HalfFile._beside(part).unlink(missing_ok=True)
