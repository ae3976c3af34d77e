"""What an evaluation of a segmenter finds, and how it begins."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from ...data.labelled_pixels import SegmentationData
from ...errors import DataError, VanNotice
from ...images.label_maps import Palette
from .. import base
from ..base import Column, DataSet, Json, Pass, Subject, Table
from ..class_names import first_difference, places
from .confusion_matrix import ConfusionMatrix
from .inference import Inference
from .mask_files import writer_of
from .metric import SegmentationMetric
from .options import EvalOptions, OnMask
from .processor import Masks, SegmentationProcessor, processor_of

_FIGURES = ("aAcc", "mIoU", "mAcc")
_FEW_CLASSES = 30  # so many are shown without being asked for


@dataclass(frozen=True, kw_only=True)
class MaskEvaluation(base.Evaluation):
    """What came out; `dict(evaluation)` has aAcc, mIoU, mAcc, IoU.<class> and Acc.<class>, in [0, 1].

    matrix: pixels by label (row) and prediction (column). count: pictures.
    seeds: with several draws of the NMF bases, `mIoU.seed0` …, their mean `mIoU` and spread `mIoU.std`, and so on.
    """

    monitored: ClassVar[str] = "mIoU"

    checkpoint: str
    data: str
    split: str
    matrix: ConfusionMatrix
    classes: tuple[str, ...]
    palette: Palette
    count: int
    seconds: float
    inference: Inference
    seeds: Mapping[str, float] | None = None
    optimized: bool = False

    @property
    def images_per_second(self) -> float:
        """Reading, network and counting together, every draw of the bases included."""
        return self.count / self.seconds

    def keys(self) -> list[str]:
        """Names of the scores."""
        return list(self.scores())

    def scores(self) -> dict[str, float]:
        return self.matrix.scores(self.classes)

    def to_dict(self) -> dict[str, Json]:
        """Everything, ready for JSON, the scores under MMSegmentation's key names."""
        facts = {name: getattr(self, name) for name in ("checkpoint", "optimized", "data", "split", "count")}
        how = {"inference": asdict(self.inference), "seeds": None if self.seeds is None else dict(self.seeds)}
        speed = {"seconds": self.seconds, "images_per_second": self.images_per_second}
        return {**facts, **self.matrix.to_dict(self.classes), **how, **speed}

    def row(self) -> dict[str, str | int | float | None]:
        values = self.matrix.to_dict(self.classes)
        return {name: values.get(name) for name in self.keys()}

    def columns(self) -> dict[str, str]:
        figures = {f"{name} %": _percent(self[name]) for name in _FIGURES}
        return {**figures, "images": str(self.count), "images/s": f"{self.images_per_second:.1f}"}

    def headline(self) -> dict[str, float]:
        return {f"{name} %": 100 * self[name] for name in _FIGURES}

    def notes(self) -> list[str]:
        if self.seeds is None:
            return []
        spread = [f"{name} {self.seeds[name]:.2%} ± {self.seeds[f'{name}.std']:.2%}" for name in _FIGURES]
        count = sum(name.startswith("mIoU.seed") for name in self.seeds)
        return [f"over {count} draws of the bases: {', '.join(spread)} (mean ± standard deviation)"]

    def tables(self, *, per_class: bool | None) -> list[Table]:
        if per_class is False or (per_class is None and len(self.classes) > _FEW_CLASSES):
            return []
        words = ("IoU %", "Acc %", "label pixels", "predicted pixels")
        rows = [
            [row["class"], _percent(row["IoU"]), _percent(row["Acc"]), str(row["label_pixels"]), str(row[_PREDICTED])]
            for row in self.matrix.table(self.classes)
        ]
        columns = [Column("class"), *(Column(word, right=True) for word in words)]
        return [Table(columns, rows, title=self.checkpoint)]

    def picture(self) -> bytes:
        from ...images.confusion_picture import confusion_picture

        title = f"{Path(self.checkpoint).name} on {self.data}, {self.split}, {self.count} images: "
        return confusion_picture(self.matrix.counts, self.classes, f"{title}mIoU {self['mIoU']:.2%}")


_PREDICTED = "predicted_pixels"


def _percent(value: float) -> str:
    return "—" if value != value else f"{100 * value:.2f}"


class SegmentationEvaluator(base.Evaluator[Image.Image, Masks, np.ndarray]):
    """Counts the pixels of every picture, and hands its label map to who writes it."""

    data: SegmentationData
    metric: SegmentationMetric
    processor: SegmentationProcessor

    def __init__(
        self, data: SegmentationData, processor: SegmentationProcessor, *, on_mask: OnMask | None = None
    ) -> None:
        self.data, self.processor, self.on_mask = data, processor, on_mask
        self.metric = SegmentationMetric(data.classes, ignore_index=data.ignore_index, seeds=processor.seeds)
        self.indices = range(len(data))
        if not self.indices:
            raise DataError(f"the {data.split!r} part of the data has no pictures to evaluate on")

    def done(self, index: int, prepared: Image.Image, raw: Masks, target: np.ndarray) -> None:
        if self.on_mask is not None:
            self.on_mask(index, prepared, raw[0], target)

    def evaluation(self, metric: base.Metric[Masks, np.ndarray], run: Pass) -> MaskEvaluation:
        assert isinstance(metric, SegmentationMetric)  # its own
        return MaskEvaluation(
            checkpoint=run.checkpoint,
            data=run.data,
            split=run.split,
            matrix=metric.matrix,
            classes=self.data.classes,
            palette=self.data.palette,
            count=run.count,
            seconds=run.seconds,
            inference=self.processor.inference,
            seeds=metric.spread(),
            optimized=run.optimized,
        )


def evaluator_of(subject: Subject, data: SegmentationData, name: str, options: EvalOptions) -> SegmentationEvaluator:
    """An evaluation of a segmenter on a data set; name: what that is called in errors.

    Raises DataError where the segmenter has another number of classes.
    """
    check_classes(subject, data, name)
    writers = [writer for writer in (options.on_mask, writer_of(data, options)) if writer is not None]
    processor = processor_of(subject, options, seeds=options.seeds or 0)
    return SegmentationEvaluator(data, processor, on_mask=_Every(writers) if writers else None)


@dataclass(frozen=True)
class _Every:
    """Calls several with the same."""

    calls: list[OnMask]

    def __call__(self, index: int, image: Image.Image, mask: np.ndarray, label: np.ndarray) -> None:
        for call in self.calls:
            call(index, image, mask, label)


def check_classes(subject: Subject, data: DataSet[np.ndarray], name: str) -> None:
    """Raises DataError for another number of classes; a VanNotice where the names differ."""
    if len(data.classes) != subject.num_classes:
        raise DataError(
            f"{subject.name} has {subject.num_classes} classes, {name} has {len(data.classes)}; expected the data "
            "set it was trained for"
        )
    own = subject.classes
    named = own != tuple(map(str, range(subject.num_classes)))
    if named and places(own, data.classes) != tuple(range(subject.num_classes)):
        at = first_difference(own, data.classes)
        warnings.warn(
            f"classes are compared by number, but number {at} is {own[at]!r} for the segmenter and "
            f"{data.classes[at]!r} in {name}",
            VanNotice,
            stacklevel=3,
        )
