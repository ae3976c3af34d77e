"""The image files that an annotation file names.

H, W height and width; N images.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from ..images.preprocess import read_image, to_color, upright


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFiles:
    """N images. folder: that of the data set; names: relative to it; source: the file that names them.

    sizes: (N, 2), height and width as the file has them, 0 where it does not. exif: see `load`.
    """

    folder: Path
    names: Sequence[str]
    sizes: np.ndarray
    source: Path
    exif: bool = True

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.folder / self.names[index]

    def load(self, index: int) -> Image.Image:
        """The RGB image; raises DataError for an unreadable file, and for one of another size than its record's.

        Turned as its EXIF orientation says, unless `exif` is False or its record fits only the pixels as stored.
        """
        path, (height, width) = self.path(index), self.sizes[index].tolist()
        stored = read_image(path, exif=False)
        image = upright(stored) if self.exif else stored
        if (height or width) and image.size != (width, height):
            if stored.size != (width, height):
                raise DataError(
                    f"{path} has {image.width} x {image.height} pixels (width x height), its record in {self.source} "
                    f"{width} x {height}; correct the record, or put the right file there"
                )
            image = stored
        return to_color(image, "RGB")

    def missing(self) -> list[int]:
        """Places of the images without a file; every folder is listed once."""
        there: dict[str, set[str]] = {}
        found = []
        for index, name in enumerate(self.names):
            folder, _, last = name.rpartition("/")
            if folder not in there:
                there[folder] = _files(self.folder / folder)
            if last not in there[folder]:
                found.append(index)
        return found


def _files(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(folder)}
    except OSError:
        return set()
