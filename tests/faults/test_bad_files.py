"""Damaged files of every kind that the package reads: refused by name, or read right; never a library's traceback, a hang or a crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from reading import PARTS, read_all

from pci_core import cli

FEW, MANY = 1, 150  # damaged files of each of some sixty readers
COMMANDS = {
    "own.toml": ["info", "own.toml"],
    "fields.csv": ["cells", "own.toml", "--jobs", "1", "--quiet"],
    "i1_f0.tif": ["cells", "own.toml", "--jobs", "1", "--quiet"],
    "w.safetensors": ["weights", "show", "w.safetensors"],
    "w.h5": ["weights", "import", "w.h5", "--quiet"],
    "own.parquet": ["benchmark", "own.toml", "pixels", "--table", "own.parquet", "--quiet", "--jobs", "1"],
}


@pytest.mark.slow
def test_damaged_files_are_refused_or_read_right(thorough: bool) -> None:
    report = read_all([[part] for part in PARTS], MANY) if thorough else read_all([PARTS], FEW, costly=False)
    print(report.table())  # with -s: what was tried
    assert not report.faults, report.table()
    assert len(report.outcomes) >= (9000 if thorough else 60)
    refused = sum(o.what == "refused" for o in report.outcomes)
    assert refused > len(report.outcomes) / 3  # or the files were not damaged enough to test anything


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_says_it_in_one_line(
    name: str, own_recipe: Path, thorough: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut in the middle, or another format's: exit status 1, ``pci: ...`` with the file's name, no traceback, nothing written."""
    folder = own_recipe.parent
    monkeypatch.chdir(folder)
    if not (folder / name).exists():
        (folder / name).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 4)
    else:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2 - 3])
    before = sorted(folder.rglob("*"))
    if thorough:  # a process of its own
        environment = os.environ | {"PCI_RUNS": str(folder.parent / "runs"), "PYTHONPATH": os.pathsep.join(sys.path)}
        ran = subprocess.run(
            [sys.executable, "-m", "pci_core.cli", *COMMANDS[name]], capture_output=True, text=True, env=environment, check=False
        )
        status, told = ran.returncode, ran.stderr
    else:
        monkeypatch.setenv("PCI_RUNS", str(folder.parent / "runs"))
        monkeypatch.setattr(sys, "argv", ["pci", *COMMANDS[name]])
        with pytest.raises(SystemExit) as end:
            cli.main()
        status, told = end.value.code, capsys.readouterr().err
    assert status == 1 and "Traceback" not in told
    assert told.splitlines()[-1].startswith("pci: ") and name in told, told
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
def test_the_watch_sees_what_it_is_there_for(tmp_path: Path) -> None:
    """A reader that hangs, crashes, takes memory or lets a library's error through is told as a fault."""
    (tmp_path / "readers_bad.py").write_text(BAD)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    script = "import reading; reading.LONGEST = 1; print(reading.read_all([['bad']], 1).table())"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=500)
    assert ran.returncode == 0, ran.stderr
    for fault in ("bad: hang", "bad: crash (status -11)", "bad: memory", "bad: KeyError", "bad: unnamed", "bad: wrong"):
        assert fault.replace("bad:", "") in ran.stdout, ran.stdout


BAD = """
import ctypes, time
from readers import Reader, exact
from pci_core.errors import ImageError

def make(folder):
    (folder / "f").write_bytes(b"good file")
    return [folder / "f"]

def of(what):
    def read(folder):
        if (folder / "f").read_bytes() == b"good file":
            return 1
        if what == "hang":
            while True:
                pass
        if what == "crash":
            ctypes.string_at(0)
        if what == "memory":
            bytearray(3 << 30)
        if what == "library":
            {}["x"]
        if what == "unnamed":
            raise ImageError("something is wrong")
        return 2
    return read

READERS = [Reader(what, make, of(what), exact) for what in ("memory", "library", "unnamed", "wrong", "crash", "hang")]
"""
