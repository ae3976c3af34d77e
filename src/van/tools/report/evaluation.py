"""A finished run's model on its validation data: what the report shows of it, by task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from ...data import ClassificationData
from ...data.infinite_sampler import spread
from ...data.readers import StreamSet
from ...recipes import AnyRecipe
from ...tasks.classification.report import ClassificationReport
from ...tasks.report_parts import ReportParts, TaskReport
from ...tasks.segmentation.report import SegmentationReport
from ...train.folder import MODEL
from ...train.segmentation.prepare import open_pictures
from ...train.sources import Images, open_images

Sample: TypeAlias = tuple[str, Image.Image, Any, Any]  # name, image, target, what the model gives
Evaluated: TypeAlias = tuple[TaskReport, Iterator[Sample]]


@dataclass(frozen=True)
class Reporter:
    """A task's report, and how a run's validation images and the model's outputs for them are had.

    open: (model file, recipe, device) -> an empty report, and what it is to be updated with.
    """

    report: type[TaskReport]
    open: Callable[[Path, Any, str], Evaluated]


def evaluate_run(folder: Path, recipe: AnyRecipe, *, device: str) -> ReportParts:
    """Evaluate a finished run's model on its validation data.

    Raises what opening the model and the data raises.
    """
    report, samples = reporter_of(recipe).open(folder / MODEL, recipe, device)
    for sample in samples:
        report.update(*sample)
    return report.parts()


def _classification(model: Path, recipe: Any, device: str) -> Evaluated:
    _, val = open_images(recipe)
    return ClassificationReport(val.classes), _classified(model, val, recipe, device)


def _classified(model: Path, val: Images, recipe: Any, device: str) -> Iterator[Sample]:
    from ...inference.session import open_classifier

    session = open_classifier(model, device=device)
    images = _images(val, seed=recipe.trainer.seed)
    while batch := list(islice(images, recipe.trainer.eval_batch_size or 32)):
        logits = session.engine.run(np.stack([session.preprocess(image) for _, image, _ in batch]))["logits"]
        yield from ((*image, row) for image, row in zip(batch, logits, strict=True))


def _images(val: Images, *, seed: int) -> Iterator[tuple[str, Image.Image, int]]:
    """Name, image and label of every validation image; those of a stream, which have no names, are numbered."""
    if isinstance(val, ClassificationData):
        for place in range(len(val)):
            yield val.name(place), *val.load(place)
        return
    stream = StreamSet(val, pil_to_tensor, seed=seed, training=False, batch_size=1, workers=1)
    for number, (image, label) in enumerate(stream.pictures(0, 0, 1), 1):
        yield f"number {number}", image, int(label)


def _segmentation(model: Path, recipe: Any, device: str) -> Evaluated:
    """The images are those of the run's validations."""
    from ...inference.session import open_segmenter

    _, val = open_pictures(recipe.data)
    session = open_segmenter(model, device=device)
    processor = session.processor()

    def samples() -> Iterator[Sample]:
        for index in spread(len(val), recipe.data.val_images):
            image, labels = val.load(index)
            yield val.name(index), image, labels, processor.run(session.engine, [processor.prepare(image)])[0][0]

    return SegmentationReport(val.classes, val.palette, val.ignore_index), samples()


# Recipe's task -> its report.
REPORTERS: dict[str, Reporter] = {
    "classification": Reporter(ClassificationReport, _classification),
    "segmentation": Reporter(SegmentationReport, _segmentation),
}


def reporter_of(recipe: AnyRecipe) -> Reporter:
    """The report of a recipe's task; a recipe that names none is one of classification."""
    return REPORTERS[getattr(recipe, "task", "classification")]
