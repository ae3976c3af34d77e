"""The digit scenes as objects and as panoptic segments: every digit is a thing, the background is stuff.

Identities are fixed, so that scenes written as COCO files name the same things: image i is i + 1, digit k of it
10 (i + 1) + k; in panoptic maps digit k is segment k and the background the next one.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from PIL import Image

from ..images.palettes import Color
from .objects import Categories, ObjectData, Objects, Panoptic, PanopticData, Segment
from .scenes import MAX_DIGITS, PALETTE, Scene, Scenes

_DIGITS = tuple("0123456789")
THINGS = Categories(ids=tuple(range(1, 11)), names=_DIGITS, things=(True,) * 10)
THINGS_AND_STUFF = Categories(ids=tuple(range(1, 12)), names=(*_DIGITS, "background"), things=(True,) * 10 + (False,))
_PER_IMAGE = 10
assert MAX_DIGITS < _PER_IMAGE


class SceneObjects(ObjectData):
    """The digits of the scenes, boxes and masks of their visible pixels."""

    has_masks = True

    def __init__(self, scenes: Scenes) -> None:
        self.scenes, self.split = scenes, scenes.split
        self.categories, self.classes = THINGS, THINGS.names
        self.palette: tuple[Color, ...] = PALETTE[1:]

    def __len__(self) -> int:
        return len(self.scenes)

    def load(self, index: int) -> tuple[Image.Image, Objects]:
        scene = self.scenes.scene(index)
        digits = scene.segments
        return scene.image, Objects(
            size=scene.instances.shape,
            image_id=self.image_id(index),
            boxes=np.array([each.box for each in digits], np.float64).reshape(-1, 4),
            labels=np.array([each.label - 1 for each in digits], np.int64),
            areas=np.array([each.area for each in digits], np.float64),
            crowd=np.zeros(len(digits), bool),
            ids=np.array([self.image_id(index) * _PER_IMAGE + each.id for each in digits], np.int64),
            read_masks=lambda: _masks(scene),
        )

    def name(self, index: int) -> str:
        return self.scenes.name(index)

    def image_id(self, index: int) -> int:
        return index + 1

    def class_counts(self) -> tuple[int, ...]:
        return self._class_counts

    @cached_property
    def _class_counts(self) -> tuple[int, ...]:
        labels = [each.label - 1 for i in range(len(self)) for each in self.scenes.scene(i).segments]
        return tuple(np.bincount(np.array(labels, np.int64), minlength=len(self.classes)).tolist())


class ScenePanoptic(PanopticData):
    """The segments of the scenes: digits, and the background as stuff; no pixel is void."""

    def __init__(self, scenes: Scenes) -> None:
        self.scenes, self.split = scenes, scenes.split
        self.categories, self.classes = THINGS_AND_STUFF, THINGS_AND_STUFF.names
        self.palette: tuple[Color, ...] = (*PALETTE[1:], PALETTE[0])

    def __len__(self) -> int:
        return len(self.scenes)

    def load(self, index: int) -> tuple[Image.Image, Panoptic]:
        scene = self.scenes.scene(index)
        ground = len(scene.segments) + 1
        map_ = np.where(scene.instances == 0, ground, scene.instances).astype(np.int32)
        segments = [Segment(id=each.id, label=each.label - 1, area=each.area) for each in scene.segments]
        if area := int((map_ == ground).sum()):
            segments.append(Segment(id=ground, label=self.classes.index("background"), area=area))
        return scene.image, Panoptic(image_id=self.image_id(index), segment_ids=map_, segments=tuple(segments))

    def name(self, index: int) -> str:
        return self.scenes.name(index)

    def image_id(self, index: int) -> int:
        return index + 1


def _masks(scene: Scene) -> np.ndarray:
    """(K, H, W) uint8."""
    ids = np.array([each.id for each in scene.segments], np.uint8)
    return (scene.instances[None] == ids[:, None, None]).astype(np.uint8)
