"""Ten processes that ask for the same thing at the same time: it is made once, all get it, and the bytes are those of one alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import scenes
from cuts import KILLED, moments
from forks import Ended, Forks
from scenes import MAIN, SCENES, Scene

sys.path.append(str(Path(__file__).parent.parent / "data"))
from misbehaving import ONE, TWO, Atlas, small_atlas

TEN = 10
COUNTED = """
from pci_core import run
def counted(function):
    def call(*arguments, **more):
        with open('made', 'a') as handle:
            handle.write('x')
        return function(*arguments, **more)
    return call
for name in ('build_cells', 'train', 'extract', 'compute'):
    setattr(run, name, counted(getattr(run, name)))
"""
DOWNLOAD = "from pci_core.data.download import fetch; print(fetch({url!r}, known_hash=None, folder='cache').read_bytes()[:9])"
ATLAS = """
from pathlib import Path
from pci_core.data import hpa
from pci_core.data.hpa_addresses import Release
from pci_core.data.polite import Manners, PoliteSession
release = Release('18', {url!r}, {url!r})
session = PoliteSession(Manners(connections=2, interval=0.0, tries=4), trusted=release.trusts)
hpa.fetch(hpa.plan({genes!r}, Path('atlas'), release=release, session=session), session=session)
"""
NOTEBOOK = """
from pathlib import Path
from pci_core.executing import execute
here = Path.cwd()
execute(here, here / 'notebooks/01_count.ipynb', here / '_build/executed/01_count.ipynb', {'recipe': 'simulated-human'})
"""


@pytest.fixture
def server() -> Iterator[Atlas]:
    with small_atlas() as running:
        yield running


LOCAL = {"NO_PROXY": "127.0.0.1", "PCI_MIRROR": ""}


def all_well(ended: list[Ended]) -> None:
    assert [e.code for e in ended] == [0] * TEN, next(e.said for e in ended if e.code)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cells", "train", "features"])
def test_a_step_is_made_once(
    name: str, forks: Forks, stage: Callable[[Scene], Path], fresh: Callable[[Path], Path], thorough: bool
) -> None:
    if not thorough:
        pytest.skip("in the full suite: make faults")
    scene = next(s for s in SCENES if s.name == name)
    command = scene.command if isinstance(scene.command, str) else MAIN.format(arguments=scene.command)
    alone = fresh(stage(scene))
    assert forks.run(scene.command, alone).code == 0
    expected = scenes.contents(alone)
    here = fresh(stage(scene))
    all_well(forks.many(TEN, COUNTED + command, here))
    assert (here / "made").read_text() == "x"
    (here / "made").unlink()
    assert scenes.contents(here) == expected and not scenes.leftovers(here)


def test_a_file_is_downloaded_once(server: Atlas, forks: Forks, tmp_path: Path) -> None:
    path = next(p for p in server.files if p.endswith(".jpg"))
    all_well(forks.many(TEN, DOWNLOAD.format(url=server.url + path), tmp_path, env=LOCAL, load=("pci_core.data.download",)))
    assert server.gets()[path] == 1
    assert [p.read_bytes() for p in (tmp_path / "cache").rglob("*.jpg")] == [server.files[path]]
    assert not scenes.leftovers(tmp_path)


@pytest.mark.slow
def test_the_atlas_is_asked_once_for_an_image(server: Atlas, forks: Forks, tmp_path: Path, thorough: bool) -> None:
    if not thorough:
        pytest.skip("in the full suite: make faults")
    all_well(forks.many(TEN, ATLAS.format(url=server.url, genes=[ONE, TWO]), tmp_path, env=LOCAL))
    assert set(server.image_gets().values()) == {1} and len(server.image_gets()) == 8
    assert not scenes.leftovers(tmp_path)


@pytest.mark.slow
def test_a_notebook_runs_once(forks: Forks, tmp_path: Path, thorough: bool) -> None:
    if not thorough:
        pytest.skip("in the full suite: make faults")
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {"tags": tags}, "source": source, "outputs": [], "execution_count": None}
        for i, (source, tags) in enumerate([('recipe = ""', ["parameters"]), ("with open('made', 'a') as h:\n    h.write('x')", [])])
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (tmp_path / "notebooks").mkdir()
    content = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "notebooks" / "01_count.ipynb").write_text(json.dumps(content))
    all_well(forks.many(TEN, NOTEBOOK, tmp_path, load=("papermill",)))
    assert (tmp_path / "made").read_text() == "x"
    assert not scenes.leftovers(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["pooch", "atlas"])
def test_a_cut_download_ends_as_an_uncut_one(what: str, server: Atlas, forks: Forks, tmp_path: Path, thorough: bool) -> None:
    if not thorough:
        pytest.skip("in the full suite: make faults")
    url = server.url + next(p for p in server.files if p.endswith(".jpg"))
    command = DOWNLOAD.format(url=url) if what == "pooch" else ATLAS.format(url=server.url, genes=[ONE, TWO])

    def run(name: str, **how: object) -> Ended:
        (tmp_path / name).mkdir(exist_ok=True)
        return forks.run(command, tmp_path / name, env=LOCAL, **how)

    uncut = run("uncut")
    assert uncut.code == 0, uncut.said
    expected = scenes.contents(tmp_path / "uncut")
    for i, moment in enumerate(moments(uncut, 20)):
        assert run(f"cut{i}", **moment).code in (0, KILLED)
        again = run(f"cut{i}")
        assert again.code == 0, again.said
        assert scenes.contents(tmp_path / f"cut{i}") == expected, moment
        assert not scenes.leftovers(tmp_path / f"cut{i}"), moment


def test_a_lock_file_left_by_another_machine_does_not_block(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "runs" / "own" / "steps").mkdir(parents=True)
    (tmp_path / "runs" / "own" / "steps" / "cells.lock").write_text("4711@another-machine 2019-01-01")
    ended = forks.run("from pci_core.storage import locked\nwith locked('runs/own/steps/cells.lock'): pass", tmp_path, limit=30)
    assert ended.code == 0, ended.said
