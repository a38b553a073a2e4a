"""Work in many small tasks: on processes of this machine, or on the workers of a Dask cluster; results come in order.

Two things speak against joblib's own Dask backend (seen with joblib 1.6). It hands out tasks as fast as workers finish them, so
that results wait in memory where the one reader is slower than the cluster. And it stores large arguments on one worker: where that
one dies, the call never ends. Tasks here are names of files and rows; each is sent again when its worker dies, and no more are under
way than the reader takes.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import joblib
from threadpoolctl import threadpool_limits

from pci_core.distributed import source_hash
from pci_core.errors import ClusterError
from pci_core.storage import write_text

T = TypeVar("T")

CONNECT_SECONDS = 10.0  # for the scheduler to answer, and then for a first worker
ALONE_SECONDS = 60.0  # without any worker before the work is given up: a nanny starts a new one within seconds
AHEAD = 4  # tasks under way for each worker: it never waits for the next, and as many results at most wait for the reader
_LOOK_SECONDS = 5.0  # between two looks at how many workers there are
_SEE_SECONDS = 5.0  # for a new file to be seen by a worker: a network file system may take a moment
# what a cell's pixels and measurements depend on; dataset.json names the versions of this process
_SAME = ("pci-core", "numpy", "scipy", "scikit-image", "pillow", "tifffile", "cp-measure", "mahotas")
_STARTS = "Start the workers from an environment with the same versions as this one, and with the run's folder and the images mounted."

_ADDRESS = re.compile(r"(\w+://)?(\[[^\]]+\]|[^:/\s]+):\d+")

_current: ContextVar[_Cluster | None] = ContextVar("cluster", default=None)
_turn = threading.Lock()  # of a worker process


def in_order(
    function: Callable[..., T], tasks: Iterable[tuple[Any, ...]], count: int, *, jobs: int = -1, local: bool = False
) -> Generator[T, None, None]:
    """Call a function with each tuple of arguments, in parallel, and give the results in the order of the tasks.

    Parameters
    ----------
    function : callable
        Of a module (or a `functools.partial` of such), since other processes import it. Under `on_cluster` a task may be done
        twice, where a worker dies: what it writes must be whole or not there, and the same each time.
    tasks : iterable of tuple
        Arguments of each call, read as they are needed. Small ones: paths and rows, not arrays.
    count : int
        Number of tasks; no more processes are started.
    jobs : int
        Processes of this machine, -1 = one for each core (`joblib.parallel_config` may name another backend). Under
        `on_cluster` the cluster's workers do the work, one task at a time each, on one thread, and `jobs` has no effect.
    local : bool
        Stay on this machine under `on_cluster`, too; it is printed.

    Yields
    ------
    object
        What the function returned. Close the iterator to stop early.

    Raises
    ------
    ClusterError
        No worker was left, the scheduler went away, or one task ended several workers.
    Exception
        What the function raised, for the first task in order that failed.
    """
    cluster = _current.get()
    if cluster is not None and not local:
        return cluster.in_order(function, tasks)
    if cluster is not None:
        print("This step runs on this machine, not on the Dask cluster.")
    processes = max(1, min(joblib.effective_n_jobs(jobs), count))
    found: Generator[T, None, None] = joblib.Parallel(n_jobs=processes, return_as="generator")(
        joblib.delayed(function)(*task) for task in tasks
    )
    return found


def describe_workers(jobs: int, count: int) -> str:
    """Return who will do so many tasks, for a printed line: ``"2 processes"``, ``"16 Dask workers"``."""
    cluster = _current.get()
    if cluster is not None:
        return _count(cluster.workers, "Dask worker")
    return _count(max(1, min(joblib.effective_n_jobs(jobs), count)), "process", "es")


@contextmanager
def on_cluster(address: str | None, folder: str | os.PathLike[str], reads: Path | None = None, *, quiet: bool = False) -> Iterator[None]:
    """Let `in_order` use a Dask cluster within the block.

    Dask sends Python objects as pickles, which can hold programs: connect to a cluster of your own only.

    Parameters
    ----------
    address : str or None
        Of the scheduler, e.g. ``"tcp://10.0.0.1:8786"``; None: nothing changes.
    folder : path-like
        That the workers read from and write to; it is made. A file with a fresh content is put there and must be seen by each worker.
    reads : Path, optional
        One of the files that the tasks read, to try.
    quiet : bool
        Print nothing.

    Raises
    ------
    ClusterError
        ``distributed`` is not installed, the scheduler does not answer within 10 s or has no worker within as much, or a
        worker has other versions of what the result depends on, or does not see the files.
    """
    if address is None:
        yield
        return
    with ExitStack() as stack:
        cluster = _Cluster(address, stack)
        cluster.check(Path(folder).resolve(), reads.resolve() if reads else None)
        if not quiet:
            print(f"Dask cluster at {address}: {_count(cluster.workers, 'worker')}{cluster.note}")
        token = _current.set(cluster)
        try:
            yield
        finally:
            _current.reset(token)


class _Cluster:
    """A connection to a scheduler, for as long as `stack` is open."""

    def __init__(self, address: str, stack: ExitStack) -> None:
        try:
            import distributed  # here: it is optional, and takes half a second
        except ImportError as error:
            raise ClusterError(
                'a Dask cluster needs dask.distributed, which is not installed here: pip install "pci-core[cluster]".'
            ) from error
        self.address, self.note = address, ""
        remedy = (
            f"Give the address that 'dask scheduler' prints, e.g. tcp://10.0.0.1:8786, and see that its port can be reached ({address})."
        )
        stack.enter_context(_silent("distributed.client"))  # it logs the traceback of a lost connection, of which we tell in one line
        if not _ADDRESS.fullmatch(address):  # distributed would find out only after having begun, and end with a trace
            raise ClusterError(f"'{address}' is no address of a Dask scheduler: host and port are needed. {remedy}")
        try:
            self.client = stack.enter_context(distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False))
        except (OSError, ValueError, TypeError) as error:  # a TimeoutError is an OSError
            raise ClusterError(f"no Dask scheduler at {address} within {CONNECT_SECONDS:g} s ({error}). {remedy}") from error
        try:
            self.client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError as error:
            raise ClusterError(
                f"the Dask scheduler at {address} has no worker, and none came within {CONNECT_SECONDS:g} s. "
                f"Start some ('dask worker {address} --nthreads 1 --nworkers 8' on each machine) and run the same command again."
            ) from error
        self._look()

    def _look(self) -> None:
        try:
            self.workers, self._looked = len(self.client.nthreads()), time.monotonic()
        except OSError as error:
            raise self._lost(error) from error

    def check(self, folder: Path, reads: Path | None) -> None:
        """Ask each worker for its versions and for the files."""
        found = self.client.get_versions(packages=list(_SAME))
        mine = _versions(found["client"])
        if wrong := _differences(mine, _versions(found["scheduler"])):
            raise ClusterError(
                f"the Dask scheduler at {self.address} has other versions than this process: {wrong}. It opens the tasks before it hands "
                "them out: start it from an environment with the same versions as this one."
            )
        other = {w: wrong for w, v in found["workers"].items() if (wrong := _differences(mine, _versions(v)))}
        if other:
            raise ClusterError(self._of_workers("other versions than this process", other, _STARTS))
        token, content = folder / f".cluster-{secrets.token_hex(8)}", secrets.token_hex(8)
        write_text(token, content)
        try:
            answers = self.client.run(
                _probe, str(token), content, str(reads) if reads else None, source_hash(), _SEE_SECONDS, on_error="return"
            )
        finally:
            token.unlink(missing_ok=True)
        blind = {w: str(a) for w, a in answers.items() if a}
        if blind:
            raise ClusterError(self._of_workers("other code or no access to the files", blind, _STARTS))
        threads = self.client.nthreads()
        if many := sum(n > 1 for n in threads.values()):
            self.note = f"; {many} of them have several threads, of which one is used: start workers with --nthreads 1 to use all cores"

    def _lost(self, error: BaseException) -> ClusterError:
        return ClusterError(
            f"the connection to the Dask scheduler at {self.address} was lost ({error}). What was made so far in this step is dropped; run "
            "the same command again when the scheduler is back."
        )

    def _of_workers(self, what: str, found: dict[str, str], remedy: str) -> str:
        worker, wrong = next(iter(found.items()))
        return f"{len(found)} of {self.workers} Dask workers at {self.address} have {what}, e.g. {worker}: {wrong}. {remedy}"

    def in_order(self, function: Callable[..., T], tasks: Iterable[tuple[Any, ...]]) -> Generator[T, None, None]:
        todo, under_way = iter(tasks), deque[Any]()
        try:
            while True:
                if time.monotonic() - self._looked > _LOOK_SECONDS:
                    self._look()  # a cluster may grow
                room = max(0, AHEAD * max(1, self.workers) - len(under_way))
                under_way.extend(self.client.submit(_one_at_a_time, function, *task, pure=False) for task in islice(todo, room))
                if not under_way:
                    return
                result = self._result(under_way[0])
                under_way.popleft()  # only now: until then an error cancels it with the others
                yield result
        finally:
            if under_way:
                self.client.cancel(list(under_way))

    def _result(self, future: Any) -> Any:
        from distributed import CancelledError, KilledWorker

        last_seen = time.monotonic()
        while True:
            try:
                return future.result(timeout=_LOOK_SECONDS)
            except TimeoutError:
                if future.status == "error":
                    raise  # the task's own
            except (OSError, CancelledError) as error:
                if future.status == "error":
                    raise
                raise self._lost(error) from error
            except KilledWorker as error:
                raise ClusterError(
                    f"one task ended {error.allowed_failures + 1} Dask workers at {self.address} one after another, most likely for want "
                    "of memory. Give each worker more (--memory-limit), or run with --jobs 1 instead of --dask to see where it fails."
                ) from error
            self._look()
            now = time.monotonic()
            if self.workers:
                last_seen = now
            elif now - last_seen > ALONE_SECONDS:
                raise ClusterError(
                    f"the Dask scheduler at {self.address} has had no worker for {ALONE_SECONDS:g} s. Start some and run the same command "
                    "again."
                )


@contextmanager
def _silent(name: str) -> Iterator[None]:
    log = logging.getLogger(name)
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _one_at_a_time(function: Callable[..., T], *task: Any) -> T:
    """Run on a worker: one task at a time and on one thread, since limits on threads count for a whole process."""
    with _turn, threadpool_limits(1):
        return function(*task)


def _probe(token: str, content: str, reads: str | None, code: str, wait: float) -> str:
    """Run on a worker: return what is wrong with its code or its view of the files, or nothing."""
    if source_hash() != code:
        return f"its pci_core in {Path(__file__).parent} has other sources than the one here"
    until = time.monotonic() + wait
    while True:
        try:
            seen = Path(token).read_text(encoding="utf-8") == content
        except OSError:
            seen = False
        if seen or time.monotonic() > until:
            break
        time.sleep(0.2)
    folder = Path(token).parent
    if not seen:
        return f"it does not see this folder: {folder}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"it cannot write to {folder}"
    if reads:
        try:
            if os.path.isdir(reads):  # OME-Zarr
                os.listdir(reads)
            else:
                with open(reads, "rb") as handle:
                    handle.read(1)
        except OSError as error:
            return f"it cannot read {reads} ({error.strerror})"
    return ""


def _versions(told: dict[str, Any]) -> dict[str, str]:
    packages = told["packages"]
    return {"Python": ".".join(told["host"]["python"].split(".")[:2]), **{name: str(packages.get(name)) for name in _SAME}}


def _differences(mine: dict[str, str], theirs: dict[str, str]) -> str:
    return ", ".join(f"{name} {theirs[name]} (here {version})" for name, version in mine.items() if theirs[name] != version)


def _count(n: int, what: str, plural: str = "s") -> str:
    return f"{n} {what}{plural if n != 1 else ''}"
