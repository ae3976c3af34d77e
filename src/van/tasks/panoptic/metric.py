"""Panoptic quality as a metric that adds up exactly.

Shapes: H, W sides of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...data.objects import Panoptic
from ...errors import DataError
from ..base import Json, Metric
from .quality import VOID, PanopticCounts


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmented:
    """A segmentation of an image. segment_ids: (H, W) int32, i + 1 for segment i, 0 where nothing is known.

    labels, scores: of the segments. finite: whether the network's outputs were numbers.
    """

    segment_ids: np.ndarray
    labels: tuple[int, ...]
    scores: tuple[float, ...]
    finite: bool = True


class PanopticMetric(Metric[Segmented, Panoptic]):
    """Counts segments. classes, things: of the data; order: the index there of each of the model's classes."""

    def __init__(self, classes: Sequence[str], things: Sequence[bool], order: Sequence[int] | None = None) -> None:
        self.classes, self.things = tuple(classes), tuple(things)
        self.order = tuple(range(len(self.classes)) if order is None else order)
        self.counted = PanopticCounts.empty(len(self.classes))
        self.non_finite = 0

    def update(self, raw: Sequence[Segmented], targets: Sequence[Panoptic], names: Sequence[str]) -> None:
        for found, target, name in zip(raw, targets, names, strict=True):
            self._check(found, target, name)
            labels = [self.order[label] for label in found.labels]
            self.counted.update(target.segment_ids, target.segments, found.segment_ids, labels)
            self.non_finite += not found.finite

    def _check(self, found: Segmented, target: Panoptic, name: str) -> None:
        if target.segment_ids.shape != found.segment_ids.shape:
            height, width = found.segment_ids.shape
            shape = target.segment_ids.shape
            raise DataError(f"{name}: the image has {height} x {width} pixels, its map of segments {shape}")
        unknown = set(np.unique(target.segment_ids).tolist()) - {VOID} - {each.id for each in target.segments}
        if unknown:
            raise DataError(f"{name}: its map holds segment {min(unknown)}, which its list of segments lacks")

    def __add__(self, other: PanopticMetric) -> PanopticMetric:
        total = self.empty()
        total.counted = self.counted + other.counted
        total.non_finite = self.non_finite + other.non_finite
        return total

    def empty(self) -> PanopticMetric:
        return PanopticMetric(self.classes, self.things, self.order)

    def compute(self) -> dict[str, float]:
        return self.counted.scores(self.things)

    def table(self) -> list[dict[str, Json]]:
        rows = zip(self.classes, self.things, self.counted.of_classes(), strict=True)
        matched, counted = self.counted.matched, self.counted
        return [
            {"class": name, "thing": thing}
            | scores
            | {
                "matched": int(matched[i]),
                "wrong": int(counted.wrong[i]),
                "missed": int(counted.missed[i]),
            }
            for i, (name, thing, scores) in enumerate(rows)
        ]
