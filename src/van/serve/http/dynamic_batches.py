"""Dynamic batches: one thread per model that runs what waits, together where it can.

The thread takes what is there as soon as it is free: waiting is what makes batches under load, and without load
nothing waits. Only for images that are being decoded right now does it linger, briefly.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Item:
    """Something that waits for the network.

    key: items of one key can run together. work: what the runner gets. future: of the result, or its exception.
    dropped: nobody waits for it any more. run_s: of the batch it was in. queued_s: before that.
    """

    key: Hashable
    work: Any
    future: asyncio.Future[Any]
    put_at: float = field(default_factory=time.perf_counter)
    dropped: bool = False
    queued_s: float = 0.0
    run_s: float = 0.0


# From a key and the works of some items to a result, or an exception, for each.
Run = Callable[[Any, Sequence[Any]], Sequence[Any]]
# Of a batch: how many items, seconds.
Observe = Callable[[int, float], None]


class DynamicBatches:
    """Runs items in its own thread, up to `max_batch` of a key at a time, in the order of the first of them.

    Used from one event loop. coming: how many items are about to be put, for which an incomplete batch waits up to
    `linger_s`. observe: called in the event loop after each batch.
    """

    def __init__(
        self, run: Run, *, max_batch: int, linger_s: float, coming: Callable[[], int], observe: Observe, name: str
    ) -> None:
        self._run, self._max_batch, self._linger_s = run, max_batch, linger_s
        self._coming, self._observe = coming, observe
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name=f"van-run-{name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread is there."""
        return self._thread.is_alive()

    def put(self, item: Item) -> None:
        """Let an item wait for its turn."""
        with self._changed:
            self._waiting.append(item)
            self._changed.notify()

    def drop(self, item: Item) -> None:
        """Nobody waits for an item any more: it is left out, unless it runs already."""
        with self._changed, suppress(ValueError):
            item.dropped = True
            self._waiting.remove(item)

    def close(self) -> None:
        """Run what waits, then end the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._collect():
            start = time.perf_counter()
            for item in batch:
                item.queued_s = start - item.put_at
            try:
                results = self._run(batch[0].key, [item.work for item in batch])
            except Exception as error:  # the thread has to outlive whatever a runtime raises
                results = [error] * len(batch)
            seconds = time.perf_counter() - start
            for item in batch:
                item.run_s = seconds
            with suppress(RuntimeError):  # of a loop that is closed
                batch[0].future.get_loop().call_soon_threadsafe(self._deliver, batch, results, seconds)
            del batch, results

    def _collect(self) -> list[Item]:
        """The next batch; empty once the queue is closed and nothing waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopped)
            if not self._waiting:
                return []
            batch = [self._waiting.popleft()]
            until = time.monotonic() + self._linger_s
            while True:
                self._take_alike(batch)
                left = until - time.monotonic()
                if len(batch) >= self._max_batch or left <= 0 or self._coming() <= 0 or self._stopped:
                    return batch
                self._changed.wait(left)

    def _take_alike(self, batch: list[Item]) -> None:
        others: list[Item] = []
        while self._waiting and len(batch) < self._max_batch:
            item = self._waiting.popleft()
            (batch if item.key == batch[0].key else others).append(item)
        self._waiting.extendleft(reversed(others))

    def _deliver(self, batch: Sequence[Item], results: Sequence[Any], seconds: float) -> None:
        self._observe(len(batch), seconds)
        for item, result in zip(batch, results, strict=True):
            if item.future.done():
                continue
            if isinstance(result, Exception):
                item.future.set_exception(result)
            else:
                item.future.set_result(result)
