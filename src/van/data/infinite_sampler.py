"""Training by iterations: an endless stream of shuffled passes over a data set, cut into periods."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler


class InfiniteSampler(Sampler[tuple[int, int]]):
    """(pass, index) of an endless stream of shuffled passes over a data set, a period at a time.

    length: images of the data set; period: images per period over all processes, which it divides evenly among them.
    `set_epoch` chooses the period; its images depend on neither workers nor interruptions.
    """

    def __init__(self, length: int, *, period: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.period, self.seed, self.rank, self.world_size = length, period, seed, rank, world_size
        self.epoch = 0

    def __len__(self) -> int:
        return self.period // self.world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first = self.epoch * self.period
        return self._from(first)

    def _from(self, first: int) -> Iterator[tuple[int, int]]:
        made, order = -1, np.empty(0, np.int64)
        for position in range(first + self.rank, first + self.period, self.world_size):
            number, place = divmod(position, self.length)
            if number != made:
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
                made, order = number, torch.randperm(self.length, generator=generator).numpy()
            yield number, int(order[place])

    def set_epoch(self, epoch: int) -> None:
        """Choose the period of the next iteration."""
        self.epoch = epoch


def spread(length: int, count: int | None) -> list[int]:
    """`count` indices spread evenly over `length`, or all of them."""
    if count is None or count >= length:
        return list(range(length))
    return np.linspace(0, length - 1, count).round().astype(int).tolist()
