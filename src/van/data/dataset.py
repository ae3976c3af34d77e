"""torch data sets over ClassificationData, and the order in which training sees them.

The sampler hands out (epoch, index) pairs, so that every augmentation is seeded by both wherever it runs: the images
of an epoch do not depend on the number of workers, nor on where a run was interrupted. Repeated augmentation adds the
number of the copy to all copies but the first.

Shapes: C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ..preprocess import Preprocess
from .augment import Transform
from .classification import ClassificationData
from .seeding import seeded


class TrainingSet(Dataset[tuple[Tensor, int]]):
    """Augmented images: `[(epoch, index)]` or `[(epoch, index, copy)]` -> ((C, H, W), label)."""

    def __init__(self, data: ClassificationData, transform: Transform, *, seed: int) -> None:
        self.data, self.transform, self.seed = data, transform, seed

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, ...]) -> tuple[Tensor, int]:
        image, label = self.data.load(key[1])
        with seeded(self.seed, *key):
            return self.transform(image), label


class EvaluationSet(Dataset[tuple[Tensor, int]]):
    """Images as the Preprocess record makes them: `[index]` -> ((C, H, W), label)."""

    def __init__(self, data: ClassificationData, preprocess: Preprocess) -> None:
        self.data, self.preprocess = data, preprocess

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.data.load(index)
        return torch.from_numpy(self.preprocess(image)), label


class EpochSampler(Sampler[tuple[int, ...]]):
    """(epoch, index) of every image in an order drawn from (seed, epoch); `set_epoch` as DistributedSampler has it.

    repeats: so many copies of an image in a row, (epoch, index, copy) from the second on; the epoch keeps its length.
    """

    def __init__(self, length: int, *, seed: int, epoch: int = 0, repeats: int = 1) -> None:
        self.length, self.seed, self.epoch, self.repeats = length, seed, epoch, repeats

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return iter(self.order(self.epoch))

    def order(self, epoch: int) -> list[tuple[int, ...]]:
        """All keys of an epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        indices = torch.randperm(self.length, generator=generator).tolist()
        if self.repeats == 1:
            return [(epoch, index) for index in indices]
        copies = [(epoch, index, *((copy,) if copy else ())) for index in indices for copy in range(self.repeats)]
        return copies[: self.length]

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentations of the next iteration."""
        self.epoch = epoch
