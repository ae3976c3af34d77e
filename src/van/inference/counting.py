"""One pass over labelled images: read ahead, run, count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from ..errors import DataError
from ..tasks.base import Engine, Evaluator, Metric
from .batch_backoff import BatchBackoff
from .prefetch import in_order, reason_of


@dataclass(frozen=True, kw_only=True)
class Counter:
    """Counts images by an evaluator; can be pickled.

    batch_size: images at a time, halved when memory runs out; workers: threads that read images.
    """

    evaluator: Evaluator[Any, Any, Any]
    engine: Engine
    batch_size: int
    workers: int

    @property
    def batched(self) -> bool:
        """Whether several images go through the network together."""
        return self.evaluator.processor.batched

    @cached_property
    def run(self) -> BatchBackoff[Any, Any]:
        """From prepared images to raw results."""
        run = partial(self.evaluator.processor.run, self.engine)
        return BatchBackoff(run, self.batch_size if self.batched else 1)

    def count(self, indices: Sequence[int]) -> Iterator[tuple[int, Metric[Any, Any]]]:
        """(images, a metric of them), batch by batch and in order.

        Raises DataError for an image that cannot be read: none is ever left out.
        """
        data, evaluator = self.evaluator.data, self.evaluator
        for places, prepared, targets in self._batches(indices):
            names = [data.name(place) for place in places]
            try:
                raw = self.run(prepared)
            except DataError as error:  # of one image: where several run together, none of them is to blame alone
                raise _named(error, names[0] if len(names) == 1 else "") from error
            metric = evaluator.metric.empty()
            metric.update(raw, targets, names)
            for each in zip(places, prepared, raw, targets, strict=True):
                evaluator.done(*each)
            yield len(places), metric

    def _batches(self, indices: Sequence[int]) -> Iterator[tuple[list[int], list[Any], list[Any]]]:
        """Images that are read, in order, as many at a time as memory allows by now."""
        batch: list[tuple[int, Any, Any]] = []
        for place, found in in_order(self._read, indices, workers=self.workers, ahead=2 * self.run.batch_size):
            if isinstance(found, Exception):
                raise _named(found, self.evaluator.data.name(place)) from found
            batch.append((place, *found))
            if len(batch) >= self.run.batch_size:
                yield _columns(batch)
                batch = []
        if batch:
            yield _columns(batch)

    def _read(self, place: int) -> tuple[Any, Any]:
        image, target = self.evaluator.data.load(place)
        return self.evaluator.processor.prepare(image), target


def _columns(batch: Sequence[tuple[int, Any, Any]]) -> tuple[list[int], list[Any], list[Any]]:
    places, prepared, targets = (list(column) for column in zip(*batch, strict=True))
    return places, prepared, targets


def _named(error: Exception, name: str) -> DataError:
    reason = reason_of(error)
    return DataError(reason if name in reason else f"{name}: {reason}")
