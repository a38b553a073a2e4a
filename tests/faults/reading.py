"""Damaged files read in processes of their own, watched from outside: what becomes of each, and the table of all.

One worker reads one damaged file after another. It may use 2 GB of memory more than it had with the good files, and 10 s a file; a
worker that ends, hangs or asks for more is a fault of the reader. Alone::

    python tests/faults/reading.py                       # 150 of each kind and the table
    python tests/faults/reading.py "ome-tiff" 17         # one file again, with the traceback
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SECONDS = 10.0
MEMORY = 2 << 30
_RIGHT = ("refused", "same", "another, allowed")


@dataclass
class Outcome:
    """What became of one damaged file: `what` is one of `_RIGHT`, or names the fault."""

    reader: str
    seed: int
    way: str
    what: str
    told: str = ""

    @property
    def is_fault(self) -> bool:
        return self.what not in _RIGHT


class Pool:
    """Workers, each a process that reads what it is told; used by one thread."""

    def __init__(self, workers: int = 1) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="faults-"))
        self.workers: list[subprocess.Popen[str] | None] = [None] * workers

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            if worker is not None:
                worker.kill()
                worker.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _start(self) -> subprocess.Popen[str]:
        # MALLOC_ARENA_MAX: each thread's arena takes 64 MB of address space, which counts as memory here
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "PCI_FAULTS_SCRATCH": str(self.scratch)}
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent.parent), environment.get("PYTHONPATH", "")])
        command = [sys.executable, str(HERE / "reading.py"), "--worker"]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=self.scratch)
        self._answer(worker, 300)
        return worker

    @staticmethod
    def _answer(worker: subprocess.Popen[str], seconds: float) -> dict[str, Any] | None:
        assert worker.stdout is not None
        if not select.select([worker.stdout], [], [], seconds)[0]:
            return None
        line = worker.stdout.readline()
        return dict(json.loads(line)) if line else {"gone": worker.wait()}

    def readers(self) -> list[str]:
        """Return the names of all readers."""
        self.workers[0] = self.workers[0] or self._start()
        return list(self._ask(0, {"list": True})["names"])

    def _ask(self, number: int, request: dict[str, Any], seconds: float = 60.0) -> dict[str, Any]:
        worker = self.workers[number] = self.workers[number] or self._start()
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(request) + "\n")
        worker.stdin.flush()
        return self._answer(worker, seconds) or {}

    def read(self, jobs: Sequence[tuple[str, int]]) -> Iterator[Outcome]:
        """Read damaged files, given by reader and seed, and yield what became of each."""
        todo = list(reversed(jobs))
        running: dict[int, tuple[str, int, float]] = {}
        while todo or running:
            for number in range(len(self.workers)):
                if number not in running and todo:
                    name, seed = todo.pop()
                    worker = self.workers[number] = self.workers[number] or self._start()
                    assert worker.stdin is not None
                    worker.stdin.write(json.dumps({"reader": name, "seed": seed}) + "\n")
                    worker.stdin.flush()
                    running[number] = (name, seed, time.monotonic())
            for number, (name, seed, began) in list(running.items()):
                worker = self.workers[number]
                assert worker is not None
                answer = self._answer(worker, 0.02 if len(running) > 1 else SECONDS)
                if answer is None and time.monotonic() - began < (SECONDS + 50 if seed == 0 else SECONDS + 2):
                    continue  # the first of a reader makes its good files, too; the clock of the reading itself is the worker's
                del running[number]
                if answer is None or "gone" in answer:
                    worker.kill()
                    worker.wait()
                    self.workers[number] = None
                    status = "hang" if answer is None else f"crash (status {answer['gone']})"
                    yield Outcome(name, seed, "?", status)
                else:
                    yield Outcome(name, seed, **answer)


@dataclass
class Report:
    """Outcomes by reader."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def faults(self) -> list[Outcome]:
        return [o for o in self.outcomes if o.is_fault]

    def table(self) -> str:
        """Return one line a reader, then the faults by cause."""
        lines = [f"{'reader':28}{'tried':>7}{'refused':>9}{'same':>7}{'allowed':>9}{'faults':>8}"]
        for name in dict.fromkeys(o.reader for o in self.outcomes):
            mine = [o for o in self.outcomes if o.reader == name]
            counts = Counter(o.what for o in mine)
            lines.append(f"{name:28}{len(mine):7}" + "".join(f"{counts[k]:{w}}" for k, w in zip(_RIGHT, (9, 7, 9), strict=True))
                         + f"{sum(o.is_fault for o in mine):8}")  # fmt: skip
        lines.append(f"{'all':28}{len(self.outcomes):7}{'':25}{len(self.faults):8}")
        causes = Counter((o.reader, o.what) for o in self.faults)
        for (name, what), n in causes.most_common():
            one = next(o for o in self.faults if (o.reader, o.what) == (name, what))
            lines.append(f"  {n:4} {name}: {what} | seed {one.seed}, {one.way}: {one.told[:230]}")
        return "\n".join(lines)


# --- in the worker


class _Bench:
    """The good files of each reader and the reading of damaged copies of them."""

    def __init__(self) -> None:
        sys.path.insert(0, str(HERE))
        import readers

        self.readers = readers.every()
        self.digest = readers.digest
        self.scratch = Path(tempfile.mkdtemp(prefix="reading-", dir=os.environ.get("PCI_FAULTS_SCRATCH")))
        self.good: dict[str, tuple[Path, list[Path], Any, str]] = {}

    def prepare(self, name: str) -> tuple[Path, list[Path], Any, str]:
        if name not in self.good:
            reader = self.readers[name]
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            folder = self.scratch / f"good{len(self.good)}"
            folder.mkdir()
            files = [p.relative_to(folder) for p in reader.make(folder)]
            work = self.scratch / "work"
            shutil.copytree(folder, work)
            value = reader.read(work)
            shutil.rmtree(work)
            self.good[name] = folder, files, value, self.digest(value)
        return self.good[name]

    def read(self, name: str, seed: int) -> dict[str, str]:
        from mutate import mutate

        from pci_core.errors import PCIError

        reader = self.readers[name]
        folder, files, good, known = self.prepare(name)
        work = self.scratch / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(folder, work)
        path = work / files[seed % len(files)]
        way, damaged = mutate((folder / files[seed % len(files)]).read_bytes(), seed // len(files), reader.text)
        path.write_bytes(damaged)
        _limit_memory()
        began = time.perf_counter()
        try:
            found = reader.read(work)
            same = self.digest(found) == known
            complaint = "" if same else reader.right(good, found, path)
            what, told = ("same" if same else "another, allowed", "") if not complaint else ("wrong", complaint)
        except PCIError as error:
            what, told = "refused", str(error)
            if isinstance(error.__cause__, MemoryError):
                what = "memory"
            elif path.name not in told and not (reader.named and reader.named in told):
                what = "unnamed"
            elif "\n" in told.strip() and len(told) > 2000:
                what = "endless message"
        except MemoryError as error:
            what, told = f"memory at {_place(error)}", repr(error)
        except Exception as error:  # noqa: BLE001 every other error is the fault that is looked for
            what, told = f"{type(error).__name__} at {_place(error)}", str(error)
        if time.perf_counter() - began > SECONDS:
            what = "hang"
        return {"way": f"{way} {path.name}", "what": what, "told": told[:600]}


def _limit_memory() -> None:
    """Allow 2 GB of address space beyond what there is now: what asks for more is told at once, whether it would use it or not."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))


def _place(error: BaseException) -> str:
    """Return the last line of ours that an error came through."""
    ours = [f for f in traceback.extract_tb(error.__traceback__) if "/pci_core/" in f.filename]
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "the test's own reader"


def _work() -> None:
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what readers print is not for the parent
    os.dup2(1, 2)
    bench = _Bench()
    print("{}", file=talk, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "list" in request:
            answer: dict[str, Any] = {"names": list(bench.readers)}
        else:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                answer = bench.read(request["reader"], request["seed"])
        print(json.dumps(answer), file=talk, flush=True)


def _again(name: str, seed: int) -> None:
    """Read one damaged file once more and show what happens."""
    bench = _Bench()
    print(bench.read(name, seed))
    try:
        print(bench.readers[name].read(bench.scratch / "work"))
    except Exception:  # noqa: BLE001
        traceback.print_exc()


def main() -> None:
    if sys.argv[1:] == ["--worker"]:
        _work()
    elif len(sys.argv) == 3 and sys.argv[2].isdigit():
        _again(sys.argv[1], int(sys.argv[2]))
    else:
        repetitions = int(os.environ.get("REPETITIONS", "150"))
        with Pool(2) as pool:
            names = [n for n in pool.readers() if not sys.argv[1:] or n in sys.argv[1:]]
            print(Report(list(pool.read([(n, i) for n in names for i in range(repetitions)]))).table())


if __name__ == "__main__":
    main()
