"""Run any number of images through an engine, in smaller batches once memory runs out."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError, VanNotice
from .engines.torch_engine import Engine

# What allocators say, apart from their own exception types: CUDA libraries, torch's CPU allocator.
_PHRASES = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


class HalvingEngine:
    """Feeds `engine` at most `batch_size` images at a time, half as many whenever memory runs out.

    Every image is run exactly once successfully, in order. `batch_size` tells what fitted. Several threads may call it.
    """

    def __init__(self, engine: Engine, batch_size: int) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected at least 1")
        self.engine, self.batch_size = engine, batch_size
        self._turns = threading.Condition()
        self._running, self._alone = 0, False

    def logits(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """N arrays (C, H, W) -> (N, K); raises ConfigError when memory does not suffice for one image."""
        parts: list[np.ndarray] = []
        done = 0
        while done < len(images):
            part = images[done : done + self.batch_size]
            result = self._try(part)
            if result is None and len(part) == 1:  # perhaps because of other callers: once more without them
                result = self._try(part, alone=True)
            if result is None:
                self._halve(len(part), images[0].shape)
                continue
            parts.append(result)
            done += len(part)
        return np.concatenate(parts)

    def _try(self, part: Sequence[np.ndarray], *, alone: bool = False) -> np.ndarray | None:
        """Logits (N, K), or None when memory ran out; alone: while no other caller runs."""
        try:
            with self._turn(alone):
                return self.engine.run(np.stack(part))["logits"]
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
        return {"engine": self.engine, "batch_size": self.batch_size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _halve(self, tried: int, shape: tuple[int, ...]) -> None:
        # Outside the except block: the exception, and with it the tensors of its frames, is gone by now.
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        if tried == 1:
            height, width = shape[1:]
            raise ConfigError(
                f"memory runs out with a single image of {height} x {width}; use a smaller size, precision bf16 or "
                "another device"
            )
        with self._turns:
            if self.batch_size <= tried // 2:  # another caller has halved it
                return
            self.batch_size = tried // 2
        warnings.warn(f"memory ran out with a batch of {tried}; continuing with {tried // 2}", VanNotice, stacklevel=4)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch, numpy or Python means that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _PHRASES)
