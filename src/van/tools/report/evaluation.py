"""A finished run's model on its validation data: what the report shows of it, by task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from ...recipes import BaseRecipe
from ...tasks import task_named
from ...tasks.classification.report import ClassificationReport
from ...tasks.report_parts import ReportParts, TaskReport
from ...tasks.segmentation.report import SegmentationReport
from ...train.folder import MODEL

Sample: TypeAlias = tuple[str, Image.Image, Any, Any]  # name, image, target, what the model gives
Evaluated: TypeAlias = tuple[TaskReport, Iterator[Sample]]


@dataclass(frozen=True)
class Reporter:
    """A task's report, and how a run's validation images and the model's outputs for them are had.

    open: (model file, recipe, device) -> an empty report, and what it is to be updated with.
    """

    report: type[TaskReport]
    open: Callable[[Path, Any, str], Evaluated]


def evaluate_run(folder: Path, recipe: BaseRecipe, *, device: str) -> ReportParts:
    """Evaluate a finished run's model on its validation data.

    Raises what opening the model and the data raises.
    """
    report, samples = reporter_of(recipe).open(folder / MODEL, recipe, device)
    for sample in samples:
        report.update(*sample)
    return report.parts()


def _classification(model: Path, recipe: Any, device: str) -> Evaluated:
    training = task_named(recipe.task).training(recipe)
    _, val = training.open_data()
    return ClassificationReport(val.classes), _classified(model, training.validation_images(val), recipe, device)


def _classified(model: Path, images: Iterator[Any], recipe: Any, device: str) -> Iterator[Sample]:
    from ...inference.session import open_classifier

    session = open_classifier(model, device=device)
    while batch := list(islice(images, recipe.trainer.eval_batch_size or 32)):
        logits = session.engine.run(np.stack([session.preprocess(image) for _, image, _ in batch]))["logits"]
        yield from ((*image, row) for image, row in zip(batch, logits, strict=True))


def _segmentation(model: Path, recipe: Any, device: str) -> Evaluated:
    """The images are those of the run's validations."""
    from ...inference.session import open_segmenter

    training = task_named(recipe.task).training(recipe)
    val: Any = training.open_data()[1]
    session = open_segmenter(model, device=device)
    processor = session.processor()

    def samples() -> Iterator[Sample]:
        for name, image, labels in training.validation_images(val):
            yield name, image, labels, processor.run(session.engine, [processor.prepare(image)])[0][0]

    return SegmentationReport(val.classes, val.palette, val.ignore_index), samples()


# Recipe's task -> its report.
REPORTERS: dict[str, Reporter] = {
    "classification": Reporter(ClassificationReport, _classification),
    "segmentation": Reporter(SegmentationReport, _segmentation),
}


def reporter_of(recipe: BaseRecipe) -> Reporter:
    """The report of a recipe's task."""
    return REPORTERS[recipe.task]
