"""torch data sets over ClassificationData, and the order in which training sees them.

The sampler hands out (epoch, index) pairs, so that every augmentation is seeded by both wherever it runs: the images
of an epoch do not depend on the number of workers, nor on where a run was interrupted.

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
    """Augmented images: `[(epoch, index)]` -> ((C, H, W), label)."""

    def __init__(self, data: ClassificationData, transform: Transform, *, seed: int) -> None:
        self.data, self.transform, self.seed = data, transform, seed

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        image, label = self.data.load(index)
        with seeded(self.seed, epoch, index):
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


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, index) of every image in an order drawn from (seed, epoch); `set_epoch` as DistributedSampler has it."""

    def __init__(self, length: int, *, seed: int, epoch: int = 0) -> None:
        self.length, self.seed, self.epoch = length, seed, epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        epoch = self.epoch
        return ((epoch, index) for index in torch.randperm(self.length, generator=generator).tolist())

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentations of the next iteration."""
        self.epoch = epoch
