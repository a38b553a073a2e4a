"""Killed or failing at every single file-system call: what was there stays or is whole and new, and nothing is left over."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import scenes
from forks import Forks

from pci_core.storage import locked, sweep_temporaries

FILE = "from pci_core.storage import write_text; write_text('d', 'new' * 1000)"
FOLDER = """
from pathlib import Path
from pci_core import storage
{}
with storage.atomic_path(Path('d'), folder=True) as temporary:
    (temporary / 'one').write_text('new')
    (temporary / 'two').write_text('new')
"""
WITHOUT_EXCHANGE = "storage._exchange = lambda a, b: False"


def old_file(here: Path) -> None:
    (here / "d").write_text("old")


def old_folder(here: Path) -> None:
    (here / "d").mkdir()
    for name in ("one", "two"):
        (here / "d" / name).write_text("old")


def state(here: Path) -> str:
    """Return what is there: ``old``, ``new``, or anything else where it is neither."""
    path = here / "d"
    if not path.exists():
        return "nothing"
    texts = {p.read_text()[:3] for p in (path.iterdir() if path.is_dir() else [path])}
    return texts.pop() if len(texts) == 1 else f"mixed {texts}"


@pytest.mark.parametrize(
    ("command", "furnish"),
    [(FILE, old_file), (FOLDER.format(""), old_folder), (FOLDER.format(WITHOUT_EXCHANGE), old_folder)],
    ids=["file", "folder", "folder where places cannot be exchanged"],
)
@pytest.mark.parametrize("how", ["killed", "full"])
def test_old_or_new_at_every_call(command: str, furnish: Callable[[Path], None], how: str, forks: Forks, tmp_path: Path) -> None:
    def fresh(name: str) -> Path:
        here = tmp_path / name
        here.mkdir()
        furnish(here)
        return here

    uncut = forks.run(command, fresh("uncut"))
    assert uncut.code == 0 and state(tmp_path / "uncut") == "new", uncut.said
    for k in range(1, uncut.calls + 1):
        here = fresh(f"at{k}")
        ended = forks.run(command, here, **({"at": k} if how == "killed" else {"fails": (k, errno.ENOSPC)}))
        assert ended.code in ((-9,) if how == "killed" else (0, 98)), ended.said
        if how == "full":
            assert ended.code == 0 or "StorageError: cannot write d" in ended.said, ended.said
        if WITHOUT_EXCHANGE in command:  # there is a moment with neither; the next to write there mends it
            sweep_temporaries(here)
        assert state(here) in ("old", "new"), k
        assert forks.run(command, here).code == 0
        assert state(here) == "new" and sorted(p.name for p in here.iterdir()) == ["d"], k


STEP = """
from pathlib import Path
from pci_core.steps import Steps
here = Path.cwd()
wanted = (here / 'wanted').read_text()
def work():
    from pci_core.storage import write_text
    write_text(here / 'out', wanted)
    open(here / 'made', 'a').write('x')
Steps(here / 'steps').make('s', {'wanted': wanted}, [here / 'out'], work)
"""


def test_a_stamp_never_vouches_for_what_another_run_made(forks: Forks, tmp_path: Path) -> None:
    def run(here: Path, wanted: str, **how: int) -> int:
        (here / "wanted").write_text(wanted)
        return forks.run(STEP, here, **how).code

    first = tmp_path / "first"
    first.mkdir()
    assert run(first, "a") == 0
    calls = forks.run(STEP.replace("'wanted'", "'other'"), _with(scenes.copy(first, tmp_path / "uncut"), "other", "b")).calls
    assert calls > 5
    for k in range(1, calls + 1):
        here = scenes.copy(first, tmp_path / f"at{k}")
        assert run(here, "b", at=k) == -9
        assert run(here, "a") == 0
        assert (here / "out").read_text() == "a", k  # not b under the stamp of a
        assert {p.name for p in here.iterdir()} == {"wanted", "out", "made", "steps"}
        assert {p.name for p in (here / "steps").iterdir()} == {"s.json", "s.lock"}, k


def _with(here: Path, name: str, text: str) -> Path:
    (here / name).write_text(text)
    return here


def test_an_earlier_result_is_kept_where_making_it_anew_fails(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "wanted").write_text("a")
    assert forks.run(STEP, tmp_path).code == 0
    (tmp_path / "wanted").write_text("b")
    assert "disk is full" in forks.run(STEP, tmp_path, fails=(1, errno.ENOSPC)).said
    (tmp_path / "wanted").write_text("a")
    assert forks.run(STEP, tmp_path).code == 0
    assert (tmp_path / "made").read_text() == "x" and (tmp_path / "out").read_text() == "a"


def test_ten_at_once_make_a_step_once(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "wanted").write_text("a")
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "s.lock").write_text('{"pid": 4711, "host": "another-machine"}')  # left by whatever
    ended = forks.many(10, STEP.replace("def work():", "def work():\n    import time; time.sleep(0.3)"), tmp_path)
    assert [e.code for e in ended] == [0] * 10, [e.said for e in ended]
    assert (tmp_path / "made").read_text() == "x" and json.loads((tmp_path / "steps" / "s.json").read_text())["files"]["out"][0] == 1


def test_the_others_go_on_when_the_holder_of_a_lock_is_killed(forks: Forks, tmp_path: Path) -> None:
    hold = "from pci_core.storage import locked\nwith locked('lock'):\n    import time; time.sleep(60)"
    assert forks.run(hold, tmp_path, after=0.3).code == -9
    with locked(tmp_path / "lock"):
        pass
