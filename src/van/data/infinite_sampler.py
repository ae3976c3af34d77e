"""Training by iterations: an endless shuffled stream of a segmentation data set, cut into periods; and its test set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from .labelled_pixels import SegmentationData


class InfiniteSampler(Sampler[tuple[int, int]]):
    """(pass, index) of an endless stream of shuffled passes over a data set, a period at a time.

    length: images of the data set; period: images per period over all ranks, which it divides evenly among them.
    `set_epoch` chooses the period; its images depend on neither workers nor interruptions.
    """

    def __init__(self, length: int, *, period: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self.length, self.period, self.seed, self.rank, self.ranks = length, period, seed, rank, ranks
        self.epoch = 0

    def __len__(self) -> int:
        return self.period // self.ranks

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first = self.epoch * self.period
        return self._from(first)

    def _from(self, first: int) -> Iterator[tuple[int, int]]:
        made, order = -1, np.empty(0, np.int64)
        for position in range(first + self.rank, first + self.period, self.ranks):
            number, place = divmod(position, self.length)
            if number != made:
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
                made, order = number, torch.randperm(self.length, generator=generator).numpy()
            yield number, int(order[place])

    def set_epoch(self, epoch: int) -> None:
        """Choose the period of the next iteration."""
        self.epoch = epoch


class PictureSet(Dataset[tuple[int, torch.Tensor, torch.Tensor]]):
    """Pictures as they are, for tests: `[i]` -> (index, (H, W, 3) uint8, (H, W) int32 label map).

    indices: the part of the data set that is used.
    """

    def __init__(self, data: SegmentationData, indices: list[int]) -> None:
        self.data, self.indices = data, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> tuple[int, torch.Tensor, torch.Tensor]:
        index = self.indices[place]
        image, labels = self.data.load(index)
        return index, torch.from_numpy(np.array(image)), torch.from_numpy(labels.astype(np.int32))


def spread(length: int, count: int | None) -> list[int]:
    """`count` indices spread evenly over `length`, or all of them."""
    if count is None or count >= length:
        return list(range(length))
    return np.linspace(0, length - 1, count).round().astype(int).tolist()
