"""torch data sets over images with targets, and the order in which training sees them.

The sampler hands out (epoch, index) pairs, so that every augmentation is seeded by both wherever it runs: the images
of an epoch do not depend on the number of workers, nor on where a run was interrupted. Repeated augmentation adds the
number of the copy to all copies but the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ..errors import DataError


class TrainingSet(Dataset[Any]):
    """Augmented examples: `[(epoch, index)]` or `[(epoch, index, copy)]` -> what `example` makes of image and target.

    data: has `load(index)` and `name(index)`. example: called with the image, its target and the key.
    Raises DataError, naming the image, where it cannot be read or used.
    """

    def __init__(self, data: Any, example: Callable[[Image.Image, Any, tuple[int, ...]], Any]) -> None:
        self.data, self.example = data, example

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, ...]) -> Any:
        image, target = self.data.load(key[1])
        try:
            return self.example(image, target, key)
        except DataError as error:
            raise DataError(f"{self.data.name(key[1])}: {error}") from error


class EvaluationSet(Dataset[Any]):
    """Examples without augmentation: `[index]` -> what `example` makes of image, target and the image's name."""

    def __init__(self, data: Any, example: Callable[[Image.Image, Any, str], Any]) -> None:
        self.data, self.example = data, example

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        image, target = self.data.load(index)
        return self.example(image, target, self.data.name(index))


class EpochSampler(Sampler[tuple[int, ...]]):
    """(epoch, index) of every image in an order drawn from (seed, epoch); `set_epoch` as DistributedSampler has it.

    repeats: so many copies of an image in a row; the epoch keeps its length.
    labels: of every image, for an epoch in which each class is drawn equally often; None: every image once.
    An image that comes again has the number of the copy in its key, (epoch, index, copy), from the second on.
    """

    def __init__(
        self, length: int, *, seed: int, epoch: int = 0, repeats: int = 1, labels: Sequence[int] | None = None
    ) -> None:
        self.length, self.seed, self.epoch, self.repeats = length, seed, epoch, repeats
        self.members = None if labels is None else _members(labels)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return iter(self.order(self.epoch))

    def order(self, epoch: int) -> list[tuple[int, ...]]:
        """All keys of an epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        if self.members is None:
            indices = torch.randperm(self.length, generator=generator).tolist()
        else:
            indices = self._balanced(self.members, generator)
        if self.repeats == 1 and self.members is None:
            return [(epoch, index) for index in indices]
        keys, seen = list[tuple[int, ...]](), Counter[int]()
        for index in islice((index for index in indices for _ in range(self.repeats)), self.length):
            keys.append((epoch, index, *((seen[index],) if seen[index] else ())))
            seen[index] += 1
        return keys

    def _balanced(self, members: list[Tensor], generator: torch.Generator) -> list[int]:
        """As many indices of every class as of the others, give or take one; a small class is gone through again."""
        share, rest = divmod(self.length, len(members))
        one_more = set(torch.randperm(len(members), generator=generator)[:rest].tolist())
        drawn = []
        for number, own in enumerate(members):
            count = share + (number in one_more)
            rounds = -(-count // len(own))
            passes = [own[torch.randperm(len(own), generator=generator)] for _ in range(rounds)]
            drawn.append(torch.cat([*passes, own[:0]])[:count])
        chosen = torch.cat(drawn)
        return chosen[torch.randperm(len(chosen), generator=generator)].tolist()

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentations of the next iteration."""
        self.epoch = epoch


class GroupedSampler(EpochSampler):
    """As EpochSampler, in chunks whose images are all of one group; what is left of the groups comes last, mixed.

    groups: number of every image's group. chunk: images of a batch over all processes.
    """

    def __init__(
        self, length: int, *, seed: int, groups: Sequence[int], chunk: int, labels: Sequence[int] | None = None
    ) -> None:
        super().__init__(length, seed=seed, labels=labels)
        self.groups, self.chunk = groups, chunk

    def order(self, epoch: int) -> list[tuple[int, ...]]:
        """All keys of an epoch."""
        waiting: dict[int, list[tuple[int, ...]]] = {}
        chunks: list[tuple[int, ...]] = []
        for key in super().order(epoch):
            group = waiting.setdefault(self.groups[key[1]], [])
            group.append(key)
            if len(group) == self.chunk:
                chunks += group
                group.clear()
        return chunks + [key for group in waiting.values() for key in group]


def _members(labels: Sequence[int]) -> list[Tensor]:
    """The indices of every class that has images."""
    every = torch.tensor(labels)
    return [(every == label).nonzero().flatten() for label in every.unique().tolist()]


class ProcessShare(Sampler[Any]):
    """Every `world_size`-th entry of a sampler that all processes have alike; all get equally many.

    What is over is left out. A global batch is so the one that a single process would see.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler, self.rank, self.world_size = sampler, 0, 1

    def __len__(self) -> int:
        whole: Sized = self.sampler
        return len(whole) // self.world_size

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.sampler), self.rank, len(self) * self.world_size, self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Passed on to the sampler."""
        self.sampler.set_epoch(epoch)
