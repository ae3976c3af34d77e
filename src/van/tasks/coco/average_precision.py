"""COCO's average precision and recall of many images, by faster-coco-eval.

Every image is kept until the scores are asked for, masks as compressed run lengths: precision depends on the order of
all scores, so nothing less adds up exactly.

Shapes: K objects or detections of an image; T overlaps (IoU), R recalls, C classes, A ranges of areas, M limits of
detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from ...errors import DataError, MissingExtraError
from ...images.rle import Rle

Kind = Literal["bbox", "segm"]

LIMITS = (1, 10, 100)  # detections of a class in an image, the surest, that count
_AREAS = {"": 0, "s": 1, "m": 2, "l": 3}  # all, up to 32^2 pixels, up to 96^2, larger
_AT = {"50": 0, "75": 5}  # of the overlaps 0.50, 0.55 … 0.95


@dataclass(frozen=True, kw_only=True, eq=False)
class Instances:
    """Boxes, and masks where there are any, of an image: annotations, or detections, which have scores.

    boxes: (K, 4) float64, x, y, width, height. labels: (K,) from 0. masks: one each. scores: (K,).
    areas: (K,) in pixels. crowd: (K,) bool.
    """

    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    scores: np.ndarray | None = None
    masks: tuple[Rle, ...] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageRecord:
    """One image: what is true of it, and what was found. image_id: by which images are ordered; size: (H, W)."""

    image_id: int | str
    size: tuple[int, int]
    truth: Instances
    found: Instances


@dataclass(frozen=True, kw_only=True, eq=False)
class PrecisionRecall:
    """precision: (T, R, C, A, M), recall: (T, C, A, M), -1 where a class has no object to find."""

    precision: np.ndarray
    recall: np.ndarray

    def scores(self) -> dict[str, float]:
        """AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl; NaN where there is nothing to find."""
        last = len(LIMITS) - 1
        found = {"AP": _mean(self.precision[..., 0, last])}
        found |= {f"AP{name}": _mean(self.precision[at, ..., 0, last]) for name, at in _AT.items()}
        found |= {f"AP{name}": _mean(self.precision[..., area, last]) for name, area in _AREAS.items() if name}
        found |= {f"AR{limit}": _mean(self.recall[..., 0, at]) for at, limit in enumerate(LIMITS)}
        return found | {f"AR{name}": _mean(self.recall[..., area, last]) for name, area in _AREAS.items() if name}

    def of_class(self, label: int) -> dict[str, float]:
        """AP, AP50, AP75 of one class; NaN without an object of it."""
        own = self.precision[:, :, label, 0, len(LIMITS) - 1]
        return {"AP": _mean(own)} | {f"AP{name}": _mean(own[at]) for name, at in _AT.items()}


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")


def precision_recall(records: Sequence[ImageRecord], num_classes: int, kind: Kind) -> PrecisionRecall:
    """Precision and recall of the boxes ("bbox") or masks ("segm") of images, in whatever order they come.

    Raises DataError for an image that is there twice, MissingExtraError without faster-coco-eval.
    """
    ordered = sorted(records, key=lambda each: (isinstance(each.image_id, str), each.image_id))
    for first, second in pairwise(ordered):
        if first.image_id == second.image_id:
            raise DataError(f"image {first.image_id} was counted twice; give every image of a data set its own id")
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise MissingExtraError.of("faster-coco-eval", "detection", "for average precision") from error
    truth = COCO(_coco([each.truth for each in ordered], ordered, num_classes))
    found = COCO(_coco([each.found for each in ordered], ordered, num_classes))
    evaluation = COCOeval_faster(truth, found, kind, print_function=_silent)
    evaluation.params.maxDets = list(LIMITS)
    evaluation.evaluate()
    evaluation.accumulate()
    values = evaluation.eval
    return PrecisionRecall(precision=np.asarray(values["precision"]), recall=np.asarray(values["recall"]))


def _silent(*_: object) -> None:
    return


def _coco(parts: Sequence[Instances], images: Sequence[ImageRecord], num_classes: int) -> dict[str, list[Any]]:
    """As COCO's files have it. Images, annotations and categories are numbered from 1: 0 means "no match" there."""
    annotations: list[dict[str, Any]] = []
    for image_id, each in enumerate(parts, start=1):
        boxes, labels, areas, crowd = each.boxes.tolist(), each.labels.tolist(), each.areas.tolist(), each.crowd
        for i, label in enumerate(labels):
            made = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label + 1, "bbox": boxes[i]}
            made |= {"area": areas[i], "iscrowd": int(crowd[i])}
            if each.scores is not None:
                made["score"] = float(each.scores[i])
            if each.masks is not None:
                mask = each.masks[i]
                made["segmentation"] = {"size": list(mask.size), "counts": mask.counts}
            annotations.append(made)
    sizes = [{"id": i, "height": each.size[0], "width": each.size[1]} for i, each in enumerate(images, start=1)]
    categories = [{"id": label + 1, "name": str(label)} for label in range(num_classes)]
    return {"images": sizes, "annotations": annotations, "categories": categories}
