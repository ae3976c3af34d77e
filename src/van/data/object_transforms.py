"""From an image and its objects, or its panoptic segments, to what training takes: steps, then normalised tensors.

Every random number comes from the generator that is passed in; the global generators are left alone.

C channels (1 or 3), h, w height and width of the result, K objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NotRequired, TypedDict

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import ConfigError, DataError
from ..images.preprocess import to_color
from .object_steps import Example, Size, Step, torchvision
from .objects import Objects, Panoptic


class ObjectTarget(TypedDict):
    """What is true of an augmented image, as `nn.object_model.Target` has it.

    size: (height, width) of the image without padding. boxes: (K, 4) float32, corners x, y, x, y.
    labels: (K,) int64 from 0. masks: (K, h, w) uint8, padded as the image is.
    """

    size: Size
    boxes: Tensor
    labels: Tensor
    masks: NotRequired[Tensor]


@dataclass(frozen=True, kw_only=True)
class ObjectTransform:
    """PIL image and its truth -> float32 (C, h, w), normalised, and an `ObjectTarget`.

    Crowds are no targets, nor are objects of which a crop leaves nothing, or less than `least_side` pixels in one
    direction. Boxes are clipped to the image; where a crop cut masks, they are drawn around what is left of them.

    mean, std: of the images on the 0 … 1 scale, one entry per channel.
    steps: what is done before, in this order. masks: whether targets have masks.
    pad_to: (height, width) that results are padded to at the right and bottom, with 0, which is the mean colour.
    Raises ConfigError for options that cannot work; calling raises DataError for images larger than `pad_to`, and for
    objects without masks where they are asked for.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    steps: tuple[Step, ...] = ()
    masks: bool = False
    pad_to: Size | None = None
    least_side: float = 1.0

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3) or min(self.std) <= 0:
            raise ConfigError(f"mean is {self.mean}, std is {self.std}; expected 1 or 3 entries each, std positive")
        if self.pad_to is not None and (len(self.pad_to) != 2 or min(self.pad_to) < 1):
            raise ConfigError(f"pad_to is {self.pad_to!r}; expected height and width in pixels, e.g. (1024, 1024)")
        if self.least_side < 0:
            raise ConfigError(f"least_side is {self.least_side}; expected pixels from 0")

    def __call__(self, image: Image.Image, objects: Objects, rng: np.random.Generator) -> tuple[Tensor, ObjectTarget]:
        """Of objects with boxes and, where `masks` asks for them, masks."""
        tv, _ = torchvision()
        single = np.flatnonzero(~objects.crowd)
        masks = None
        if self.masks:
            if objects.read_masks is None:
                raise DataError(f"the objects of image {objects.image_id!r} have no masks; use data with segmentations")
            masks = tv.Mask(torch.from_numpy(objects.read_masks()[single]))  # (K, H, W)
        corners = torch.from_numpy(objects.boxes[single].astype(np.float32))
        boxes = tv.BoundingBoxes(corners, format="XYXY", canvas_size=(image.height, image.width))
        kept = torch.from_numpy(single)
        example = self._stepped(Example(picture=self._picture(image), boxes=boxes, masks=masks, kept=kept), rng)
        example = self._sanitised(example)
        assert example.kept is not None
        labels = torch.from_numpy(objects.labels)[example.kept]
        return self._result(example, example.boxes.as_subclass(Tensor), labels, example.masks)

    def panoptic(self, image: Image.Image, panoptic: Panoptic, rng: np.random.Generator) -> tuple[Tensor, ObjectTarget]:
        """Of segments, things and stuff alike: a mask and a box each. Pixels of crowds and void belong to none."""
        tv, _ = torchvision()
        map_ = tv.Mask(torch.from_numpy(panoptic.segment_ids.astype(np.int32))[None])  # (1, H, W)
        none = tv.BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=(image.height, image.width))
        example = self._stepped(Example(picture=self._picture(image), boxes=none, masks=map_, kept=None), rng)
        assert example.masks is not None
        there = set(torch.unique(example.masks.as_subclass(Tensor)).tolist())
        segments = [each for each in panoptic.segments if each.id in there and not each.crowd]
        ids = torch.tensor([each.id for each in segments], dtype=torch.int32)
        masks = (example.masks.as_subclass(Tensor) == ids[:, None, None]).to(torch.uint8)  # (K, h, w)
        labels = torch.tensor([each.label for each in segments], dtype=torch.int64)
        return self._result(example, boxes_around(masks), labels, masks if self.masks else None)

    def _picture(self, image: Image.Image) -> Tensor:
        tv, _ = torchvision()
        pixels = np.array(to_color(image, "L" if len(self.mean) == 1 else "RGB"))
        return tv.Image(torch.from_numpy(pixels.reshape(image.height, image.width, -1)).permute(2, 0, 1))

    def _stepped(self, example: Example, rng: np.random.Generator) -> Example:
        for step in self.steps:
            example = step(example, rng)
        return example

    def _sanitised(self, example: Example) -> Example:
        """Boxes within the image, around what is left of cut masks; objects that are large enough."""
        tv, v2 = torchvision()
        boxes = v2.clamp_bounding_boxes(example.boxes).as_subclass(Tensor)
        kept = torch.ones(len(boxes), dtype=torch.bool)
        if example.masks is not None:
            around = boxes_around(example.masks.as_subclass(Tensor))
            kept = (around[:, 2:] > around[:, :2]).all(1)  # thin ones vanish where images shrink
            boxes = around if example.cropped else boxes
        kept &= (boxes[:, 2:] - boxes[:, :2] >= self.least_side).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        wrapped = tv.wrap(boxes, like=example.boxes)
        return Example(picture=example.picture, boxes=wrapped, masks=example.masks, kept=example.kept).only(kept)

    def _result(
        self, example: Example, boxes: Tensor, labels: Tensor, masks: Tensor | None
    ) -> tuple[Tensor, ObjectTarget]:
        _, v2 = torchvision()
        pixels = v2.to_dtype(example.picture, torch.float32, scale=True).as_subclass(Tensor)
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        pixels = self._padded((pixels - mean) / std)
        target = ObjectTarget(size=example.size, boxes=boxes.to(torch.float32), labels=labels)
        if masks is not None:
            target["masks"] = self._padded(masks.as_subclass(Tensor))
        return pixels, target

    def _padded(self, tensor: Tensor) -> Tensor:
        """(…, H, W) -> (…, *pad_to)."""
        if self.pad_to is None:
            return tensor
        height, width = tensor.shape[-2:]
        if height > self.pad_to[0] or width > self.pad_to[1]:
            raise DataError(
                f"the augmented image has {height} x {width} pixels (height x width), more than pad_to, "
                f"{self.pad_to[0]} x {self.pad_to[1]}; crop to that size before"
            )
        padding = (0, self.pad_to[1] - width, 0, self.pad_to[0] - height)
        return torch.nn.functional.pad(tensor, padding).contiguous()


def boxes_around(masks: Tensor) -> Tensor:
    """(K, H, W) -> (K, 4) float32, corners with right and bottom excluded; zeros for empty masks."""
    if not len(masks):
        return torch.zeros(0, 4)
    columns, rows = masks.amax(1) > 0, masks.amax(2) > 0  # (K, W), (K, H)
    edges = []
    for there in (columns, rows):
        first, last = there.int().argmax(1), there.shape[1] - there.flip(1).int().argmax(1)
        edges += [first, torch.where(there.any(1), last, 0)]
    left, right, top, bottom = edges
    return torch.stack((left, top, right, bottom), 1).to(torch.float32)
