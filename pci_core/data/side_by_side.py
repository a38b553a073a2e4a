"""Work on many jobs with a few threads: one consumer, results as they come, an end at any point."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def side_by_side(
    jobs: Iterable[Job], work: Callable[[Job], Result], threads: int, stop: Callable[[], None]
) -> Generator[tuple[Job, Result | Exception], None, None]:
    """Yield each job with what `work` returned for it, or the exception it raised, in the order they finish.

    Jobs are drawn one by one, so that a long list costs no memory. If the consumer leaves (an error, Ctrl-C,
    `contextlib.closing`), `stop` is called, running work is waited for, and its results are lost.
    """
    source, lock = iter(jobs), threading.Lock()
    done: queue.Queue[tuple[Job, Result | Exception] | None] = queue.Queue(1)  # no worker runs ahead of the consumer
    leaving = threading.Event()

    def give(item: tuple[Job, Result | Exception] | None) -> None:
        while not leaving.is_set():
            try:
                return done.put(item, timeout=0.2)
            except queue.Full:
                continue

    def labour() -> None:
        while not leaving.is_set():
            with lock:
                try:
                    job = next(source)
                except StopIteration:
                    break
            result: Result | Exception
            try:
                result = work(job)
            except Exception as error:  # every kind: it goes to the consumer's thread, which knows what to do with it
                result = error
            give((job, result))
        give(None)

    workers = [threading.Thread(target=labour, daemon=True) for _ in range(max(1, threads))]
    for worker in workers:
        worker.start()
    ended = False
    try:
        left = len(workers)
        while left:
            try:
                item = done.get(timeout=0.5)  # a time-out, or Ctrl-C would wait for the next result on some systems
            except queue.Empty:
                continue
            if item is None:
                left -= 1
            else:
                yield item
        ended = True
    finally:
        leaving.set()
        if not ended:
            stop()
        for worker in workers:
            worker.join()
