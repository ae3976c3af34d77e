"""A finished run's model looked at again, for its report: how classes are confused, and what it got most wrong.

Shapes: H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from ...data import ClassificationData
from ...data.infinite_sampler import spread
from ...data.readers import StreamSet
from ...data.segmentation import SegmentationData
from ...recipes import Recipe
from ...tasks.classification.meter import ClassificationMeter, softmax
from ...tasks.segmentation.confusion_matrix import ConfusionMatrix
from ...train.sources import Images

WORST, WORST_MASKS = 24, 10
THUMB = 224  # pixels of the longer side

Labelled = tuple[str, Image.Image, int]  # name, picture, label


@dataclass(frozen=True)
class Miss:
    """An image that was classified wrongly: how sure the network was of the wrong class."""

    image: Image.Image
    name: str
    true: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class MaskMiss:
    """A picture with its label and the prediction (H, W), and the mean IoU of its own classes."""

    image: Image.Image
    label: np.ndarray
    predicted: np.ndarray
    name: str
    iou: float


def validation_images(val: Images, recipe: Recipe) -> Iterator[Labelled]:
    """Every validation image of a run; those of a stream, which have no names, are numbered."""
    if isinstance(val, ClassificationData):
        for place in range(len(val)):
            yield val.name(place), *val.load(place)
        return
    stream = StreamSet(val, pil_to_tensor, seed=recipe.trainer.seed, training=False, batch_size=1, workers=1)
    for number, (image, label) in enumerate(stream.pictures(0, 0, 1), 1):
        yield f"number {number}", image, int(label)


def look(
    model: Path, images: Iterable[Labelled], classes: tuple[str, ...], *, device: str, batch_size: int
) -> tuple[ClassificationMeter, list[Miss]]:
    """Scores of a model on images with labels, and the images it was most surely wrong about, the surest first."""
    from ...inference.session import open_classifier

    opened = open_classifier(model, device=device)
    meter, misses = ClassificationMeter(classes), list[Miss]()
    remaining = iter(images)
    while batch := list(islice(remaining, batch_size)):
        logits = opened.engine.run(np.stack([opened.preprocess(image) for _, image, _ in batch]))["logits"]
        meter.update(logits, [label for *_, label in batch])
        for (name, image, label), shares in zip(batch, softmax(logits), strict=True):
            guess = int(shares.argmax())
            if guess != label:
                misses.append(Miss(small(image), name, classes[label], classes[guess], float(shares[guess])))
        misses = sorted(misses, key=lambda miss: -miss.probability)[:WORST]
    return meter, misses


def look_at_masks(
    model: Path, data: SegmentationData, *, images: int | None, device: str
) -> tuple[ConfusionMatrix, list[MaskMiss]]:
    """Pixels of a segmenter on `images` pictures of a data set (None: all), and the pictures with the lowest mean IoU.

    The pictures are those that the run's validations looked at.
    """
    from ...inference.segmenter_session import open_segmenter
    from ...tasks.segmentation.views import confusion

    opened = open_segmenter(model, device=device)
    misses: list[MaskMiss] = []

    def note(index: int, image: Image.Image, mask: np.ndarray, label: np.ndarray) -> None:
        own = ConfusionMatrix(len(data.classes), ignore_index=data.ignore_index)
        own.update(mask, label)
        if own.overall_accuracy < 1:
            misses.append(MaskMiss(image, label, mask, data.name(index), own.summary()["mIoU"]))
            misses.sort(key=lambda miss: miss.iou)
            del misses[WORST_MASKS:]

    chosen = spread(len(data), images)
    return confusion(opened.model, data, inference=opened.inference, indices=chosen, on_mask=note), misses


def small(image: Image.Image) -> Image.Image:
    """A copy that fits the page; small ones stay as they are."""
    image = image.copy()
    image.thumbnail((THUMB, THUMB))
    return image
