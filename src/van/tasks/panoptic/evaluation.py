"""What an evaluation of a panoptic segmenter shows, how it begins, and what it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...data.objects import Panoptic, PanopticData
from ...errors import ConfigError, DataError
from ...images.label_maps import save_overlay
from ..base import EvaluationData, Evaluator, Metric, Pass, Subject
from ..coco.evaluation import CocoEvaluation
from ..coco.found import class_order
from ..coco.processor import Prepared
from ..coco.result_files import ResultFiles
from ..file_stems import stems_of
from .metric import PanopticMetric, Segmented
from .options import EvalOptions
from .output import id_image
from .processor import PanopticProcessor, processor_of

FOLDER, LIST = "panoptic", "panoptic.json"


@dataclass(frozen=True, kw_only=True)
class PanopticEvaluation(CocoEvaluation):
    """Panoptic quality and its parts, over all classes, things and stuff."""

    monitored: ClassVar[str] = "PQ"
    figures: ClassVar[tuple[str, ...]] = ("PQ", "SQ", "RQ", "PQ_things", "PQ_stuff")
    class_columns: ClassVar[Mapping[str, str]] = {
        "thing": "kind",
        "PQ": "PQ %",
        "SQ": "SQ %",
        "RQ": "RQ %",
        "matched": "matched",
        "wrong": "wrong",
        "missed": "missed",
    }


class PanopticEvaluator(Evaluator[Prepared, Segmented, Panoptic]):
    """Counts the segments of every image, and writes them where that was asked for. files: where results go."""

    data: PanopticData
    metric: PanopticMetric
    processor: PanopticProcessor

    def __init__(
        self,
        data: PanopticData,
        processor: PanopticProcessor,
        metric: PanopticMetric,
        files: ResultFiles | None = None,
    ) -> None:
        self.data, self.processor, self.metric, self.files = data, processor, metric, files
        self.indices = range(len(data))
        if not self.indices:
            raise DataError(f"the {data.split!r} part of the data has no images to evaluate on")
        self.stems = stems_of([Path(data.name(i)) for i in self.indices]) if files is not None else ()

    def done(self, index: int, prepared: Prepared, raw: Segmented, target: Panoptic) -> None:
        if self.files is None:
            return
        name = f"{self.stems[index]}.png"
        save_overlay(Path(self.files.folder) / FOLDER / name, id_image(raw.segment_ids))
        ids, areas = self.data.categories.ids, np.bincount(raw.segment_ids.ravel(), minlength=len(raw.labels) + 1)
        segments = [
            {"id": i, "category_id": ids[self.metric.order[label]], "score": float(score), "area": int(areas[i])}
            for i, (label, score) in enumerate(zip(raw.labels, raw.scores, strict=True), start=1)
            if areas[i]  # a segment that is not in the map is refused by who reads them
        ]
        record = {"image_id": self.data.image_id(index), "file_name": name, "segments_info": segments}
        self.files.add(index, {LIST: [record]})

    def evaluation(self, metric: Metric[Segmented, Panoptic], run: Pass) -> CocoEvaluation:
        assert isinstance(metric, PanopticMetric)  # its own
        if self.files is not None:
            categories = self.data.categories
            rows = zip(categories.ids, categories.names, categories.things, strict=True)
            listed = [{"id": id_, "name": name, "isthing": int(thing)} for id_, name, thing in rows]
            self.files.finish({LIST: {"categories": listed}})
        facts = self.processor.facts()
        return PanopticEvaluation.found(run, metric.compute(), metric.table(), facts, metric.non_finite)


def evaluator_of(subject: Subject, data: EvaluationData, options: EvalOptions) -> PanopticEvaluator:
    """An evaluation on a data set.

    Raises ConfigError for data of another task, DataError for classes that do not fit.
    """
    images = data.images
    if not isinstance(images, PanopticData):
        raise ConfigError(f"{subject.name} is a panoptic segmenter; expected images with a segment for every pixel")
    order = class_order(subject, tuple(images.classes), data.name)
    processor = processor_of(subject, options)
    files = ResultFiles.begin(options.out, (LIST,)) if options.out else None
    metric = PanopticMetric(images.classes, images.categories.things, order)
    return PanopticEvaluator(images, processor, metric, files)
