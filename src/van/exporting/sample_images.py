"""Images that exported files are compared on and int8 is calibrated and measured on, as the network gets them.

What the network gets of an image is the task's to say: its processor's first input.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from ..data import open_classification
from ..data.folder import is_image
from ..data.scenes import Scenes
from ..errors import ConfigError, DataError, MissingExtraError
from ..images.preprocess import read_image
from ..inference.description import Description
from ..tasks import task_of
from ..tasks.base import Processor

Images = str | Path | Sequence[Image.Image]
Named = tuple[str, Image.Image]
Item = TypeVar("Item")

MOST = 64  # images of a folder to compare on, spread over it
BATCH = 8
DIGITS = 6  # of the embedded ones


def processor_of(description: Description) -> Processor[Any, Any]:
    """What prepares images for a network as its checkpoint asks for, no option changed."""
    task = task_of(description.config)
    return task.processor(description.subject, task.predict_options())


def takes_images(description: Description) -> bool:
    """Whether the network can be run on images."""
    return task_of(description.config).takes_images(description.subject)


# ---- to compare on


def named_images(images: Images | None) -> list[Named]:
    """(name, image): of a folder (searched to any depth), a list, or, for None, scikit-learn's photographs and digits.

    Raises DataError for a folder without images, MissingExtraError without scikit-learn for None.
    """
    if images is None:
        return _embedded()
    if not isinstance(images, str | Path):
        found = [(f"image {number}", image) for number, image in enumerate(images)]
    else:
        folder = Path(images)
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder; expected one with images")
        found = [(path.name, read_image(path)) for path in _spread(_files(folder), MOST)]
    if not found:
        raise DataError(f"{images} holds no images; expected at least one to compare on")
    return found


def named_batches(images: Sequence[Named], processor: Processor[Any, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Named batches (N, C, H, W): several images together where the task's networks take them so."""
    most = BATCH if processor.batched else 1
    for start in range(0, len(images), most):
        part = images[start : start + most]
        name = part[0][0] if len(part) == 1 else f"{part[0][0]} … {part[-1][0]}"
        yield name, np.concatenate([_input(image, processor) for _, image in part])


def _embedded() -> list[Named]:
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError as error:
        remedy = "for real images to compare on (or give a folder of your own: images=, --images)"
        raise MissingExtraError.of("scikit-learn", "export", remedy) from error
    photographs = load_sample_images()
    named = [
        (Path(name).name, Image.fromarray(a)) for name, a in zip(photographs.filenames, photographs.images, strict=True)
    ]
    scans = (load_digits().images[:DIGITS] * (255 / 16)).round().astype(np.uint8)
    return named + [(f"digit {number}", Image.fromarray(scan)) for number, scan in enumerate(scans)]


# ---- to calibrate and to measure on


def calibration_images(data: Images, description: Description, count: int) -> list[np.ndarray]:
    """At most `count` images, spread over the data, as the network gets them: (1, C, H, W) each.

    data: "digits" or "scenes" (the embedded ones' training split), a folder (searched to any depth), or PIL images.
    Raises DataError for a folder without images, ConfigError for a network that takes none.
    """
    if count < 1:
        raise ConfigError(f"samples is {count}; expected at least 1")
    if not takes_images(description):
        raise ConfigError(f"int8 is calibrated on images, which no network of {description.in_chans} channels takes")
    processor = processor_of(description)
    return [_input(image, processor) for image in _unlabelled(data, count)]


def validation_images(data: str | Path, description: Description, count: int) -> list[np.ndarray]:
    """At most `count` images, spread over labelled data's validation split, as the network gets them: (1, C, H, W)."""
    found, processor = task_of(description.config).open_data(data, "val"), processor_of(description)
    return [_input(found.load(i)[0], processor) for i in _spread(range(len(found)), count)]


def _unlabelled(data: Images, count: int) -> Iterable[Image.Image]:
    if not isinstance(data, str | Path):
        if not data:
            raise DataError("no images to calibrate on; give at least one")
        return _spread(data, count)
    if str(data) in ("digits", "scenes"):
        embedded = open_classification("digits", "train") if str(data) == "digits" else Scenes("train")
        return (embedded.load(i)[0] for i in _spread(range(len(embedded)), count))
    folder = Path(data)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected one with images to calibrate on, or digits")
    if not (files := _files(folder)):
        raise DataError(f"{folder} holds no images; expected some hundred like those the network will see")
    return map(read_image, _spread(files, count))


def _input(image: Image.Image, processor: Processor[Any, Any]) -> np.ndarray:
    """(1, C, H, W): the first of an image's inputs, the first window where it is cut into some."""
    return next(processor.inputs(image))[None]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if is_image(path))


def _spread(items: Sequence[Item], count: int) -> Sequence[Item]:
    """At most `count` of the items, evenly spaced from the first on."""
    return items[:: max(1, -(-len(items) // count))]
