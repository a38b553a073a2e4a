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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SECONDS = 10.0  # for one file
LONGEST = 60.0  # until a worker is ended: the first of a reader makes its good files, too
MEMORY = 2 << 30
PARTS = ("images", "tables", "cells", "weights", "results")  # of the readers: readers_<part>.py
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


class Worker:
    """A process that reads damaged files of some parts of the readers, see `PARTS`; begun again where it was ended."""

    def __init__(self, parts: Sequence[str], scratch: Path) -> None:
        self.parts, self.scratch = parts, scratch
        self.process: subprocess.Popen[str] | None = None

    def _start(self) -> subprocess.Popen[str]:
        # MALLOC_ARENA_MAX: each thread's arena takes 64 MB of address space, which counts as memory here
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "PCI_FAULTS_SCRATCH": str(self.scratch)}
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent.parent), environment.get("PYTHONPATH", "")])
        command = [sys.executable, str(HERE / "reading.py"), "--worker", *self.parts]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=self.scratch)

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """Return the answer, ``{"gone": status}`` if the worker ended, or None if it took too long."""
        self.process = self.process or self._start()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        begun = _seconds_of(self.process.pid)
        while not select.select([self.process.stdout], [], [], 1.0)[0]:
            # its own time, not the clock's: on a busy machine a good reader waits for minutes
            if _seconds_of(self.process.pid) - begun > seconds:
                self.end()
                return None
        line = self.process.stdout.readline()
        if line:
            return dict(json.loads(line))
        status = self.process.wait()
        self.process = None
        return {"gone": status}

    def names(self, costly: bool) -> list[str]:
        """Return the names of the readers."""
        answer = self.ask({"list": True, "costly": costly}, 300.0)
        assert answer and "names" in answer, answer
        return list(answer["names"])

    def read(self, name: str, seed: int) -> Outcome:
        """Read a damaged file and return what became of it."""
        answer = self.ask({"reader": name, "seed": seed}, LONGEST)
        if answer is None:
            return Outcome(name, seed, "?", "hang")
        return Outcome(name, seed, "?", f"crash (status {answer['gone']})") if "gone" in answer else Outcome(name, seed, **answer)

    def end(self) -> None:
        """End the process; the next question begins another."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _seconds_of(pid: int) -> float:
    """Return the seconds that a process has worked."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def working(groups: Sequence[Sequence[str]]) -> Iterator[list[Worker]]:
    """Give a worker for each group of parts; at the end they are gone, with all that they wrote."""
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        workers = [Worker(parts, Path(scratch)) for parts in groups]
        try:
            yield workers
        finally:
            for worker in workers:
                worker.end()


def read_all(groups: Sequence[Sequence[str]], repetitions: int, names: Sequence[str] = (), costly: bool = True) -> Report:
    """Read `repetitions` damaged files of every reader of these parts, or of those named; each group has a worker of its own."""
    report = Report()

    def part_of(worker: Worker) -> None:
        for first, name in enumerate(worker.names(costly)):  # other ways of damage for each, where each has few
            for seed in range(first, first + repetitions) if not names or name in names else ():
                outcome = worker.read(name, seed)
                report.outcomes.append(outcome)
                if log is not None:
                    log.write(json.dumps(asdict(outcome)) + "\n")
                    log.flush()
        worker.end()

    log = open(os.environ["FAULTS_LOG"], "a", encoding="utf-8") if "FAULTS_LOG" in os.environ else None  # noqa: SIM115
    with working(groups) as workers, ThreadPoolExecutor(2) as threads:
        list(threads.map(part_of, workers))
    return report


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

    def __init__(self, parts: Sequence[str]) -> None:
        sys.path.insert(0, str(HERE))
        import readers

        self.readers = readers.of(parts)
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
            shutil.rmtree(work, ignore_errors=True)
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
        began = time.process_time()
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
        except Exception as error:
            what, told = f"{type(error).__name__} at {_place(error)}", str(error)
        if time.process_time() - began > SECONDS:
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


def _work(parts: Sequence[str]) -> None:
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what readers print is not for the parent
    os.dup2(1, 2)
    bench = _Bench(parts)
    for line in sys.stdin:
        request = json.loads(line)
        if "list" in request:
            answer: dict[str, Any] = {"names": [n for n, r in bench.readers.items() if request["costly"] or not r.costly]}
        else:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                answer = bench.read(request["reader"], request["seed"])
        print(json.dumps(answer), file=talk, flush=True)


def _again(name: str, seed: int) -> None:
    """Read one damaged file once more and show what happens."""
    sys.path.insert(0, str(HERE))
    import readers

    bench = _Bench(next([part] for part in PARTS if name in readers.of([part])))
    print(bench.read(name, seed))
    try:
        print(bench.readers[name].read(bench.scratch / "work"))
    except Exception:
        traceback.print_exc()


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        _work(sys.argv[2:])
    elif len(sys.argv) == 3 and sys.argv[2].isdigit():
        _again(sys.argv[1], int(sys.argv[2]))
    else:
        asked = [a for a in sys.argv[1:] if a in PARTS]
        names = [a for a in sys.argv[1:] if a not in PARTS]
        print(read_all([[part] for part in asked or PARTS], int(os.environ.get("REPETITIONS", "150")), names).table())


if __name__ == "__main__":
    main()
