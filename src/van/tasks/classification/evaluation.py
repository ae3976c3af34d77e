"""What an evaluation of a classifier finds, and how it begins."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

import numpy as np

from ...data.labelled_images import ClassificationData
from ...errors import DataError, VanError, VanNotice
from ...images.preprocess import Preprocess
from .. import base
from ..base import Column, DataSet, Json, Pass, Subject, Table
from .class_plan import ClassPlan, plan_classes
from .meter import ClassScore
from .metric import ClassificationMetric
from .options import EvalOptions
from .processor import ClassificationProcessor, processor_of
from .real_labels import RealLabels

MAX_CONFUSION_CLASSES = 5000  # beyond, the matrix alone would take hundreds of megabytes
_SCORES = (
    *("top1", "top5", "loss", "count", "original_top1", "original_top5", "original_count"),
    *("macro_precision", "macro_recall", "macro_f1", "images_per_second"),
)
_ROW = (
    *("engine", "top1", "top5", "loss", "count", "original_top1", "original_top5", "original_count"),
    "images_per_second",
)


@dataclass(frozen=True, kw_only=True)
class Evaluation(base.Evaluation):
    """What came out; iterating yields (name, value) of every figure.

    top1, top5: percent; loss: mean cross-entropy in nats; count: images; macro_precision, macro_recall, macro_f1: means
    over the classes that have images or were predicted, in percent; batch_size: what fitted into memory.
    With real labels top1, top5 and count are theirs, and original_* those of the data set's own labels, to which loss,
    per_class, macro_* and confusion always refer.
    classes: names of the evaluated classes; confusion: (K, K) counts, row true and column predicted, None beyond
    5000 classes. non_finite: images whose logits were not all numbers.
    """

    monitored: ClassVar[str] = "top1"
    perfect: ClassVar[float] = 100.0

    checkpoint: str
    engine: str
    data: str
    split: str
    top1: float
    top5: float
    loss: float
    count: int
    original_top1: float | None
    original_top5: float | None
    original_count: int | None
    macro_precision: float
    macro_recall: float
    macro_f1: float
    non_finite: int
    seconds: float
    batch_size: int
    preprocess: Preprocess
    classes: tuple[str, ...]
    per_class: tuple[ClassScore, ...]
    confusion: np.ndarray | None
    optimized: bool = False

    @property
    def images_per_second(self) -> float:
        """Reading, preprocessing and network together."""
        return (self.original_count or self.count) / self.seconds

    def scores(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in _SCORES if getattr(self, name) is not None}

    def to_dict(self) -> dict[str, Json]:
        """Everything, ready for JSON; a figure that is no number becomes None."""
        values = {each.name: getattr(self, each.name) for each in fields(self)} | dict(self)
        values |= {name: None for name, value in values.items() if isinstance(value, float) and math.isnan(value)}
        values["preprocess"] = self.preprocess.to_dict()
        values["classes"] = list(self.classes)
        values["per_class"] = [asdict(score) for score in self.per_class]
        values["confusion"] = None if self.confusion is None else self.confusion.tolist()
        return values

    def row(self) -> dict[str, str | int | float | None]:
        return {name: getattr(self, name) for name in _ROW}

    def columns(self) -> dict[str, str]:
        own = {}
        if self.original_top1 is not None:
            own = {"own top-1 %": f"{self.original_top1:.2f}", "own top-5 %": f"{self.original_top5:.2f}"}
        found = {name: f"{value:.2f}" for name, value in self.headline().items()}
        found |= {"loss": f"{self.loss:.4f}", "images": str(self.count), **own}
        return {**found, "images/s": f"{self.images_per_second:.1f}"}

    def headline(self) -> dict[str, float]:
        return {"top-1 %": self.top1, "top-5 %": self.top5}

    def tables(self, *, per_class: bool | None) -> list[Table]:
        if not per_class:
            return []
        words = ("images", "top-1 %", "top-5 %", "precision %", "recall %", "F1 %")
        columns = [Column("class"), *(Column(word, right=True) for word in words), Column("most confused with")]
        return [Table(columns, [_cells(score) for score in self.per_class], title=self.checkpoint)]

    def picture(self) -> bytes:
        from ...images.confusion_picture import confusion_picture

        if self.confusion is None:
            raise VanError(f"{len(self.classes)} classes are too many for a confusion matrix; take a subset")
        name = self.checkpoint
        title = f"{name if len(name) <= 60 else '…' + name[-59:]}\n"
        title += f"{self.data}, {self.split}, {self.count} images: "
        return confusion_picture(self.confusion, self.classes, f"{title}top-1 {self.top1:.2f}%")


def _cells(score: ClassScore) -> list[str]:
    confused = f"{score.confused_with} ({score.confused_count})" if score.confused_with is not None else ""
    figures = (score.top1, score.top5, score.precision, score.recall, score.f1)
    return [score.name, str(score.count), *(f"{figure:.2f}" for figure in figures), confused]


class ClassificationEvaluator(base.Evaluator[np.ndarray, np.ndarray, int]):
    """Counts the images of the evaluated classes."""

    metric: ClassificationMetric
    processor: ClassificationProcessor

    def __init__(
        self, data: DataSet[int], processor: ClassificationProcessor, plan: ClassPlan, real: RealLabels | None
    ) -> None:
        self.data, self.processor = data, processor
        self.metric = ClassificationMetric(plan, real)
        self.indices = [i for i, label in enumerate(_labels(data)) if plan.targets[label] is not None]
        if not self.indices:
            raise DataError("there is no image to evaluate: the split or the subset of labels is empty")

    def evaluation(self, metric: base.Metric[np.ndarray, int], run: Pass) -> Evaluation:
        assert isinstance(metric, ClassificationMetric)  # its own
        meter, real = metric.meter, metric.real_meter
        if meter.non_finite:
            warnings.warn(
                f"{meter.non_finite} of {meter.count} images gave logits that are not finite; a NaN never "
                "counts as right (try precision fp32)",
                VanNotice,
                stacklevel=4,
            )
        own = (meter.top1, meter.top5, meter.count)
        top1, top5, count = (real.top1, real.top5, real.count) if metric.real is not None else own
        original = own if metric.real is not None else (None, None, None)
        return Evaluation(
            checkpoint=run.checkpoint,
            engine=run.runtime,
            optimized=run.optimized,
            data=run.data,
            split=run.split,
            top1=top1,
            top5=top5,
            loss=meter.loss,
            count=count,
            original_top1=original[0],
            original_top5=original[1],
            original_count=original[2],
            **meter.macro(),
            non_finite=meter.non_finite,
            seconds=run.seconds,
            batch_size=run.batch_size,
            preprocess=self.processor.preprocess,
            classes=metric.plan.classes,
            per_class=meter.per_class(),
            confusion=meter.confusion() if len(metric.plan.classes) <= MAX_CONFUSION_CLASSES else None,
        )


def evaluator_of(subject: Subject, data: ClassificationData, options: EvalOptions) -> ClassificationEvaluator:
    """An evaluation of a classifier on a data set; raises DataError where its classes do not fit."""
    processor = processor_of(subject, options)
    plan = plan_classes(
        data.classes,
        subject.num_classes,
        subject.metadata.classes,
        subset=options.classes_subset,
        class_map=options.class_map,
    )
    real = RealLabels(options.real_labels, plan.targets, plan.columns) if options.real_labels else None
    return ClassificationEvaluator(data, processor, plan, real)


def _labels(data: DataSet[int]) -> Sequence[int]:
    """The label of every image, without decoding any."""
    assert isinstance(data, ClassificationData)
    return data.labels
