"""Run any number of images through a network, in smaller batches once memory runs out."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch

from ..errors import ConfigError, VanNotice

Item = TypeVar("Item")
Result = TypeVar("Result")

# What allocators say, apart from their own exception types: CUDA libraries, torch's CPU allocator.
_PHRASES = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


class BatchBackoff(Generic[Item, Result]):
    """Calls `run` with at most `batch_size` items at a time, half as many whenever memory runs out.

    Every item is run exactly once successfully, in order. `batch_size` is what fitted. Several threads may call it.
    run: a list of results, one per item; it must be picklable for the whole to be.
    """

    def __init__(self, run: Callable[[Sequence[Item]], list[Result]], batch_size: int) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected at least 1")
        self.run, self.batch_size = run, batch_size
        self._turns = threading.Condition()
        self._running, self._alone = 0, False

    def __call__(self, items: Sequence[Item]) -> list[Result]:
        """One result per item; raises ConfigError when memory does not suffice for one."""
        results: list[Result] = []
        while len(results) < len(items):
            part = items[len(results) : len(results) + self.batch_size]
            found = self._try(part)
            if found is None and len(part) == 1:  # perhaps because of other callers: once more without them
                found = self._try(part, alone=True)
            if found is None:
                self._halve(part)
                continue
            results += found
        return results

    def _try(self, part: Sequence[Item], *, alone: bool = False) -> list[Result] | None:
        """The results, or None when memory ran out; alone: while no other caller runs."""
        try:
            with self._turn(alone):
                return self.run(part)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    @contextmanager
    def _turn(self, alone: bool) -> Iterator[None]:
        with self._turns:
            self._turns.wait_for(lambda: not self._alone)
            self._alone = alone  # from now on nobody begins
            self._turns.wait_for(lambda: not (alone and self._running))
            self._running += 1
        try:
            yield
        finally:
            with self._turns:
                self._running -= 1
                self._alone = self._alone and not alone
                self._turns.notify_all()

    def __getstate__(self) -> dict[str, Any]:  # the callers of another process are its own
        return {"run": self.run, "batch_size": self.batch_size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _halve(self, part: Sequence[Item]) -> None:
        # Outside the except block: the exception, and with it the tensors of its frames, is gone by now.
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        tried = len(part)
        if tried == 1:
            raise ConfigError(
                f"memory runs out with a single image{_size(part[0])}; use a smaller size, precision bf16 or "
                "another device"
            )
        with self._turns:
            if self.batch_size <= tried // 2:  # another caller has halved it
                return
            self.batch_size = tried // 2
        warnings.warn(f"memory ran out with a batch of {tried}; continuing with {tried // 2}", VanNotice, stacklevel=4)


def _size(item: object) -> str:
    """` of 224 x 224`: of an array (C, H, W) or an image; "" for anything else."""
    shape: tuple[int, ...] = getattr(item, "shape", ())
    if len(shape) >= 2:
        return f" of {shape[-2]} x {shape[-1]}"
    return f" of {item.height} x {item.width}" if hasattr(item, "height") and hasattr(item, "width") else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch, numpy or Python means that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _PHRASES)
