"""Average precision of boxes, and of masks where a task has them, as a metric that adds up exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...data.objects import Objects
from ...errors import DataError
from ...images import rle
from ..base import Json, Metric
from .average_precision import ImageRecord, Instances, Kind, PrecisionRecall, precision_recall
from .found import Found

PREFIXES: dict[Kind, str] = {"bbox": "", "segm": "mask/"}


class ObjectMetric(Metric[Found, Objects]):
    """Counts what was found against what is there.

    classes: of the data. masks: whether masks are scored too. order: the index of each of the model's classes among
    those of the data; None: the same.
    """

    def __init__(self, classes: Sequence[str], *, masks: bool = False, order: Sequence[int] | None = None) -> None:
        self.classes, self.masks = tuple(classes), masks
        self.order = tuple(range(len(self.classes)) if order is None else order)
        self.records: list[ImageRecord] = []
        self.non_finite = 0

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What is scored."""
        return ("bbox", "segm") if self.masks else ("bbox",)

    def update(self, raw: Sequence[Found], targets: Sequence[Objects], names: Sequence[str]) -> None:
        for found, target, name in zip(raw, targets, names, strict=True):
            self._check(found, target, name)
            self.non_finite += not found.finite
            self.records.append(
                ImageRecord(
                    image_id=target.image_id,
                    size=target.size,
                    truth=self._truth(target),
                    found=self._detections(found),
                )
            )

    def _check(self, found: Found, target: Objects, name: str) -> None:
        if tuple(target.size) != tuple(found.size):
            height, width = found.size
            raise DataError(f"{name}: the image has {height} x {width} pixels, its annotations are for {target.size}")
        if self.masks and (target.read_masks is None or found.masks is None):
            raise DataError(f"{name}: there are boxes only; expected a mask for every object")
        if len(target) and not 0 <= target.labels.min() <= target.labels.max() < len(self.classes):
            raise DataError(f"{name}: an object has class {target.labels.max()}; expected 0 to {len(self.classes) - 1}")

    def _truth(self, target: Objects) -> Instances:
        masks = tuple(rle.encode(target.read_masks())) if self.masks and target.read_masks is not None else None
        return Instances(
            boxes=width_and_height(target.boxes),
            labels=target.labels,
            areas=target.areas.astype(np.float64),
            crowd=target.crowd,
            masks=masks,
        )

    def _detections(self, found: Found) -> Instances:
        boxes = width_and_height(found.boxes)
        return Instances(
            boxes=boxes,
            labels=np.asarray(self.order, np.int64)[found.labels],
            # of a detection, the area of what is compared: of its mask where masks are (below), else of its box
            areas=boxes[:, 2] * boxes[:, 3],
            crowd=np.zeros(len(found), bool),
            scores=found.scores.astype(np.float64),
            masks=found.masks if self.masks else None,
        )

    def __add__(self, other: ObjectMetric) -> ObjectMetric:
        total = self.empty()
        total.records = self.records + other.records
        total.non_finite = self.non_finite + other.non_finite
        return total

    def empty(self) -> ObjectMetric:
        return ObjectMetric(self.classes, masks=self.masks, order=self.order)

    def precision_recall(self) -> dict[Kind, PrecisionRecall]:
        """Of boxes, and of masks."""
        return {kind: precision_recall(self._records(kind), len(self.classes), kind) for kind in self.kinds}

    def _records(self, kind: Kind) -> list[ImageRecord]:
        if kind == "bbox":
            return self.records
        return [_with_mask_areas(each) for each in self.records]

    def compute(self) -> dict[str, float]:
        return scores_of(self.precision_recall())

    def table(self) -> list[dict[str, Json]]:
        return self.rows(self.precision_recall())

    def rows(self, found: dict[Kind, PrecisionRecall]) -> list[dict[str, Json]]:
        """A row per class: its AP, AP50, AP75, and how many objects and detections there are."""
        objects, detections = self.counts()
        return [
            {"class": name}
            | {f"{PREFIXES[kind]}{key}": score for kind, of in found.items() for key, score in of.of_class(i).items()}
            | {"objects": objects[i], "detections": detections[i]}
            for i, name in enumerate(self.classes)
        ]

    def counts(self) -> tuple[list[int], list[int]]:
        """Objects, crowds left out, and detections of every class."""
        objects = np.zeros(len(self.classes), np.int64)
        detections = objects.copy()
        for each in self.records:
            objects += np.bincount(each.truth.labels[~each.truth.crowd], minlength=len(objects))
            detections += np.bincount(each.found.labels, minlength=len(objects))
        return objects.tolist(), detections.tolist()


def scores_of(found: dict[Kind, PrecisionRecall]) -> dict[str, float]:
    """COCO's names: AP … of boxes, mask/AP … of masks."""
    return {f"{PREFIXES[kind]}{key}": value for kind, each in found.items() for key, value in each.scores().items()}


def width_and_height(boxes: np.ndarray) -> np.ndarray:
    """(K, 4) corners x, y, x, y -> x, y, width, height as COCO's files have them, float64."""
    exact = boxes.astype(np.float64).reshape(-1, 4)
    return np.concatenate((exact[:, :2], exact[:, 2:] - exact[:, :2]), 1)


def _with_mask_areas(record: ImageRecord) -> ImageRecord:
    masks = record.found.masks or ()
    return replace(record, found=replace(record.found, areas=rle.areas(masks).astype(np.float64)))
