"""Every step that writes, killed at many moments and run again: it ends, equals an uncut run, and leaves no temporary file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cuts import KILLED, Trial, moments
from forks import Forks
from scenes import SCENES, Scene

KILLS = 20


@pytest.mark.slow
@pytest.mark.parametrize("scene", [s for s in SCENES if not s.heavy], ids=lambda s: s.name)
def test_a_cut_step_ends_as_an_uncut_one(
    scene: Scene, forks: Forks, stage: Callable[[Scene], Path], fresh: Callable[[Path], Path], tmp_path: Path, thorough: bool
) -> None:
    if not thorough:
        pytest.skip("in the full suite: make faults")
    trial = Trial(scene, forks, stage(scene), fresh, tmp_path)
    ways = ("first", "over", "back") if scene.again else ("first",)
    tried = list(enumerate(moments(trial.uncut, KILLS)))
    wrong = {f"{ways[i % len(ways)]} {m}": fault for i, m in tried if (fault := trial.cut(ways[i % len(ways)], m))}
    print(f"{scene.name}: {len(tried)} kills in {trial.uncut.seconds:.1f} s and {trial.uncut.calls} calls, {len(wrong)} failed")
    assert not wrong, "\n".join(f"{k}: {v}" for k, v in wrong.items())


@pytest.mark.slow
@pytest.mark.parametrize("scene", [s for s in SCENES if s.heavy], ids=lambda s: s.name)
def test_twenty_cuts_in_a_row_and_then_a_whole_run(
    scene: Scene, forks: Forks, stage: Callable[[Scene], Path], fresh: Callable[[Path], Path], tmp_path: Path, thorough: bool
) -> None:
    if not thorough:
        pytest.skip("in the full suite: make faults")
    trial = Trial(scene, forks, stage(scene), fresh, tmp_path)
    here = fresh(trial.over or trial.stage)
    ended = [trial.run(here, **moment) for moment in moments(trial.uncut, KILLS)]
    assert {e.code for e in ended} <= {0, KILLED}, next(e.said for e in ended if e.code not in (0, KILLED))
    assert not (fault := trial.again(here, trial.second or trial.first)), fault
