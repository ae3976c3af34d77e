"""Top-1, top-5, cross-entropy, confusion matrix, precision, recall and F1 of a classifier, overall and per class.

Scores are in percent. Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DataError


@dataclass(frozen=True)
class ClassScore:
    """How one class fared: number of images, top-1 and top-5 in percent, the wrong class it is most taken for.

    precision, recall, f1: in percent; recall is top-1, and precision 0 where the class was never predicted.
    """

    name: str
    count: int
    top1: float
    top5: float
    confused_with: str | None
    confused_count: int
    precision: float
    recall: float
    f1: float


class ClassificationMeter:
    """Collects logits and labels batch by batch; the figures are exact whatever the batches.

    classes: names in logit order. A logit that is not a number never counts as right; `non_finite` counts such images.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.non_finite = 0
        self._batches: list[tuple[np.ndarray, ...]] = []

    def update(self, logits: np.ndarray, labels: Sequence[int] | np.ndarray) -> None:
        """logits: (N, K); labels: N positions in `classes`; raises DataError when the shapes do not fit."""
        truth = np.asarray(labels, dtype=np.int64)
        if logits.shape != (len(truth), len(self.classes)):
            expected = (len(truth), len(self.classes))
            raise DataError(
                f"logits have shape {logits.shape}; expected {expected}: one row per image, one column per class"
            )
        finite = np.isfinite(logits).all(1)
        self.non_finite += int((~finite).sum())
        self._batches.append((truth, _argmax(logits), ranks(logits, truth), cross_entropy(logits, truth)))

    def __add__(self, other: ClassificationMeter) -> ClassificationMeter:
        """The meter of both parts, these images first."""
        total = ClassificationMeter(self.classes)
        total.non_finite, total._batches = self.non_finite + other.non_finite, self._batches + other._batches
        return total

    @property
    def count(self) -> int:
        """Images so far."""
        return sum(len(batch[0]) for batch in self._batches)

    @property
    def top1(self) -> float:
        """Percent of the images whose label has the largest logit."""
        return _percent(self._column(2) < 1)

    @property
    def top5(self) -> float:
        """Percent of the images whose label is among the five largest logits."""
        return _percent(self._column(2) < 5)

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        losses = self._column(3)
        return float(losses.mean()) if len(losses) else float("nan")

    def confusion(self) -> np.ndarray:
        """(K, K) counts; row: true class, column: predicted class."""
        return confusion_matrix(self._column(0), self._column(1), len(self.classes))

    def per_class(self) -> tuple[ClassScore, ...]:
        """Scores of every class that has images, in class order."""
        truth, predicted, rank = (self._column(i) for i in range(3))
        counts = np.bincount(truth, minlength=len(self.classes))
        hits = [np.bincount(truth[rank < k], minlength=len(self.classes)) for k in (1, 5)]
        confused = _most_confused(truth, predicted)
        precision, recall, f1 = self._by_class()
        return tuple(
            ClassScore(
                name=self.classes[i],
                count=int(counts[i]),
                top1=float(100 * hits[0][i] / counts[i]),
                top5=float(100 * hits[1][i] / counts[i]),
                confused_with=self.classes[confused[i][0]] if i in confused else None,
                confused_count=confused[i][1] if i in confused else 0,
                precision=float(precision[i]),
                recall=float(recall[i]),
                f1=float(f1[i]),
            )
            for i in np.flatnonzero(counts).tolist()
        )

    def macro(self) -> dict[str, float]:
        """macro_precision, macro_recall and macro_f1: means over the classes that have images or were predicted."""
        occur = np.unique(np.concatenate([self._column(0), self._column(1)]))
        names = ("macro_precision", "macro_recall", "macro_f1")
        means = [float(scores[occur].mean()) if len(occur) else float("nan") for scores in self._by_class()]
        return dict(zip(names, means, strict=True))

    def _by_class(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Precision, recall and F1 of every class in percent, (K,) each; 0 where nothing was found or asked for."""
        truth, predicted, size = self._column(0), self._column(1), len(self.classes)
        hits = np.bincount(truth[truth == predicted], minlength=size)
        labelled, predicted_as = (np.bincount(labels, minlength=size) for labels in (truth, predicted))
        precision, recall = (100 * hits / np.maximum(count, 1) for count in (predicted_as, labelled))
        return precision, recall, 200 * hits / np.maximum(predicted_as + labelled, 1)

    def _column(self, index: int) -> np.ndarray:
        dtype: Any = np.float64 if index == 3 else np.int64
        return np.concatenate([batch[index] for batch in self._batches] or [np.empty(0, dtype)])


class RealMeter:
    """Top-1 and top-5 when an image may have several right labels; images with none are not counted.

    Source: Beyer et al., "Are we done with ImageNet?", arXiv 2006.07159, section 3.
    """

    def __init__(self) -> None:
        self._ranks: list[int] = []

    def update(self, logits: np.ndarray, labels: Sequence[Collection[int]]) -> None:
        """logits: (N, K); labels: N collections of right classes."""
        for row, right in zip(logits, labels, strict=True):
            if right:
                choices = np.fromiter(right, np.int64, len(right))
                self._ranks.append(int(ranks(np.broadcast_to(row, (len(choices), len(row))), choices).min()))

    def __add__(self, other: RealMeter) -> RealMeter:
        """The meter of both parts."""
        total = RealMeter()
        total._ranks = self._ranks + other._ranks
        return total

    @property
    def count(self) -> int:
        """Images with at least one label."""
        return len(self._ranks)

    @property
    def top1(self) -> float:
        """Percent of the counted images whose largest logit is a right label."""
        return _percent(np.array(self._ranks) < 1)

    @property
    def top5(self) -> float:
        """Percent of the counted images with a right label among the five largest logits."""
        return _percent(np.array(self._ranks) < 5)


def ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before each label, (N,) int64: 0 is top-1; equal logits rank in class order.

    A row's NaN counts as coming before, so that a broken network cannot score.
    """
    of_label = np.take_along_axis(logits, labels[:, None], axis=1)  # (N, 1)
    before = ~(logits <= of_label)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    return (before | ((logits == of_label) & earlier)).sum(1)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[label] of every row in float64, (N,)."""
    x = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf: the loss is NaN, and `non_finite` counts why
        x -= x.max(1, keepdims=True)
    return np.log(np.exp(x).sum(1)) - np.take_along_axis(x, labels[:, None], axis=1)[:, 0]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, K) in float64, safe for logits of any size."""
    x = logits.astype(np.float64)
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """(K, K) int64 counts; row: true class, column: predicted class."""
    pairs = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def _argmax(logits: np.ndarray) -> np.ndarray:
    # NaN sorts as the largest in numpy; here it must lose.
    return np.where(np.isnan(logits), -np.inf, logits).argmax(1)


def _most_confused(truth: np.ndarray, predicted: np.ndarray) -> dict[int, tuple[int, int]]:
    """True class -> (wrong class it was taken for most often, how often); equal counts: the first in class order."""
    wrong = truth != predicted
    pairs, counts = np.unique(np.stack([truth[wrong], predicted[wrong]]), axis=1, return_counts=True)
    best: dict[int, tuple[int, int]] = {}
    for true, other, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
        if count > best.get(true, (0, 0))[1]:
            best[true] = (other, count)
    return best


def _percent(hits: np.ndarray) -> float:
    return float(100 * hits.mean()) if len(hits) else float("nan")
