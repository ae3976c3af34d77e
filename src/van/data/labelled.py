"""What every labelled data set offers, whatever its labels are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic, TypeVar

from PIL import Image

from .fingerprint import Fingerprint, fingerprint

Label = TypeVar("Label")


class LabelledData(ABC, Generic[Label]):
    """Labelled images: `len(data)`, `data.load(i)`, `data.name(i)`.

    classes: names in label order.
    """

    classes: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, index: int) -> tuple[Image.Image, Label]:
        """The decoded image and its label; raises DataError naming the file that cannot be used."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call the image in tables and errors: its path, or `digits/val/12`."""

    def key(self, index: int) -> str:
        """The image's name wherever the data set lies, to notice that the data set has changed."""
        return self.name(index)

    def files(self, index: int) -> tuple[Path, ...]:
        """The files of an image and its label; none of those that are made in memory, or read by a library."""
        return ()

    @property
    def root(self) -> Path | None:
        """The folder that the files are in, for a data set that can be recognised by it."""
        return None

    def verify(self, index: int) -> None:
        """Decode an image and its label as training does; raises DataError where that fails."""
        self.load(index)

    def fingerprint(self) -> Fingerprint:
        """Number and names of the images."""
        return fingerprint(("images", self.key(index)) for index in range(len(self)))
