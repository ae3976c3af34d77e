"""What a processor found in an image, and the order in which a model's classes stand in a data set.

Shapes: K objects, H, W sides of the image.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from ...errors import DataError, VanNotice
from ...images.rle import Rle
from ..base import Subject
from ..class_names import first_difference, places


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """Objects in the pixels of the image itself, the surest first.

    size: (H, W). boxes: (K, 4) float32, corners x, y, x, y. labels: (K,) int64 from 0. scores: (K,) float32.
    masks: one per object; None for models without masks. finite: whether the network's outputs were numbers.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    masks: tuple[Rle, ...] | None = None
    finite: bool = True

    def __len__(self) -> int:
        return len(self.labels)


def class_order(subject: Subject, classes: tuple[str, ...], data: str) -> tuple[int, ...]:
    """Where each of a model's classes stands among those of a data set; data: what that is called in errors.

    By their names where both name the same classes, else by number, with a VanNotice where the names differ.
    Raises DataError for another number of classes.
    """
    if len(classes) != subject.num_classes:
        raise DataError(
            f"{subject.name} has {subject.num_classes} classes, {data} has {len(classes)}; expected the data set it "
            "was trained for"
        )
    own, numbers = subject.classes, tuple(range(subject.num_classes))
    if own == tuple(map(str, numbers)):
        return numbers
    order = places(classes, own)
    if order is None:
        at = first_difference(own, classes)
        warnings.warn(
            f"classes are compared by number, but number {at} is {own[at]!r} for the model and {classes[at]!r} in "
            f"{data}",
            VanNotice,
            stacklevel=4,
        )
    return numbers if order is None else order
