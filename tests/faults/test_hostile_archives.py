"""Archives made to do harm: refused whole, with nothing written inside or outside of the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile_archives import tars, zips

from pci_core.data.archives import Limits, unpack
from pci_core.errors import DownloadError

LIMITS = Limits(members=30, member_bytes=1_000_000, total_bytes=4_000_000)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_archives_that_do_harm_are_refused_whole(kind: str, tmp_path: Path, thorough: bool) -> None:
    if not thorough and kind in ("tar.xz", "tar.bz2"):
        pytest.skip("with --thorough: they are unpacked by the same code as tar.gz")
    box = tmp_path / "box"
    box.mkdir()
    made = zips(box) if kind == "zip" else tars(box, {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz", "tar.bz2": "w:bz2"}[kind])
    wrong = []
    for what, archive in made:
        before = {p for p in tmp_path.rglob("*")}
        try:
            unpack(archive, box / "inner" / "out", limits=LIMITS)
            wrong.append(f"{what}: unpacked")
        except DownloadError as error:
            if archive.name not in str(error):
                wrong.append(f"{what}: the message does not name the archive: {error}")
        except Exception as error:  # anything else is a bug, and the table shall name them all
            wrong.append(f"{what}: {type(error).__name__}: {error}")
        left = {p for p in tmp_path.rglob("*") if p.name != "inner"} - before
        if left:
            wrong.append(f"{what}: left behind {sorted(map(str, left))}")
        archive.unlink()
    assert not wrong
