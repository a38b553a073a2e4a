"""Processes for tests that need several, or one to kill: each forked from one that has imported torch and the package.

A Python that trains spends eight seconds of a processor on imports, whatever it then does. Here they are paid once for all tests
of a worker. A child is a process in every other respect: its own environment, output, atexit functions, signals and exit status.
What children share and new interpreters do not: the seed of hashes, and what torch reads from the environment while it is imported.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any


class Forked:
    """A script in a process of its own, with the part of `subprocess.Popen` that tests use.

    Parameters
    ----------
    script : str
        Python, run as ``__main__`` with `arguments` behind ``sys.argv[0]``.
    *arguments : object
    **environment : str
        Beside that of this process.
    """

    def __init__(self, script: str, *arguments: Any, **environment: str) -> None:
        self._said = tempfile.TemporaryDirectory()
        self._files = [Path(self._said.name) / name for name in ("out", "err")]
        for file in self._files:
            file.touch()
        given = (script, [str(a) for a in arguments], {**os.environ, **environment}, [str(f) for f in self._files])
        self._process = _context().Process(target=_run, args=given)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """Exit status, or the number of the signal that ended it, negative; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return `returncode`."""
        return self.returncode

    def wait(self, timeout: float = 120) -> int:
        """Wait for its end and return the exit status."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout)
        return self.returncode

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Wait for its end and return what it wrote to stdout and stderr."""
        self.wait(timeout)
        return self.said()

    def said(self) -> tuple[str, str]:
        """Return what it has written to stdout and stderr so far."""
        out, err = (file.read_text() for file in self._files)
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None and self._process.pid:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once, also where it is stopped."""
        self.send_signal(signal.SIGKILL)


def run(script: str, *arguments: Any, timeout: float = 120, **environment: str) -> str:
    """Run a script to its end; return what it wrote to stdout, and fail with its stderr where it fails."""
    process = Forked(script, *arguments, **environment)
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out


@functools.cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["loaded"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # Python 3.11 forgets to hand it over
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    atexit.register(forkserver._forkserver._stop)  # type: ignore[attr-defined]  # waits for it, so that its time counts as the tests'
    return context


def _run(script: str, arguments: list[str], environment: dict[str, str], files: list[str]) -> None:
    code = 70
    try:
        for number, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["-c", *arguments]
        assert "loaded" in sys.modules, "the process that forks did not find tests/loaded.py"
        code = _status(script)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _status(script: str) -> int:
    try:
        exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        atexit._run_exitfuncs()
    return 0
