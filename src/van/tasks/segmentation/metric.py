"""Scores of a segmenter: one confusion matrix, and one more for every draw of its bases.

Shapes: H height, W width.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from ...errors import DataError
from ..base import Json, Metric
from .confusion_matrix import ConfusionMatrix


class SegmentationMetric(Metric[list[np.ndarray], np.ndarray]):
    """Counts label maps (H, W) against labels (H, W).

    seeds: draws of the bases besides the network's own. matrices: the network's own first.
    """

    def __init__(self, classes: Sequence[str], *, ignore_index: int | None, seeds: int = 0) -> None:
        self.classes, self.ignore_index, self.seeds = tuple(classes), ignore_index, seeds
        self.matrices = [ConfusionMatrix(len(self.classes), ignore_index=ignore_index) for _ in range(1 + seeds)]

    @property
    def matrix(self) -> ConfusionMatrix:
        """Of the network with its own bases."""
        return self.matrices[0]

    def update(self, raw: Sequence[list[np.ndarray]], targets: Sequence[np.ndarray], names: Sequence[str]) -> None:
        for masks, label, name in zip(raw, targets, names, strict=True):
            if label.shape != masks[0].shape:
                height, width = masks[0].shape
                raise DataError(f"{name}: picture {height} x {width}, label map {label.shape}")
            for matrix, mask in zip(self.matrices, masks, strict=True):
                matrix.update(mask, label, name=name)

    def __add__(self, other: SegmentationMetric) -> SegmentationMetric:
        total = self.empty()
        total.matrices = [a + b for a, b in zip(self.matrices, other.matrices, strict=True)]
        return total

    def empty(self) -> SegmentationMetric:
        return SegmentationMetric(self.classes, ignore_index=self.ignore_index, seeds=self.seeds)

    def compute(self) -> dict[str, float]:
        return self.matrix.scores(self.classes)

    def table(self) -> list[dict[str, Json]]:
        return self.matrix.table(self.classes)

    def spread(self) -> dict[str, float] | None:
        """Scores of each draw, their means and sample standard deviations; None without draws."""
        return spread(self.matrices[1:]) if self.seeds else None


def spread(matrices: Sequence[ConfusionMatrix]) -> dict[str, float]:
    """Scores of each draw, their means and sample standard deviations: aAcc.seed0, …, aAcc, aAcc.std and so on."""
    runs = [matrix.summary() for matrix in matrices]
    scores = {f"{name}.seed{seed}": value for seed, run in enumerate(runs) for name, value in run.items()}
    for name in runs[0]:
        values = [run[name] for run in runs]
        scores |= {name: statistics.fmean(values), f"{name}.std": statistics.stdev(values)}
    return scores
