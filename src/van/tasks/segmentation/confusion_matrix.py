"""Scores of a segmentation from one integer confusion matrix: aAcc, mIoU, mAcc, mDice, mFscore, and all per class.

Definitions and key names are those of the MMSegmentation project: ignored pixels are dropped, from the prediction
too; a class without a pixel in label or prediction has no IoU and no Dice (nan) and is left out of the mean, as is the
accuracy (the recall) of a class that no label has and the precision of one that is never predicted. F-score is the
harmonic mean of precision and recall, so a class that lacks either has none, where its Dice is 0.

Shapes: H height, W width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import ConfigError, DataError

CHUNK_PIXELS = 2**22  # counted at once: bounds the 8-byte indices of a large picture


class ConfusionMatrix:
    """Pixels counted by (label, prediction); matrices of parts of a data set add up exactly.

    counts: int64 (K, K), rows are labels, columns predictions.
    ignore_index: label value of pixels that count nowhere; None: every pixel counts.
    """

    def __init__(self, num_classes: int, *, ignore_index: int | None = 255) -> None:
        if num_classes < 1:
            raise ConfigError(f"num_classes is {num_classes}; a confusion matrix needs at least 1")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def update(self, prediction: np.ndarray, label: np.ndarray, *, name: str = "the label map") -> None:
        """Count one image: prediction and label (H, W), whole numbers.

        Raises DataError, naming `name`, when the sizes differ or a value is neither a class nor the ignored one.
        """
        if prediction.shape != label.shape:
            raise DataError(f"{name} has shape {label.shape}, its prediction {prediction.shape}; expected the same")
        flat_prediction, flat_label = prediction.reshape(-1), label.reshape(-1)
        for start in range(0, flat_label.size, CHUNK_PIXELS):
            chunk = slice(start, start + CHUNK_PIXELS)
            self._count(flat_prediction[chunk].astype(np.int64), flat_label[chunk].astype(np.int64), name)

    def _count(self, prediction: np.ndarray, label: np.ndarray, name: str) -> None:
        if self.ignore_index is not None:
            counted = label != self.ignore_index
            prediction, label = prediction[counted], label[counted]
        self._check(label, name)
        self._check(prediction, f"the prediction for {name}")
        cells = np.bincount(label * self.num_classes + prediction, minlength=self.num_classes**2)
        self.counts += cells.reshape(self.counts.shape)

    def _check(self, values: np.ndarray, name: str) -> None:
        wrong = values[(values < 0) | (values >= self.num_classes)]
        if wrong.size:
            found, pixels = np.unique(wrong, return_counts=True)
            worst = ", ".join(f"{value} ({n} pixels)" for value, n in zip(found[:5], pixels[:5], strict=True))
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            ignored = "" if self.ignore_index is None else f" or {self.ignore_index} (ignored)"
            raise DataError(f"{name} holds {worst}{more}; expected classes 0 to {self.num_classes - 1}{ignored}")

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """The matrix of both parts together; raises ConfigError when they count different classes."""
        if (self.num_classes, self.ignore_index) != (other.num_classes, other.ignore_index):
            raise ConfigError(
                f"cannot add a matrix of {other.num_classes} classes (ignoring {other.ignore_index})"
                f" to one of {self.num_classes} (ignoring {self.ignore_index})"
            )
        total = ConfusionMatrix(self.num_classes, ignore_index=self.ignore_index)
        total.counts = self.counts + other.counts
        return total

    @property
    def pixels(self) -> int:
        """Pixels counted."""
        return int(self.counts.sum())

    @property
    def overall_accuracy(self) -> float:
        """aAcc: the share of counted pixels whose class is right; nan when none was counted."""
        return float(_ratio(np.trace(self.counts), self.counts.sum()))

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union per class, (K,) float64; nan where neither label nor prediction has the class."""
        hit = np.diagonal(self.counts)
        return _ratio(hit, self.counts.sum(0) + self.counts.sum(1) - hit)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of each class's label pixels that were found, (K,) float64; nan where no label has the class."""
        return _ratio(np.diagonal(self.counts), self.counts.sum(1))

    @property
    def dice(self) -> np.ndarray:
        """Twice the intersection over both areas per class, (K,) float64; nan where neither has the class."""
        return _ratio(2 * np.diagonal(self.counts), self.counts.sum(0) + self.counts.sum(1))

    @property
    def precision(self) -> np.ndarray:
        """Share of each class's predicted pixels that are right, (K,) float64; nan where it is never predicted."""
        return _ratio(np.diagonal(self.counts), self.counts.sum(0))

    @property
    def fscore(self) -> np.ndarray:
        """Harmonic mean of precision and recall per class, (K,) float64; nan where either is nan, or both are 0."""
        precision, recall = self.precision, self.accuracy
        return _ratio(2 * precision * recall, precision + recall)

    def summary(self) -> dict[str, float]:
        """aAcc, mIoU and mAcc in [0, 1]; nan when nothing was counted."""
        return {"aAcc": self.overall_accuracy, "mIoU": _mean(self.iou), "mAcc": _mean(self.accuracy)}

    def means(self) -> dict[str, float]:
        """`summary` and mDice and mFscore."""
        return self.summary() | {"mDice": _mean(self.dice), "mFscore": _mean(self.fscore)}

    def scores(self, classes: Sequence[str] | None = None) -> dict[str, float]:
        """`summary`, `IoU.<class>` and `Acc.<class>` for every class; then mDice, mFscore, mPrecision, mRecall.

        These four for every class too, all under MMSegmentation's key names; `Recall` is `Acc` again.
        """
        rows = self.table(classes)
        names = [row["class"] for row in rows]
        per_class = {f"{key}.{row['class']}": row[key] for key in ("IoU", "Acc") for row in rows}
        more = {"Dice": self.dice, "Fscore": self.fscore, "Precision": self.precision, "Recall": self.accuracy}
        added = {
            f"{key}.{name}": float(v) for key, values in more.items() for name, v in zip(names, values, strict=True)
        }
        parts = {"mPrecision": _mean(self.precision), "mRecall": _mean(self.accuracy)}
        return self.summary() | per_class | self.means() | parts | added

    def table(self, classes: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """One row per class: class, IoU, Acc, and the pixels of it in the labels and in the predictions."""
        names = [str(i) for i in range(self.num_classes)] if classes is None else list(classes)
        if len(names) != self.num_classes:
            raise ConfigError(f"{len(names)} class names for a matrix of {self.num_classes} classes")
        columns = zip(names, self.iou, self.accuracy, self.counts.sum(1), self.counts.sum(0), strict=True)
        return [
            {"class": name, "IoU": float(iou), "Acc": float(acc), "label_pixels": int(n), "predicted_pixels": int(m)}
            for name, iou, acc, n, m in columns
        ]

    def to_dict(self, classes: Sequence[str] | None = None) -> dict[str, Any]:
        """JSON-ready: the scores (nan becomes None), the classes, the ignored value and the whole matrix."""
        scores = {key: None if math.isnan(value) else value for key, value in self.scores(classes).items()}
        names = [row["class"] for row in self.table(classes)]
        matrix = {"classes": names, "ignore_index": self.ignore_index, "confusion_matrix": self.counts.tolist()}
        return scores | matrix


def _ratio(part: Any, whole: Any) -> Any:
    """part / whole in float64, nan for 0 / 0, without numpy's warning."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full_like(whole, math.nan), where=whole != 0)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan
