"""Many processes as one: who this process is, what only the first does, and an end for all when one is gone.

Started by ``torchrun`` (or by anything that sets its variables), each process is one `World` of several; otherwise there is
one alone, and nothing here costs anything. What the processes tell one another outside the training itself goes through
torch's store, by key, so that waiting for long work of the first has no time limit. All machines must see the same files.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

from pci_core.errors import DistributedError, PCIError
from pci_core.heartbeat import FAILED, Heartbeat

MEETING = 300.0  # seconds for all processes to come
COLLECTIVE = 3600.0  # a last resort; who is gone is found by the heartbeat, much sooner
GO_ON = "What is finished and the last checkpoint are kept; the same command goes on from there."
_OWNER = "PCI_WORLD_PROCESS"  # processes that one of ours starts inherit its variables, but are none of the world
T = TypeVar("T")
P = ParamSpec("P")


class World:
    """The processes that work together, seen from one of them.

    Attributes
    ----------
    rank : int
        This process, from 0; rank 0 decides, writes and speaks.
    size : int
        Number of processes.
    local_rank : int
        This process on its machine: the number of its GPU.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, stores: tuple[Any, Any] | None = None) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._calls = 0
        self._closed = stores is None
        if stores is not None:
            self._store, beats = stores
            agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
            self._keeps_store = rank == 0 and not agent
            host = f"{'torchrun or its machine' if agent else 'rank 0'}, which keeps the meeting point (MASTER_ADDR),"
            self._beat = Heartbeat(beats, rank, size, self._end, host)
            self._meet()
            self._beat.start()

    @classmethod
    def from_environment(cls) -> World:
        """Join the world that ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT`` describe.

        Raises
        ------
        DistributedError
            A variable is missing or no number, or the processes do not meet.
        """
        if not is_started_together():
            return cls()
        try:
            rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            local = int(os.environ.get("LOCAL_RANK", rank))
        except ValueError as error:
            raise DistributedError(f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers ({error}). Start with torchrun.") from None
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
        if missing or not 0 <= rank < size:
            found = f"{', '.join(missing)} not set" if missing else f"RANK={rank} of WORLD_SIZE={size}"
            raise DistributedError(f"{found}: the processes cannot meet. Start with torchrun, which sets what is needed.")
        return cls._join(rank, size, local)

    def __repr__(self) -> str:
        return f"<World: rank {self.rank} of {self.size}>"

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    # --- meet and leave

    @classmethod
    def _join(cls, rank: int, size: int, local: int) -> World:
        import torch
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        if torch.cuda.is_available() and local < torch.cuda.device_count():
            torch.cuda.set_device(local)
        try:
            # one connection for the main thread, one for the heartbeat: a connection serves one question at a time
            store, beats = (next(iter(rendezvous("env://", timeout=timedelta(seconds=MEETING))))[0] for _ in range(2))
            world = cls(rank, size, local, (PrefixStore("pci", store), PrefixStore("pci", beats)))
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
            dist.init_process_group(
                backend, store=PrefixStore("group", store), rank=rank, world_size=size, timeout=timedelta(seconds=COLLECTIVE)
            )
        except (RuntimeError, ValueError) as error:
            where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise DistributedError(f"rank {rank} of {size} could not meet the others at {where} ({_line(error)}).") from error
        os.environ[_OWNER] = str(os.getpid())
        atexit.register(world.close)
        return world

    def _meet(self) -> None:
        self._store.add("joined", 1)
        until = time.monotonic() + MEETING
        while (there := self._store.add("joined", 0)) < self.size:
            if time.monotonic() > until:
                raise DistributedError(f"only {there} of {self.size} processes came within {MEETING:.0f} s. Start them all, with torchrun.")
            time.sleep(0.05)

    def close(self) -> None:
        """Leave. The process that keeps the store waits for the others, which may still need it."""
        if self._closed:
            return
        import torch.distributed as dist

        self._closed = True
        if dist.is_initialized() and not self._beat.failure and not self._beat.lost():
            dist.destroy_process_group()
        self._beat.leave()
        if self._keeps_store:
            while not self._beat.others_left():
                time.sleep(0.05)

    # --- work

    def first(self, work: Callable[[], T]) -> T:
        """Let rank 0 work while the others wait, as long as it takes; all return what it returned (plain values).

        What `work` calls finds rank 0 alone in the world. Every process must call this in the same order.

        Raises
        ------
        DistributedError
            On the others, where the work failed on rank 0, which raises its own error.
        """
        if self.size == 1:
            return work()
        key = self._key("first")
        if self.rank == 0:
            try:
                with _alone():
                    value = work()
            except BaseException as error:
                self._tell(key, {"error": _line(error)})
                raise
            self._tell(key, {"value": value})
            return value
        found = self._hear(key)
        if "error" in found:
            raise _told(f"rank 0 stopped: {found['error']}")
        return found["value"]  # type: ignore[no-any-return]

    def first_then_all(self, work: Callable[[], T]) -> T:
        """Let rank 0 work and then the others, which find on disk what it left (downloads); each returns its own."""
        mine: list[T] = []
        self.first(lambda: mine.append(work()))
        return mine[0] if mine else work()

    @contextlib.contextmanager
    def holding(self, context: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
        """Hold a context (a lock) on rank 0 alone while all work under it."""
        with ExitStack() as stack:

            def enter() -> None:
                stack.enter_context(context())

            self.first(enter)
            yield

    def gather(self, value: Any) -> list[Any]:
        """Return the plain values of all processes, by rank, on rank 0; an empty list on the others."""
        if self.size == 1:
            return [value]
        key = self._key("gather")
        if self.rank:
            self._tell(f"{key}/{self.rank}", value)
            return []
        return [value, *(self._hear(f"{key}/{r}") for r in range(1, self.size))]

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Compare what must be the same everywhere, the package's sources and torch's version among it.

        Parameters
        ----------
        facts : mapping of str to plain value

        Raises
        ------
        DistributedError
            On every process, naming what differs and where.
        """
        if self.size == 1:
            return
        import torch

        mine = {"code": source_hash(), "torch": torch.__version__, **facts}
        all_of_them = self.gather({k: json.dumps(v, sort_keys=True, default=str) for k, v in mine.items()})

        def compare() -> str:
            told = []
            for name in dict.fromkeys(k for one in all_of_them for k in one):
                groups: dict[str, list[int]] = {}
                for rank, one in enumerate(all_of_them):
                    groups.setdefault(one.get(name, "nothing"), []).append(rank)
                if len(groups) > 1:
                    told.append(f"{name}: " + ", ".join(f"{_short(v)} on rank {_ranks(r)}" for v, r in groups.items()))
            return "; ".join(told)

        if differ := self.first(compare):
            raise DistributedError(f"the processes do not work on the same ({differ}). Give all of them the same files, then start again.")

    def _key(self, kind: str) -> str:
        self._calls += 1
        return f"{kind}/{self._calls}"

    def _tell(self, key: str, value: Any) -> None:
        self._store.set(key, json.dumps(value))

    def _hear(self, key: str) -> Any:
        pause = 0.002
        while True:
            try:
                if self._store.check([key]):
                    return json.loads(self._store.get(key))
            except RuntimeError as error:
                raise self._loss() or error from error
            if self._beat.failure:
                raise _told(self._beat.failure)
            time.sleep(pause)
            pause = min(0.2, pause * 1.5)

    # --- when something goes wrong

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Tell the others of any error under the block; where the error is only that one is gone, say which.

        Raises
        ------
        DistributedError
            Another process is gone or stopped.
        """
        try:
            yield
        except BaseException as error:
            if self.size == 1 or (isinstance(error, SystemExit) and not error.code):
                raise
            if isinstance(error, DistributedError) and error.told:
                raise
            if isinstance(error, RuntimeError) and (loss := self._loss()):
                raise loss from error
            self._fail(f"rank {self.rank} stopped: {_line(error)}")
            raise

    def _loss(self) -> DistributedError | None:
        """Find out, after a collective operation failed, who is gone; None if all are there."""
        for _ in range(25):  # five intervals: three without a sign are needed
            self._beat.look()
            if self._beat.failure:
                return _told(self._beat.failure)
            if lost := self._beat.lost():
                return DistributedError(self._fail(f"{lost} gone: killed, out of memory, or cut off. {GO_ON}"))
            time.sleep(self._beat._interval / 5)
        return None

    def _fail(self, text: str) -> str:
        if self._beat.unreachable:  # then the others find out themselves
            return text
        with contextlib.suppress(RuntimeError):
            return str(self._store.compare_set(FAILED, "", text).decode())
        return text

    def _end(self, lost: str) -> None:
        text = lost if "stopped: " in lost or GO_ON in lost else self._fail(f"{lost} gone or hangs. {GO_ON}")
        self.say_and_exit(text)

    def report(self, error: PCIError) -> None:
        """Print an error that ends this process, once for all processes that have the same, and tell the others."""
        text = str(error)
        if self.size == 1:
            print(f"pci: {text}", file=sys.stderr)
            return
        self._fail(f"rank {self.rank} stopped: {text}")
        same = False
        with contextlib.suppress(RuntimeError):
            if self._beat.unreachable:
                raise RuntimeError
            self._tell(f"error/{self.rank}", text)
            until = time.monotonic() + 2
            while self.rank and not same and time.monotonic() < until:
                same = bool(self._store.check(["error/0"])) and json.loads(self._store.get("error/0")) == text
                time.sleep(0.05)
        if not same and not (isinstance(error, DistributedError) and error.told and self.local_rank):
            print(f"pci: rank {self.rank} of {self.size}: {text}", file=sys.stderr, flush=True)

    def say_and_exit(self, text: str) -> None:
        """End this process at once, also out of an operation that hangs, with one line and status 1."""
        print(f"pci: rank {self.rank} of {self.size}: {text}", file=sys.stderr, flush=True)
        os._exit(1)

    def abandon(self, status: int = 1) -> NoReturn:
        """End this process after an error; the store stays until the others have read why."""
        self._closed = True
        self._beat.leave()
        until = time.monotonic() + 10
        while self._keeps_store and time.monotonic() < until and not self._beat.others_left():
            time.sleep(0.05)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # the ordinary end would wait for operations that nobody answers any more


_current: World | None = None


def world() -> World:
    """Return the world of this process; it is joined on the first call."""
    global _current
    if _current is None:
        _current = World.from_environment()
    return _current


def together(work: Callable[P, T]) -> Callable[P, T]:
    """Mark a function that all processes run together: an error in one ends it in all, see `World.guard`."""

    @functools.wraps(work)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        with world().guard():
            return work(*args, **kwargs)

    return guarded


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    global _current
    before, _current = _current, World()
    try:
        yield
    finally:
        _current = before


def is_started_together() -> bool:
    """Tell whether the environment makes this process one of several."""
    owner = os.environ.get(_OWNER)
    if owner not in (None, str(os.getpid())):
        return False
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def local_rank() -> int | None:
    """Return this process' number on its machine, None where it was not started with others. Nothing is joined."""
    if not is_started_together():
        return None
    value = os.environ.get("LOCAL_RANK", os.environ["RANK"])
    return int(value) if value.isdigit() else 0


@functools.cache
def source_hash() -> str:
    """Return the SHA-256 of the package's Python files, by name and bytes."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _told(text: str) -> DistributedError:
    error = DistributedError(text)
    error.told = True
    return error


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:400]
    return text if isinstance(error, PCIError) and text else f"{type(error).__name__}: {text}"


def _short(value: str) -> str:
    value = value.strip('"')
    return value if len(value) <= 80 else value[:77] + "…"


def _ranks(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (" …" if len(ranks) > 8 else "")
