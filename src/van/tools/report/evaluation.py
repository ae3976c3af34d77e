"""A finished run's model on its validation data: one loop for every task."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from ...inference.session import open_session
from ...recipes import BaseRecipe
from ...tasks import task_named
from ...tasks.classification.report import ClassificationReport
from ...tasks.report_parts import ReportParts, TaskReport
from ...tasks.segmentation.report import SegmentationReport
from ...train.folder import MODEL

BATCH_SIZE = 32  # where the recipe has none

# Task -> its report.
REPORTS: dict[str, type[TaskReport]] = {
    "classification": ClassificationReport,
    "segmentation": SegmentationReport,
}


def report_of(recipe: BaseRecipe) -> type[TaskReport]:
    """The report of a recipe's task."""
    return REPORTS[recipe.task]


def evaluate_run(folder: Path, recipe: BaseRecipe, *, device: str) -> ReportParts:
    """Evaluate a finished run's model on the images that its validations used.

    Raises what opening the model and the data raises.
    """
    training = task_named(recipe.task).training(recipe)
    _, val = training.open_data()
    session = open_session(folder / MODEL, device=device)
    report, processor = report_of(recipe).of(val), session.processor()
    size = recipe.trainer.eval_batch_size or BATCH_SIZE if processor.batched else 1
    images = training.validation_images(val)
    while batch := list(islice(images, size)):
        raw = processor.run(session.engine, [processor.prepare(image) for _, image, _ in batch])
        for (name, image, target), output in zip(batch, raw, strict=True):
            report.update(name, image, target, output)
    return report.parts()
