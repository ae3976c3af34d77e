"""Reading a whole data set without stopping at the first broken file: one walk, whatever its layout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ...errors import ConfigError
from ...inference.prefetch import default_workers, in_order
from .report import Report
from .split_statistics import SplitStatistics

Observation = TypeVar("Observation")


class SplitReader(ABC, Generic[Observation]):
    """One split of a data set that is to be read. statistics: what is known of it, at first from its folders alone."""

    statistics: SplitStatistics[Observation]

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def read(self, index: int) -> Observation:
        """What is in one image, and what is wrong with it; called in reading threads, raises nothing for its file."""


class OpenedData(ABC):
    """A data set whose splits can be read. readers: by split."""

    readers: Mapping[str, SplitReader[Any]]

    @abstractmethod
    def report(self) -> Report[Any]:
        """What the statistics of the splits say."""


def walk(
    data: OpenedData, *, limit: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Report[Any]:
    """Read every image of every split, or `limit` of each, spread evenly over it.

    progress: called with (images done, images in all). Raises ConfigError for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}; expected at least one image per split")
    chosen = {split: _spread(len(reader), limit) for split, reader in data.readers.items()}
    total, done, workers = sum(map(len, chosen.values())), 0, default_workers()
    for split, indices in chosen.items():
        reader = data.readers[split]
        for _, observation in in_order(reader.read, indices, workers=workers, ahead=8 * workers):
            if isinstance(observation, Exception):
                raise observation
            reader.statistics.seen += 1
            reader.statistics.add(observation)
            done += 1
            if progress is not None:
                progress(done, total)
    return data.report()


def _spread(length: int, limit: int | None) -> Sequence[int]:
    if limit is None or limit >= length:
        return range(length)
    return sorted({int(position) for position in np.linspace(0, length - 1, limit).round()})
