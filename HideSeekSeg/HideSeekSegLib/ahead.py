"""Work on what comes next, while what is there already is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """``work(key)`` of every key, done in their order in a thread beside the caller's.

    ``ahead[key]`` waits for its result and raises what the work raised.  ``close`` leaves out what
    has not begun.
    """

    def __init__(self, work: Callable[[str], T], keys: Sequence[str]) -> None:
        self.keys = tuple(keys)
        self._worker = ThreadPoolExecutor(max_workers=1)
        self._results = {key: self._worker.submit(work, key) for key in self.keys}

    def __getitem__(self, key: str) -> T:
        return self._results[key].result()

    def close(self) -> None:
        self._worker.shutdown(cancel_futures=True)
