"""Run any number of images through an engine, in smaller batches once memory runs out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from ..errors import ConfigError, VanNotice
from .torch_engine import Engine

# What allocators say, apart from their own exception types: CUDA libraries, torch's CPU allocator.
_PHRASES = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


class HalvingEngine:
    """Feeds `engine` at most `batch_size` images at a time, half as many whenever memory runs out.

    Every image is run exactly once successfully, in order. `batch_size` tells what fitted.
    """

    def __init__(self, engine: Engine, batch_size: int) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected at least 1")
        self.engine, self.batch_size = engine, batch_size

    def logits(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """N arrays (C, H, W) -> (N, K); raises ConfigError when memory does not suffice for one image."""
        parts: list[np.ndarray] = []
        done = 0
        while done < len(images):
            part = images[done : done + self.batch_size]
            result = self._try(part)
            if result is None:
                self._halve(len(part), images[0].shape)
                continue
            parts.append(result)
            done += len(part)
        return np.concatenate(parts)

    def _try(self, part: Sequence[np.ndarray]) -> np.ndarray | None:
        """Logits (N, K), or None when memory ran out."""
        try:
            return self.engine.run(np.stack(part))["logits"]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

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
        self.batch_size = tried // 2
        warnings.warn(
            f"memory ran out with a batch of {tried}; continuing with {self.batch_size}", VanNotice, stacklevel=4
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch, numpy or Python means that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _PHRASES)
