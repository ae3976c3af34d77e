"""What all data sets of objects in files have in common: a table of annotations, and the images of one split."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from ..images.rle import Rle
from .fingerprint import ANNOTATIONS, Fingerprint, fingerprint
from .object_table import ObjectTable
from .objects import ObjectData, Objects
from .problems import Problems


class TableObjects(ObjectData):
    """The images of one split of a table.

    table: the annotations of all images; chosen: places of the split's images in it; source: the file that describes
    the data set. problems: what was passed over when it was read.
    need_masks: masks are checked with the images; data in which an object has none are refused.
    """

    def __init__(
        self,
        table: ObjectTable,
        chosen: np.ndarray,
        split: str,
        *,
        root: Path,
        source: Path,
        problems: Problems,
        need_masks: bool,
    ) -> None:
        self.table, self.chosen, self.split = table, chosen, split
        self._root, self.source, self.problems, self.need_masks = root, source, problems, need_masks
        masks = table.has_mask
        self.has_masks = bool(masks.any() and masks.all())
        if need_masks and not self.has_masks:
            raise DataError(self._without_mask(masks))

    def __len__(self) -> int:
        return len(self.chosen)

    def load(self, index: int) -> tuple[Image.Image, Objects]:
        image = self.image(index)
        return image, self.objects(index, (image.height, image.width))

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """The RGB image; raises DataError for one that cannot be used."""

    @abstractmethod
    def objects(self, index: int, size: tuple[int, int]) -> Objects:
        """The objects of an image of `size`, (H, W); masks are decoded, and checked, when they are read."""

    @abstractmethod
    def mask(self, index: int, place: int, size: tuple[int, int]) -> Rle | None:
        """The mask of an object of an image of `size`, (H, W), by its place among the image's; None without one.

        Raises DataError, naming file and annotation, for one that cannot be decoded.
        """

    @abstractmethod
    def annotation(self, row: int) -> str:
        """What to call an annotation of the table in errors."""

    def verify(self, index: int) -> None:
        _, objects = self.load(index)
        if self.need_masks and objects.read_masks is not None:
            objects.read_masks()

    @property
    def root(self) -> Path | None:
        return self._root

    def labels(self, index: int) -> np.ndarray:
        return self.table.labels[self.table.rows(int(self.chosen[index]))].astype(np.int64)

    def class_counts(self) -> tuple[int, ...]:
        return self._class_counts

    def fingerprint(self) -> Fingerprint:
        """Number and names of the images, and what is annotated on them."""
        names = (("images", self.key(index)) for index in range(len(self)))
        contents = ((ANNOTATIONS, self.table.content(place).hex()) for place in self.chosen.tolist())
        return fingerprint(names) | fingerprint(contents)

    @cached_property
    def _class_counts(self) -> tuple[int, ...]:
        image = np.repeat(np.arange(len(self.table.starts) - 1), np.diff(self.table.starts))
        labels = self.table.labels[np.isin(image, self.chosen)]
        return tuple(np.bincount(labels, minlength=len(self.classes)).tolist())

    def _without_mask(self, masks: np.ndarray) -> str:
        if not len(masks):
            return f"{self.source} has no annotations, so no masks either; add some"
        first = self.annotation(int(np.flatnonzero(~masks)[0]))
        return (
            f"{self.source}: {int((~masks).sum())} of {len(masks)} annotations have no mask, e.g. {first}; add "
            "polygons or run lengths, or choose a task that needs boxes alone"
        )
