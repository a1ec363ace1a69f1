"""Work on several vertebrae at once, in threads; the caller's thread alone reports and stops.

torch, and much of numpy, compute without Python's lock, and the layers of a small network are too
small for several cores: so two vertebrae side by side take little more time than one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

from .model.weights import Model
from .progress import Stopped

K = TypeVar("K")
R = TypeVar("R")
Tell = Callable[..., None]  # says how far a work has come, and raises Stopped where it is to end

MOST_AT_ONCE = 4  # each holds its own pictures
SMALL = 64  # pixels across: layers for larger images keep several cores busy


class _OneThreadEach:
    """One thread of torch for each caller's, until the last of several runs at once has ended."""

    def __init__(self) -> None:
        self._lock, self._runs, self._threads = threading.Lock(), 0, 1

    @contextmanager
    def entered(self) -> Iterator[int]:
        """Yield how many threads torch has outside."""
        with self._lock:
            if self._runs == 0:
                self._threads = torch.get_num_threads()
                torch.set_num_threads(1)
            self._runs += 1
        try:
            yield self._threads
        finally:
            with self._lock:
                self._runs -= 1
                if self._runs == 0:
                    torch.set_num_threads(self._threads)


_one_each = _OneThreadEach()


@contextmanager
def shared_cores(model: Model) -> Iterator[int]:
    """Yield how many vertebrae to work on at once; inside, torch computes each with one thread.

    So a vertebra's numbers depend neither on how many are asked for nor on the number of threads.
    One at a time, with all threads, on a GPU and with networks that are not small.
    """
    if model.device.type != "cpu" or model.profile.architecture.image_size > SMALL:
        yield 1
        return
    with _one_each.entered() as threads:
        yield min(threads, MOST_AT_ONCE)


def side_by_side(
    work: Callable[[K, Tell], R],
    keys: Sequence[K],
    workers: int,
    hear: Tell,
    late: Callable[[K, R], None] = lambda key, result: None,
) -> Generator[R, None, None]:
    """Yield ``work(key, tell)`` for each of different keys, in their order.

    What work tells is heard in the caller's thread by ``hear``, and what that raises ends all work
    at its next word.  What a work raises is raised at its turn.  After Stopped, results that are
    ready but not yielded are given to ``late``.  Whoever does not take all results closes the
    iterator.
    """
    if min(workers, len(keys)) < 2:
        yield from (work(key, hear) for key in keys)
        return
    with ThreadPoolExecutor(workers) as threads:
        at_work = _AtWork(work, keys, threads)
        try:
            for key in keys:
                yield at_work.result(key, hear)
        except Stopped:
            at_work.end()
            for key, future in at_work.waiting.items():
                if not future.cancelled() and future.exception() is None:
                    late(key, future.result())
            raise
        finally:
            at_work.end()


class _AtWork(Generic[K, R]):
    """What the threads are at: ``waiting`` holds what was not asked for yet."""

    def __init__(
        self, work: Callable[[K, Tell], R], keys: Sequence[K], threads: ThreadPoolExecutor
    ) -> None:
        self._told: queue.SimpleQueue[tuple[object, ...] | Future[R]] = queue.SimpleQueue()
        self._threads, self._ending = threads, False
        self._finished: set[Future[R]] = set()
        self.waiting = {key: threads.submit(work, key, self._tell) for key in keys}
        for future in self.waiting.values():
            future.add_done_callback(self._told.put)  # after all that it told

    def _tell(self, *words: object) -> None:
        if self._ending:
            raise Stopped
        self._told.put(words)

    def result(self, key: K, hear: Tell) -> R:
        """Return a result, or raise what its work raised; meanwhile pass on what all tell."""
        while self.waiting[key] not in self._finished:
            told = self._told.get()
            if isinstance(told, Future):
                self._finished.add(told)
            else:
                hear(*told)
        return self.waiting.pop(key).result()

    def end(self) -> None:
        """Start nothing more, and wait until all that was begun has noticed."""
        self._ending = True
        self._threads.shutdown(wait=True, cancel_futures=True)
