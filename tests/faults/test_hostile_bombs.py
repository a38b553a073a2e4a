"""Small files that ask for gigabytes: refused or read with little memory, each in its own reader, never a foreign error."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib
from pathlib import Path

import bombs
import h5py
import numpy as np
import pytest

from pci_core import unpacking
from pci_core.unpacking import FREE, GrowsError, check_arrays, check_growth, check_stream, open_gzip

READ = {"circle.tif"}  # with what is true of it: tifffile leaves a circle of pages by itself
MOST = 900 << 20  # bytes: what may be unpacked freely, and room for what a library needs beside it; the bombs would take 3 GB and more


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured as Linux tells it")
def test_bombs(tmp_path: Path, thorough: bool) -> None:
    """Each in its reader; with --thorough those too that take long, in a process of their own with a limit of memory."""
    if thorough:
        command = [sys.executable, str(Path(bombs.__file__)), str(tmp_path), "all"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stderr[-2000:]
        found = [json.loads(line) for line in done.stdout.splitlines()]
    else:
        found = list(bombs.opened(tmp_path, False))
    assert len(found) == (34 if thorough else 27)
    wrong = [f"{d['name']}: {d['fate']} {d['said']}" for d in found if d["fate"] != ("read" if d["name"] in READ else "refused")]
    wrong += [f"{d['name']}: took {d['grew'] / 1e6:.0f} MB" for d in found if d["grew"] > MOST]
    wrong += [f"{d['name']}: took {d['seconds']:.0f} s" for d in found if d["seconds"] > 10]
    refused = [d for d in found if d["fate"] == "refused" and d["name"] != "atlas.jpg"]  # its name is told by the one who downloads
    wrong += [f"{d['name']}: not named in '{d['said']}'" for d in refused if d["name"] not in d["said"]]
    assert not wrong


def test_what_grows_little_or_is_small_is_let_through() -> None:
    check_growth(FREE, 0)
    check_growth(10 * FREE, FREE // 10)
    with pytest.raises(GrowsError, match="0.5 GB of memory"):
        check_growth(FREE + 1, 1)


def test_a_stream_is_measured_only_where_it_could_hurt(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = zlib.compress(bytes(3 << 20))
    check_stream(packed, 10)  # too small to be of harm: the reader will see for itself
    monkeypatch.setattr(unpacking, "FREE", 1 << 20)
    check_stream(packed, 3 << 20)
    check_stream(gzip.compress(bytes(3 << 20)), 3 << 20)
    check_stream(packed[:-9], 3 << 20)  # cut short, and not larger
    check_stream(b"no stream at all" * 1000, 10)
    for stream in (packed, gzip.compress(bytes(3 << 20))):
        with pytest.raises(GrowsError, match="more than the 3,145,727 bytes"):
            check_stream(stream, (3 << 20) - 1)


def test_arrays_of_an_hdf5_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "FREE", 1 << 17)
    noise = np.random.default_rng(0).integers(0, 256, 3 << 17, dtype=np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("deep/noise", data=noise, chunks=(1 << 17,), compression="gzip")
        file.create_dataset("empty", shape=(0,), maxshape=(None,), chunks=(100,))
        file["link"] = h5py.SoftLink("/nothing")
    with h5py.File(tmp_path / "a.h5") as file:
        check_arrays(file)
    for settings, why in (
        ({"data": np.zeros(3 << 17, np.uint8), "chunks": (1 << 17,), "compression": "gzip"}, "'bad' would take"),
        ({"shape": (1 << 30,), "dtype": "u1"}, "'bad' would take"),
        ({"shape": (10,), "chunks": (1 << 29,), "maxshape": (None,), "dtype": "u1", "compression": "gzip"}, "pieces of 537 MB"),
    ):
        with h5py.File(tmp_path / "b.h5", "w") as file:
            made = file.create_dataset("deep/bad", **settings)
            if "maxshape" in settings:
                made.id.write_direct_chunk((0,), b"x")
        with h5py.File(tmp_path / "b.h5") as file, pytest.raises(GrowsError, match=why.replace("'bad'", "'deep/bad'")):
            check_arrays(file)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((64,))
        for _ in range(2):
            properties.set_deflate(4)
        h5py.h5d.create(file.id, b"twice", h5py.h5t.STD_U8LE, h5py.h5s.create_simple((64,)), properties)
    with h5py.File(tmp_path / "c.h5") as file, pytest.raises(GrowsError, match="compressed twice"):
        check_arrays(file)


def test_a_gzip_of_text_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"line\n" * 300_000))
    with open_gzip(tmp_path / "a.gz") as handle:
        assert handle.read() == b"line\n" * 300_000
    monkeypatch.setattr(unpacking, "FREE", 1 << 20)
    with open_gzip(tmp_path / "a.gz") as handle, pytest.raises(GrowsError):
        handle.read()
