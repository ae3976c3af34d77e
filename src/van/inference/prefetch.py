"""Decode images in threads, in order, a bounded number ahead of the network."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from ..errors import ConfigError, VanError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int
) -> Iterator[tuple[Item, Result | Exception]]:
    """(item, function(item)) for every item in the order of `items`; an exception is handed over in place of a result.

    workers: threads (0: none, everything in the caller's); ahead: results that may wait, which bounds memory.
    Threads suffice: PIL and numpy release the interpreter lock while they decode and resize.
    """
    if workers < 0:
        raise ConfigError(f"workers is {workers}; expected 0 or more")

    def attempt(item: Item) -> Result | Exception:
        try:
            return function(item)
        except Exception as error:
            return error

    if workers == 0:
        yield from ((item, attempt(item)) for item in items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="van-decode")
    try:
        remaining = iter(items)
        waiting: deque[tuple[Item, Future[Result | Exception]]] = deque()
        waiting.extend((item, pool.submit(attempt, item)) for item in islice(remaining, max(ahead, workers)))
        while waiting:
            item, future = waiting.popleft()
            yield item, future.result()
            waiting.extend((item, pool.submit(attempt, item)) for item in islice(remaining, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def default_workers() -> int:
    """Threads that read images by default: one per core, at most 8."""
    return min(os.cpu_count() or 1, 8)


def reason_of(error: Exception) -> str:
    """What went wrong, on one line; errors that are not ours carry their type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, VanError | OSError) else f"{type(error).__name__}: {text}"
