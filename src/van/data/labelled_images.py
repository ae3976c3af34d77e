"""Images with one label each, under one interface."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ..images.preprocess import read_image, to_color
from .fingerprint import Fingerprint, fingerprint
from .folder import ImageList
from .index import PathTable
from .labelled import LabelledData


class ClassificationData(LabelledData[int]):
    """Images with one label each, in their own modes.

    labels: one index into `classes` per image.
    """

    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> Fingerprint:
        """Number and names of the images of every class."""
        return fingerprint((self.classes[label], self.key(index)) for index, label in enumerate(self.labels))


class FolderData(ClassificationData):
    """The images of an ImageList."""

    def __init__(self, images: ImageList, *, exif: bool = True) -> None:
        self.classes, self.labels, self.paths, self.exif = images.classes, images.labels, images.paths, exif

    def load(self, index: int) -> tuple[Image.Image, int]:
        return read_image(self.paths[index], exif=self.exif), self.labels[index]

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def files(self, index: int) -> tuple[Path, ...]:
        return (self.paths[index],)

    @property
    def root(self) -> Path | None:
        return self.paths.root if isinstance(self.paths, PathTable) else None

    def verify(self, index: int) -> None:
        image = read_image(self.paths[index])
        if image.mode not in ("RGB", "L"):
            to_color(image, "RGB")

    def key(self, index: int) -> str:
        return self.paths.relative(index) if isinstance(self.paths, PathTable) else self.name(index)
