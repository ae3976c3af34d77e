"""Segmenters on several devices: a process per device, one picture at a time, matrices that add up exactly.

Which device gets which picture depends on their speed; as the counts are whole numbers, the total does not.
"""

from __future__ import annotations

import multiprocessing
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import VanError, VanNotice
from ..tasks.segmentation.confusion_matrix import ConfusionMatrix
from ..tasks.segmentation.views import confusion, seed_matrices
from .segmenter_session import OpenedSegmenter


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What one device needs to count pictures.

    seeds: draws of a Hamburger's bases to count besides the network's own.
    on_mask: called with (index, picture, prediction, label) where the picture was done; with several devices it must
    be picklable.
    """

    opened: OpenedSegmenter
    data: Any
    seeds: int = 0
    on_mask: Callable[..., None] | None = None

    def matrices(self, index: int) -> list[ConfusionMatrix]:
        """Of one picture: with the network's own bases, then of every seed."""
        opened = self.opened
        one: dict[str, Any] = {"inference": opened.inference, "indices": (index,)}
        with opened.autocast():
            own = confusion(opened.model, self.data, on_mask=self.on_mask, **one)
            return [own, *seed_matrices(opened.model, self.data, seeds=self.seeds, **one)]


def count(shard: Shard, devices: Sequence[torch.device] = ()) -> Iterator[list[ConfusionMatrix]]:
    """`shard.matrices` of every picture in order: here, or in a process per device when devices are given.

    Raises VanError when a process dies; what `confusion` raises comes out of the processes as it is.
    """
    if not devices:
        yield from map(shard.matrices, range(len(shard.data)))
        return
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.SimpleQueue()
    for device in devices:
        queue.put(str(device))
    threads = max(1, torch.get_num_threads() // len(devices))
    # pickled here: torch's own way through a process border shares memory, which the processes must not
    content = pickle.dumps(replace(shard, opened=replace(shard.opened, model=shard.opened.model.to("cpu"))))
    pool = ProcessPoolExecutor(len(devices), spawn, initializer=_begin, initargs=(content, queue, threads))
    told: set[str] = set()
    try:
        for matrices, notices in pool.map(_matrices, range(len(shard.data))):
            for text in sorted(notices - told):
                warnings.warn(text, VanNotice, stacklevel=3)
            told |= notices
            yield matrices
    except BrokenProcessPool as error:
        names = ", ".join(map(str, devices))
        raise VanError(
            f"a process on one of {names} died, perhaps for want of memory; use fewer devices or smaller windows"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_own: Shard  # of this process


def _begin(content: bytes, queue: Any, threads: int) -> None:
    global _own
    device = torch.device(queue.get())
    torch.set_num_threads(threads)
    shard: Shard = pickle.loads(content)
    model = shard.opened.model.to(device)
    _own = replace(shard, opened=replace(shard.opened, model=model, device=device))


def _matrices(index: int) -> tuple[list[ConfusionMatrix], set[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", VanNotice)
        matrices = _own.matrices(index)
    return matrices, {str(each.message) for each in caught if issubclass(each.category, VanNotice)}
