"""What the fault suite shares: the process that forks, and folders furnished up to the step in question."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import scenes
from forks import Forks


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with Forks() as running:
        yield running


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("furnished") / "base"
    scenes.furnish(folder)
    return folder


@pytest.fixture(scope="session")
def stage(forks: Forks, furnished: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[scenes.Scene], Path]:
    """Return a folder in which everything that a scene needs is made; it is only to be copied."""
    made: dict[str, Path] = {}

    def set_up(scene: scenes.Scene) -> Path:
        key = repr(scene.before)
        if key not in made:
            folder = scenes.copy(furnished, tmp_path_factory.mktemp("stage") / "as-it-is")
            for command in scene.before:
                ended = forks.run(command, folder, env=scene.env)
                assert ended.code == 0, ended.said
            made[key] = folder
        return made[key]

    return set_up


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Copy a stage into one folder, the same each time: stamps may hold paths."""
    here = tmp_path / "here"

    def copy(stage: Path) -> Path:
        shutil.rmtree(here, ignore_errors=True)
        return scenes.copy(stage, here)

    yield copy
    shutil.rmtree(here, ignore_errors=True)
