"""Images that int8 is calibrated and compared on, as the network gets to see them.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data import open_classification
from ..data.folder import is_image
from ..data.scenes import Scenes
from ..data.segmentation import open_segmentation
from ..errors import ConfigError, DataError
from ..images.preprocess import read_image
from ..inference.description import Description
from ..tasks.segmentation.processor import inference_for
from .sample_images import for_segmenter

Data = str | Path | Sequence[Image.Image]


def calibration_images(data: Data, description: Description, count: int) -> list[np.ndarray]:
    """At most `count` images, spread over the data, preprocessed: (1, C, H, W) each.

    data: "digits" or "scenes" (the embedded ones' training split), a folder (searched to any depth), or PIL images.
    Raises DataError for a folder without images, ConfigError for a network that takes none.
    """
    if count < 1:
        raise ConfigError(f"samples is {count}; expected at least 1")
    if description.preprocess is None:
        raise ConfigError(
            f"int8 is calibrated on images, which a network of {description.in_chans} channels cannot see"
        )
    return _preprocessed(_images(data, count), description)


def validation_images(data: str | Path, description: Description, count: int) -> list[np.ndarray]:
    """At most `count` images, spread over labelled data's validation split, preprocessed: (1, C, H, W) each."""
    segments = description.task == "segmentation"
    found: Any = open_segmentation(data, "val") if segments else open_classification(data, "val")
    return _preprocessed((found.load(i)[0] for i in _spread(range(len(found)), count)), description)


def _preprocessed(images: Iterable[Image.Image], description: Description) -> list[np.ndarray]:
    preprocess = description.preprocess
    assert preprocess is not None  # or there would be nothing to calibrate on
    if description.task == "classification":
        return [preprocess(image)[None] for image in images]
    inference = inference_for(description.subject)
    return [batch for _, batch in for_segmenter([("", image) for image in images], inference)]


def _images(data: Data, count: int) -> Iterator[Image.Image]:
    if not isinstance(data, str | Path):
        if not data:
            raise DataError("no images to calibrate on; give at least one")
        yield from _spread(data, count)
    elif str(data) in ("digits", "scenes"):
        embedded = open_classification("digits", "train") if str(data) == "digits" else Scenes("train")
        yield from (embedded.load(i)[0] for i in _spread(range(len(embedded)), count))
    else:
        folder = Path(data)
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder; expected one with images to calibrate on, or digits")
        files = sorted(path for path in folder.rglob("*") if is_image(path))
        if not files:
            raise DataError(f"{folder} holds no images; expected some hundred like those the network will see")
        yield from map(read_image, _spread(files, count))


def _spread(items: Sequence[Any], count: int) -> Sequence[Any]:
    return items[:: -(-len(items) // count)]
