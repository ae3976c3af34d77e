"""Scores of a classifier on a data set whose labels meet the logits by a plan.

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from ..base import Json, Metric
from .class_plan import ClassPlan
from .meter import ClassificationMeter, RealMeter
from .real_labels import RealLabels


class ClassificationMetric(Metric[np.ndarray, int]):
    """Counts logits (K,) against the labels of a data set.

    plan: which logits count, and which of them each label is. real: further right labels by the images' names.
    """

    def __init__(self, plan: ClassPlan, real: RealLabels | None = None) -> None:
        self.plan, self.real = plan, real
        self.meter, self.real_meter = ClassificationMeter(plan.classes), RealMeter()

    def update(self, raw: Sequence[np.ndarray], targets: Sequence[int], names: Sequence[str]) -> None:
        logits = self.plan.select(np.stack(raw))
        self.meter.update(logits, [self.plan.position(label) for label in targets])
        if self.real is not None:
            self.real_meter.update(logits, [self.real.of(name) for name in names])

    def __add__(self, other: ClassificationMetric) -> ClassificationMetric:
        total = self.empty()
        total.meter, total.real_meter = self.meter + other.meter, self.real_meter + other.real_meter
        return total

    def empty(self) -> ClassificationMetric:
        return ClassificationMetric(self.plan, self.real)

    def compute(self) -> dict[str, float]:
        counted = self.real_meter if self.real is not None else self.meter
        scores = {"top1": counted.top1, "top5": counted.top5, "loss": self.meter.loss, "count": float(counted.count)}
        return scores | self.meter.macro()

    def table(self) -> list[dict[str, Json]]:
        return [asdict(score) for score in self.meter.per_class()]
