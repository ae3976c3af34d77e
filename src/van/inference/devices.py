"""An evaluation on several devices: a process per device, a few images at a time, metrics that add up exactly.

Which device gets which images depends on their speed; as metrics are added in the images' order, the total does not.
"""

from __future__ import annotations

import multiprocessing
import pickle
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

import torch

from ..errors import ConfigError, VanError, VanNotice
from ..tasks.base import Metric
from .counting import Counter

Part = tuple[int, Metric[Any, Any]]  # images, and what was counted of them

_BATCHES = 4  # that a device gets at once: it reads the later ones while it runs the first


def count_on(counter: Counter, devices: Sequence[str]) -> Iterator[Part]:
    """`counter.count` of every image in order, in a process per device.

    Raises ConfigError for a network that cannot run there, VanError when a process dies; what counting raises comes
    out of the processes as it is.
    """
    for device in devices:
        counter.engine.on(device)  # raises before any process is started
    parts = _parts(counter.evaluator.indices, counter.batch_size * (_BATCHES if counter.batched else 1))
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.SimpleQueue()
    for device in devices:
        queue.put(device)
    threads = max(1, torch.get_num_threads() // len(devices))
    # pickled here: torch's own way through a process border shares memory, which the processes must not
    content = pickle.dumps(replace(counter, engine=counter.engine.on("cpu")))
    pool = ProcessPoolExecutor(len(devices), spawn, initializer=_begin, initargs=(content, queue, threads))
    warned: set[str] = set()
    try:
        for part, notices in pool.map(_count, parts):
            for text in sorted(notices - warned):
                warnings.warn(text, VanNotice, stacklevel=3)
            warned |= notices
            yield part
    except BrokenProcessPool as error:
        names = ", ".join(devices)
        raise VanError(
            f"a process on one of {names} died, perhaps for want of memory; use fewer devices or smaller images"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def listed(device: str) -> tuple[str, ...]:
    """`cuda:0,cuda:1` -> ("cuda:0", "cuda:1"); raises ConfigError for an empty name."""
    names = tuple(name.strip() for name in device.split(","))
    if not all(names):
        raise ConfigError(f"device is {device!r}; expected names with commas, as cuda:0,cuda:1")
    return names


def _parts(indices: Sequence[int], size: int) -> list[list[int]]:
    return [list(indices[start : start + size]) for start in range(0, len(indices), size)]


_own: Counter  # of this process


def _begin(content: bytes, queue: Any, threads: int) -> None:
    global _own
    device = queue.get()
    torch.set_num_threads(threads)
    counter: Counter = pickle.loads(content)
    _own = replace(counter, engine=counter.engine.on(device))


def _count(indices: list[int]) -> tuple[Part, set[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", VanNotice)
        total = _own.evaluator.metric.empty()
        for _, metric in _own.count(indices):
            total = total + metric
    return (len(indices), total), {str(each.message) for each in caught if issubclass(each.category, VanNotice)}
