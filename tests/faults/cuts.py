"""Cut a step short at many moments, run it again, and tell where it does not end as an uncut one."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import scenes
from forks import Ended, Forks
from scenes import Scene

KILLED = -9
_OF_ITS_OWN = ("/.training-", "runs/sim/fields/", "runs/sim/steps/fields.json")


def moments(uncut: Ended, n: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield `n` moments to kill at: half spread over the time that an uncut run takes, half over its file-system calls.

    Times hit the work inside libraries, calls the windows between two renames, which last microseconds; the last calls, where
    results take their names, are always among them.
    """
    rng = random.Random(seed)
    last = list(range(max(1, uncut.calls - n // 4 + 1), uncut.calls + 1))
    others = [k for k in range(1, uncut.calls + 1) if k not in last]
    at = last + rng.sample(others, min(len(others), max(0, n - n // 2 - len(last))))
    yield from ({"at": k} for k in sorted(at))
    yield from ({"after": uncut.seconds * (i + rng.random()) / (n - len(at))} for i in range(n - len(at)))


class Trial:
    """A scene with what uncut runs make of it.

    Parameters
    ----------
    scene : Scene
    forks : Forks
    stage : Path
        What is there before.
    fresh : callable
        Copies a stage to where it runs.
    keep : Path
        An empty folder for the earlier result.
    """

    def __init__(self, scene: Scene, forks: Forks, stage: Path, fresh: Callable[[Path], Path], keep: Path) -> None:
        self.scene, self.forks, self.stage, self.fresh = scene, forks, stage, fresh
        here = fresh(stage)
        self.uncut = self.run(here)
        assert self.uncut.code == 0, self.uncut.said
        self.first = scenes.contents(here)
        assert not scenes.leftovers(here)
        self.over = self.second = None
        if scene.again:
            self.over = scenes.copy(here, keep / "over")
            scene.again(self.over)
            here = fresh(self.over)
            self.uncut = self.run(here)
            assert self.uncut.code == 0, self.uncut.said
            self.second = scenes.contents(here)
            assert self.second != self.first and not scenes.leftovers(here)

    def run(self, here: Path, **how: Any) -> Ended:
        return self.forks.run(self.scene.command, here, env=self.scene.env, load=self.scene.load, **how)

    def cut(self, way: str, moment: dict[str, Any]) -> str:
        """Kill at a moment and run again; return what is wrong with it then, or nothing.

        `way`: ``first`` nothing was made before; ``over`` an earlier result of other inputs is there; ``back`` the inputs are put
        back to the earlier ones after the kill.
        """
        here = self.fresh(self.stage if way == "first" else self.over or self.stage)
        ended = self.run(here, **moment)
        if ended.code not in (0, KILLED):
            return f"the cut run ended with {ended.code}: {ended.said[-300:]}"
        if way == "back":
            for name in ("own/own.toml", "sim.toml"):
                shutil.copy2(self.stage / name, here / name)
        return self.again(here, self.second if way == "over" else self.first, way == "back")

    def again(self, here: Path, expected: dict[str, str] | None, changed: bool = False) -> str:
        """Run uncut in a folder and return what differs from what it ought to hold, or nothing."""
        ended = self.run(here)
        refused = self.scene.refuses and ended.code == 1 and "already there" in ended.said  # the cut came too late to cut anything
        if ended.code and not refused:
            return f"run again it ended with {ended.code}: {ended.said[-300:]}"
        found = scenes.contents(here)
        left = scenes.leftovers(here)
        if changed:  # a training that was cut stays to be gone on with if its recipe comes back; fields are drawn when cells are cut
            left = [name for name in left if "/.training-" not in name]
            found = {name: digest for name, digest in found.items() if not any(part in name for part in _OF_ITS_OWN)}
            expected = {name: digest for name, digest in (expected or {}).items() if not any(part in name for part in _OF_ITS_OWN)}
        differ = sorted(name for name in {*found, *(expected or {})} if found.get(name) != (expected or {}).get(name))
        if left or differ:
            return f"left: {left[:3]}; not as uncut: {differ[:5]}; it said: {ended.said[-200:]}"
        return ""
