"""How an evaluation of a detector or an instance segmenter begins, and what it writes."""

from __future__ import annotations

from ...data.objects import Categories, ObjectData, Objects
from ...errors import ConfigError, DataError
from ..base import EvaluationData, Evaluator, Json, Metric, Pass, Subject
from .evaluation import CocoEvaluation
from .found import Found, class_order
from .metric import ObjectMetric, scores_of, width_and_height
from .options import EvalOptions
from .processor import ObjectProcessor, Prepared, processor_of
from .result_files import Lines, ResultFiles

BOXES, MASKS = "bbox.json", "segm.json"


class ObjectEvaluator(Evaluator[Prepared, Found, Objects]):
    """Counts what is found in every image, and writes it where that was asked for.

    kind: of the evaluation. files: where results go.
    """

    data: ObjectData
    metric: ObjectMetric
    processor: ObjectProcessor

    def __init__(
        self,
        data: ObjectData,
        processor: ObjectProcessor,
        metric: ObjectMetric,
        kind: type[CocoEvaluation],
        files: ResultFiles | None = None,
    ) -> None:
        self.data, self.processor, self.metric, self.kind, self.files = data, processor, metric, kind, files
        self.indices = range(len(data))
        if not self.indices:
            raise DataError(f"the {data.split!r} part of the data has no images to evaluate on")

    def done(self, index: int, prepared: Prepared, raw: Found, target: Objects) -> None:
        if self.files is not None:
            self.files.add(index, result_lines(raw, self.data.image_id(index), self.data.categories, self.metric.order))

    def evaluation(self, metric: Metric[Found, Objects], run: Pass) -> CocoEvaluation:
        assert isinstance(metric, ObjectMetric)  # its own
        found = metric.precision_recall()
        if self.files is not None:
            self.files.finish()
        return self.kind.found(run, scores_of(found), metric.rows(found), self.processor.facts(), metric.non_finite)


def result_lines(found: Found, image_id: int | str, categories: Categories, order: tuple[int, ...]) -> Lines:
    """The objects of an image as COCO's result files have them; order: see ObjectMetric.

    Records of masks have no box: who reads them would take its area for the mask's.
    """
    boxes = width_and_height(found.boxes).tolist()
    records: list[dict[str, Json]] = [
        {"image_id": image_id, "category_id": categories.ids[order[label]], "score": score}
        for label, score in zip(found.labels.tolist(), found.scores.tolist(), strict=True)
    ]
    masks = found.masks or ()
    return {
        BOXES: [record | {"bbox": box} for record, box in zip(records, boxes, strict=True)],
        MASKS: [record | {"segmentation": mask.to_json()} for record, mask in zip(records, masks, strict=False)],
    }


def object_evaluator(
    subject: Subject, data: EvaluationData, options: EvalOptions, *, masks: bool, kind: type[CocoEvaluation]
) -> ObjectEvaluator:
    """An evaluation on a data set; masks: whether masks are scored too.

    Raises ConfigError for data of another task, DataError for classes that do not fit and for masks that are not there.
    """
    noun, images = subject.config.noun, data.images
    if not isinstance(images, ObjectData):
        raise ConfigError(f"{subject.name} is a model of kind {noun}; expected images with their objects as data")
    if masks and not images.has_masks:
        raise DataError(f"{data.name} has boxes only; to evaluate masks, every object needs one")
    order = class_order(subject, tuple(images.classes), data.name)
    processor = processor_of(subject, options)
    files = ResultFiles.begin(options.out, (BOXES, MASKS) if masks else (BOXES,)) if options.out else None
    return ObjectEvaluator(images, processor, ObjectMetric(images.classes, masks=masks, order=order), kind, files)
