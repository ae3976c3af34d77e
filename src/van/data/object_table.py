"""The annotations of a whole data set in a few arrays, sorted by image; masks are decoded when they are read.

N images, n annotations, K of them in an image.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..images.rle import Rle, decode, read_segmentation
from .objects import Objects
from .packed_segmentations import unpack


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectTable:
    """Annotations of N images; those of image i are starts[i] … starts[i + 1].

    boxes: (n, 4) float64, corners x, y, x, y. labels: (n,) int32. areas: (n,) float64, pixels. crowd: (n,) bool.
    ids: (n,) int64.
    packed: bytes of all segmentations; those of annotation k are ends[k, 0] … ends[k, 1], (n, 2) int64.
    """

    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ids: np.ndarray
    packed: bytes
    ends: np.ndarray

    def rows(self, image: int) -> slice:
        """Where the annotations of an image are."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    @property
    def has_mask(self) -> np.ndarray:
        """Whether each annotation has a segmentation, (n,) bool."""
        return self.ends[:, 1] > self.ends[:, 0]

    def holds_mask(self, row: int) -> bool:
        """Whether an annotation has a segmentation."""
        return bool(self.ends[row, 1] > self.ends[row, 0])

    def segmentation(self, row: int) -> object:
        """As the file has it; None without."""
        start, end = self.ends[row].tolist()
        return unpack(self.packed[start:end]) if end > start else None

    def content(self, image: int) -> bytes:
        """All that is said about an image, for a digest of it."""
        rows = self.rows(image)
        columns = (self.boxes, self.labels, self.areas, self.crowd, self.ids)
        masks = (self.packed[start:end] for start, end in self.ends[rows].tolist())
        return b"".join((*(column[rows].tobytes() for column in columns), *masks))


class TableBuilder:
    """Annotations in the order of a file, until the images and classes that they name are known."""

    def __init__(self) -> None:
        self.images: list[int | str] = []
        self.categories, self.ids, self.lengths = array("q"), array("q"), array("q")
        self.boxes, self.areas = array("d"), array("d")
        self.crowd, self.packed = bytearray(), bytearray()

    def __len__(self) -> int:
        return len(self.images)

    def add(
        self,
        *,
        image: int | str,
        category: int,
        box: Sequence[float],
        area: float,
        crowd: bool,
        id_: int,
        packed: bytes,
    ) -> None:
        """One annotation. box: corners x, y, x, y; packed: see `packed_segmentations`."""
        self.images.append(image)
        self.categories.append(category)
        self.boxes.extend(box)
        self.areas.append(area)
        self.crowd.append(crowd)
        self.ids.append(id_)
        self.lengths.append(len(packed))
        self.packed += packed

    def build(self, places: np.ndarray, labels: np.ndarray, images: int) -> ObjectTable:
        """The table of N `images`. places, labels: (n,) image and class of each annotation; negative: left out."""
        kept = np.flatnonzero((places >= 0) & (labels >= 0))
        order = kept[np.argsort(places[kept], kind="stable")]
        ends = np.cumsum(np.asarray(self.lengths, np.int64))
        return ObjectTable(
            starts=np.concatenate(([0], np.bincount(places[order], minlength=images).cumsum())).astype(np.int64),
            boxes=np.asarray(self.boxes, np.float64).reshape(-1, 4)[order],
            labels=labels[order].astype(np.int32),
            areas=np.asarray(self.areas, np.float64)[order],
            crowd=np.frombuffer(self.crowd, np.uint8).astype(bool)[order],
            ids=np.asarray(self.ids, np.int64)[order],
            packed=bytes(self.packed),
            ends=np.stack((ends - np.asarray(self.lengths, np.int64), ends), 1)[order],
        )


def objects_of(
    table: ObjectTable, image: int, *, size: tuple[int, int], image_id: int | str, masks: bool, source: str
) -> Objects:
    """The annotations of an image of `size`, (H, W). source: what errors call the file; masks: whether all have one."""
    rows = table.rows(image)
    return Objects(
        size=size,
        image_id=image_id,
        boxes=table.boxes[rows],
        labels=table.labels[rows].astype(np.int64),
        areas=table.areas[rows],
        crowd=table.crowd[rows],
        ids=table.ids[rows],
        read_masks=_reader(table, rows, size, source) if masks else None,
    )


def mask_of(table: ObjectTable, row: int, size: tuple[int, int], source: str) -> Rle:
    """The mask of an annotation; raises DataError naming the file and the annotation."""
    try:
        return read_segmentation(table.segmentation(row), size)
    except DataError as error:
        raise DataError(
            f"{source}: annotation {table.ids[row]}: {error}; mend or remove it (van doctor lists all such records)"
        ) from error


def _reader(table: ObjectTable, rows: slice, size: tuple[int, int], source: str) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        return decode([mask_of(table, row, size, source) for row in range(rows.start, rows.stop)], size)

    return read
