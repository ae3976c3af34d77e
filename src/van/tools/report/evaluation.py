"""A finished run's model on its validation data: one loop for every task."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from ...inference.session import open_session
from ...recipes import BaseRecipe
from ...tasks import task_named
from ...tasks.base import EvaluationData
from ...tasks.report_parts import ReportParts
from ...train.folder import MODEL

BATCH_SIZE = 32  # where the recipe has none


def evaluate_run(folder: Path, recipe: BaseRecipe, *, device: str) -> ReportParts:
    """Evaluate a finished run's model on the images that its validations used.

    Raises what opening the model and the data raises.
    """
    task = task_named(recipe.task)
    training = task.training(recipe)
    _, val = training.open_data()
    session = open_session(folder / MODEL, device=device)
    data = EvaluationData(val, str(recipe.data.path), "val")  # type: ignore[arg-type]
    report = task.report.of(val, lambda: task.evaluator(session.subject, data, task.eval_options()))
    processor = session.processor()
    size = recipe.trainer.eval_batch_size or BATCH_SIZE if processor.batched else 1
    images = training.validation_images(val)
    while batch := list(islice(images, size)):
        raw = processor.run(session.engine, [processor.prepare(image) for _, image, _ in batch])
        for (name, image, target), output in zip(batch, raw, strict=True):
            report.update(name, image, target, output)
    return report.parts()
