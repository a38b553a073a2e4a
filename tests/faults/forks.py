"""Commands started thousands of times, and killed: a process that has loaded everything forks one child for each.

Starting Python and importing torch takes seconds, in which nothing is written; a child forked from here begins with the
command's own work, so that a kill at a random moment hits that. This file is both ends: `Forks` asks, and run as a script
it is the process that forks.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import gc
import importlib
import json
import mmap
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT = 240.0  # seconds, and a child that still runs is a hang
_LOADED = ("pci_core.steps", "joblib.externals.loky")  # the rest by `Scene.load` and by what uncut children had to import
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes
    ----------
    code : int
        Its exit status, or the number of the signal that ended it, negative.
    seconds : float
    calls : int
        File-system calls that change something, under the folder that was watched.
    said : str
        What it printed.
    """

    code: int
    seconds: float
    calls: int
    said: str


class Forks:
    """The process that forks; use as a context manager."""

    def __init__(self) -> None:
        import pci_core

        home = str(Path(pci_core.__file__).parent.parent)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([home, *os.environ.get("PYTHONPATH", "").split(os.pathsep)])}
        env |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "TQDM_DISABLE": "1"}
        self._folder = tempfile.TemporaryDirectory()
        self._learnt = str(Path(self._folder.name) / "modules")
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *unused: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._folder.cleanup()

    def run(self, command: Sequence[str] | str, cwd: Path, **how: Any) -> Ended:
        """Run one child, see `many`."""
        return self.many(1, command, cwd, **how)[0]

    def many(self, times: int, command: Sequence[str] | str, cwd: Path, **how: Any) -> list[Ended]:
        """Run children at the same time.

        Parameters
        ----------
        times : int
        command : sequence of str, or str
            Arguments of ``pci``, or Python to execute.
        cwd : Path
        **how
            ``after`` kill the whole process group so many seconds after the start; ``at`` kill at that call (from 1) that would
            change something under `cwd`; ``fails`` (call, errno) instead of a kill; ``fsize`` largest file in bytes; ``uid`` user
            to become; ``env`` more variables; ``load`` modules to import before; ``limit`` seconds until it counts as a hang.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"times": times, "command": command, "cwd": str(cwd), "learnt": self._learnt, **how}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process that forks is gone"
        ended = [Ended(*row) for row in json.loads(line)]
        hung = [e for e in ended if e.code == -signal.SIGALRM]
        assert not hung, f"a hang: {command} in {cwd} ran over its limit; it said {hung[0].said[-500:]}"
        return ended


# --- the other end


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _load(list(_LOADED))
    for line in sys.stdin:
        job = json.loads(line)
        learnt = Path(job["learnt"])  # what an uncut child had to import, so that the next ones need not
        _load([*job.get("load", ()), *(learnt.read_text().split() if learnt.exists() else ())])
        answers.write(json.dumps(_run(job)) + "\n")
        answers.flush()


def _load(names: list[str]) -> None:
    new = [name for name in names if name not in sys.modules and not name.startswith("__")]
    for name in new:
        with contextlib.suppress(Exception):  # then the command will say so itself
            importlib.import_module(name)
    if new:
        gc.collect()
        gc.freeze()  # or every child would look through all of it, and copy it by that


def _run(job: dict[str, Any]) -> list[tuple[int, float, int, str]]:
    logs = [_pipe() for _ in range(job["times"])]  # no files: the disk may be full
    shared = [mmap.mmap(-1, 16) for _ in logs]  # whether it has begun, and its number of calls
    began = time.perf_counter()
    running = {}
    for log, numbers in zip(logs, shared, strict=True):
        pid = os.fork()
        if not pid:
            _child(job, log[1], numbers)
        running[pid] = len(running)
    ended: dict[int, tuple[int, float]] = {}
    due: list[float | None] = [None] * len(logs)
    while running:
        for pid, i in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            now = time.perf_counter()
            if done:
                ended[i] = (os.waitstatus_to_exitcode(status), now - began)
                del running[pid]
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)  # its workers: here they would outlive it
            elif due[i] is None and shared[i][:1] == b"\1":
                due[i] = now + job["after"] if job.get("after") is not None else float("inf")
            elif due[i] is not None and now > due[i]:
                os.killpg(pid, signal.SIGKILL)
                due[i] = float("inf")
            elif now - began > job.get("limit", LIMIT):
                os.kill(pid, signal.SIGALRM)
        time.sleep(0.0005)
    out = []
    for i, log in enumerate(logs):
        said = b""
        with contextlib.suppress(BlockingIOError):  # a kernel that outlived its parent still holds the other end
            while block := os.read(log[0], 1 << 20):
                said += block
        os.close(log[0])
        os.close(log[1])
        out.append((*ended[i], struct.unpack("q", shared[i][8:])[0], said.decode(errors="replace")))
    return out


def _pipe() -> tuple[int, int]:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)  # what a child prints waits here until it has ended
    os.set_blocking(read, False)
    return read, write


def _child(job: dict[str, Any], out: int, numbers: mmap.mmap) -> None:
    code = 99
    try:
        os.setsid()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
        os.chdir(job["cwd"])
        os.environ.update(job.get("env", {}))
        if job.get("uid"):
            os.setgroups([])
            os.setgid(job["uid"])
            os.setuid(job["uid"])
        if job.get("fsize") is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["fsize"], job["fsize"]))  # Python ignores the signal, so writes fail
        _watch(job, numbers)
        numbers[:1] = b"\1"
        code = _work(job["command"])
        if not code and not {"at", "after", "fails", "fsize", "uid"} & job.keys():
            Path(job["learnt"]).write_text("\n".join(sys.modules))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _work(command: list[str] | str) -> int:
    try:
        if isinstance(command, str):
            exec(compile(command, "<command>", "exec"), {"__name__": "__command__"})
        else:
            from pci_core.cli import main

            sys.argv = ["pci", *command]
            main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 98
    finally:
        atexit._run_exitfuncs()
    return 0


def _watch(job: dict[str, Any], numbers: mmap.mmap) -> None:
    """Count the calls that change something under the command's folder, and end or fail at the one that was asked for."""
    under, main = job["cwd"] + os.sep, os.getpid()
    at, (fails, code) = job.get("at"), job.get("fails") or (None, errno.ENOSPC)

    def changes(event: str, args: tuple[Any, ...]) -> bool:
        if event == "open":
            return bool(args[2] & _WRITES) and isinstance(args[0], str) and _below(args[0])
        if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"):
            inside = event in ("os.remove", "os.rmdir") and len(args) > 1 and args[1] != -1  # shutil.rmtree names files from their folder
            return inside or _below(os.fspath(args[0]) if not isinstance(args[0], int) else "")
        return False

    def _below(path: str) -> bool:
        name = path if os.path.isabs(path) else os.path.join(job["cwd"], path)
        return name.startswith(under)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(("open", "os.")) and changes(event, args):
            count = struct.unpack("q", numbers[8:])[0] + 1
            numbers[8:] = struct.pack("q", count)
            if count == at:
                os.killpg(main, signal.SIGKILL)
                time.sleep(60)
            if fails is not None and count >= fails and event not in ("os.remove", "os.rmdir"):  # what is full stays full
                raise OSError(code, os.strerror(code), str(args[0]))

    sys.addaudithook(hook)


if __name__ == "__main__":
    _serve()
