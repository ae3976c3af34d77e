"""Images whose objects are known: boxes, masks, and panoptic segments, under one interface.

Shapes: K objects or segments, H, W height and width of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ..images.palettes import Color
from ..images.rle import decode, encode
from .labelled import LabelledData


@dataclass(frozen=True, kw_only=True, eq=False)
class Objects:
    """The objects of an image, in the order of the annotations.

    size: (H, W). image_id: what the data set calls the image in its files.
    boxes: (K, 4) float64, left, top, right, bottom in pixels, right and bottom excluded (COCO: x, y, x + w, y + h).
    labels: (K,) int64, index into the data set's `classes`. areas: (K,) float64, pixels, as annotated.
    crowd: (K,) bool: regions of many objects, which scores neither ask for nor punish. ids: (K,) int64.
    read_masks: gives (K, H, W) uint8; None where the data has boxes only.
    """

    size: tuple[int, int]
    image_id: int | str
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ids: np.ndarray
    read_masks: Callable[[], np.ndarray] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        """To another process go the masks themselves, as run lengths, not the file's table that they are read from."""
        state = dict(vars(self))
        if self.read_masks is not None:
            state["read_masks"] = partial(decode, encode(self.read_masks()), self.size)
        return state


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A segment of an image: its id in the map, the index of its class, its pixels, whether it is a crowd."""

    id: int
    label: int
    area: int
    crowd: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Panoptic:
    """Every pixel's segment. image_id: what the data set calls the image in its files.

    segment_ids: (H, W) int32, the id of each pixel's segment; 0: no label (void). segments: those of the map.
    """

    image_id: int | str
    segment_ids: np.ndarray
    segments: tuple[Segment, ...]


@dataclass(frozen=True, kw_only=True)
class Categories:
    """How files of results name the classes: `ids[i]` is the category id of class i, `names[i]` its name.

    things: whether class i is a thing, whose objects count one by one.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    things: tuple[bool, ...]


class ObjectData(LabelledData[Objects]):
    """RGB images with their objects: `load(i) -> (image, Objects)`.

    classes: in the order of `categories`. palette: a colour per class. has_masks: whether objects have masks.
    split: "train" or "val".
    """

    categories: Categories
    palette: tuple[Color, ...]
    has_masks: bool
    split: str

    def image_id(self, index: int) -> int | str:
        """What the data set calls the image in its files."""
        raise NotImplementedError

    def labels(self, index: int) -> np.ndarray:
        """(K,) int64: the classes of an image's objects, for layouts that know them without decoding the image."""
        return self.load(index)[1].labels

    def sizes(self) -> np.ndarray | None:
        """(N, 2): height and width of every image as its annotations have them; None for layouts that do not."""
        return None

    def class_counts(self) -> Sequence[int]:
        """Objects of each class in the whole split."""
        raise NotImplementedError


class PanopticData(LabelledData[Panoptic]):
    """RGB images with their segments: `load(i) -> (image, Panoptic)`; things come first among the classes."""

    categories: Categories
    palette: tuple[Color, ...]
    split: str

    @property
    def num_things(self) -> int:
        """The first so many classes are things."""
        return sum(self.categories.things)

    def image_id(self, index: int) -> int | str:
        """What the data set calls the image in its files."""
        raise NotImplementedError
