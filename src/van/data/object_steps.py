"""Steps of augmentation for images with objects: each is a value, and draws only from the generator it is given.

An example on its way is an `Example` of torchvision's tv_tensors; geometry goes through its functions.

C channels, H, W height and width, K objects.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, MissingExtraError
from .joint import distort

Range = tuple[float, float]
Size = tuple[int, int]
# SSD's crops: least IoU of the crop with one of the objects that it keeps; 1: the whole image.
OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
CROP_TRIES = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """An image with its objects between two steps.

    picture: Image (C, H, W), uint8, or float32 in 0 … 1. boxes: BoundingBoxes (K, 4), corners in pixels.
    masks: Mask (K, H, W) uint8, or a map of segments (1, H, W) int32, or None. kept: (K,) int64, the places in the
    annotations of the objects that are left; of a map, None. cropped: whether boxes lost parts of their objects.
    """

    picture: Tensor
    boxes: Tensor
    masks: Tensor | None
    kept: Tensor | None
    cropped: bool = False

    @property
    def size(self) -> Size:
        """(H, W)."""
        return int(self.picture.shape[-2]), int(self.picture.shape[-1])

    def only(self, which: Tensor) -> Example:
        """The objects of a boolean (K,), in their order."""
        if self.kept is None or bool(which.all()):
            return self
        tv, _ = torchvision()
        return replace(
            self,
            boxes=tv.wrap(self.boxes[which], like=self.boxes),
            masks=None if self.masks is None else tv.wrap(self.masks[which], like=self.masks),
            kept=self.kept[which],
        )


class Step(ABC):
    """What is done to an example, with random numbers of its own."""

    @abstractmethod
    def __call__(self, example: Example, rng: np.random.Generator) -> Example: ...


@dataclass(frozen=True, kw_only=True)
class Flip(Step):
    """Left to right, with a probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        _check_probability(self.probability)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if rng.random() >= self.probability:
            return example
        _, v2 = torchvision()
        flip = v2.horizontal_flip
        masks = None if example.masks is None else flip(example.masks)
        return replace(example, picture=flip(example.picture), boxes=flip(example.boxes), masks=masks)


@dataclass(frozen=True, kw_only=True)
class Photometric(Step):
    """Brightness, contrast, saturation and hue, with a probability; see `joint.distort`."""

    probability: float = 1.0

    def __post_init__(self) -> None:
        _check_probability(self.probability)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if rng.random() >= self.probability:
            return example
        tv, v2 = torchvision()
        pixels = v2.to_dtype(example.picture, torch.float32, scale=True)
        return replace(example, picture=tv.Image(distort(pixels.as_subclass(Tensor), rng)))


@dataclass(frozen=True, kw_only=True)
class ShortSide(Step):
    """Multi-scale: the short side becomes one of `sides`, the long one at most `longest` pixels (None: any).

    Source: detectron2's ResizeShortestEdge.
    """

    sides: tuple[int, ...] = (800,)
    longest: int | None = 1333

    def __post_init__(self) -> None:
        if not self.sides or min(self.sides) < 1:
            raise ConfigError(f"sides are {self.sides}; expected sides in pixels, e.g. (640, 800)")
        if self.longest is not None and self.longest < max(self.sides):
            raise ConfigError(f"longest is {self.longest}, below the short side {max(self.sides)}; give both")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        short, long = sorted(example.size)
        factor = self.sides[int(rng.integers(len(self.sides)))] / short
        if self.longest is not None:
            factor = min(factor, self.longest / long)
        return resized(example, _scaled(example.size, factor))


@dataclass(frozen=True, kw_only=True)
class ScaleJitter(Step):
    """Large-scale jitter: the image fitted into `size`, (height, width), times a random factor; a crop follows.

    Source: arXiv 2012.07177, 0.1 … 2 (large) and 0.8 … 1.25 (standard).
    """

    size: Size = (1024, 1024)
    scale: Range = (0.1, 2.0)

    def __post_init__(self) -> None:
        _check_size("size", self.size)
        _check_range("scale", self.scale, lowest=0)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        height, width = example.size
        factor = rng.uniform(*self.scale) * min(self.size[0] / height, self.size[1] / width)
        return resized(example, _scaled(example.size, factor))


@dataclass(frozen=True, kw_only=True)
class Stretch(Step):
    """A square of one of `sides`, whatever the image's shape."""

    sides: tuple[int, ...] = (640,)

    def __post_init__(self) -> None:
        if not self.sides or min(self.sides) < 1:
            raise ConfigError(f"sides are {self.sides}; expected sides in pixels, e.g. (640,)")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        side = self.sides[int(rng.integers(len(self.sides)))]
        return resized(example, (side, side))


@dataclass(frozen=True, kw_only=True)
class FixedCrop(Step):
    """A random part of `size`, (height, width); what is smaller stays as it is."""

    size: Size

    def __post_init__(self) -> None:
        _check_size("size", self.size)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        height, width = (min(side, has) for side, has in zip(self.size, example.size, strict=True))
        return _random_part(example, (height, width), rng)


@dataclass(frozen=True, kw_only=True)
class RandomSizeCrop(Step):
    """A random part with sides of `smallest` … `largest` pixels each; shorter sides stay. Source: DETR."""

    smallest: int = 384
    largest: int = 600

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.largest:
            raise ConfigError(f"a crop of {self.smallest} … {self.largest} pixels; expected a range from 1")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        height, width = (int(rng.integers(min(self.smallest, has), min(self.largest, has) + 1)) for has in example.size)
        return _random_part(example, (height, width), rng)


@dataclass(frozen=True, kw_only=True)
class OverlapCrop(Step):
    """A random part, with a probability, whose IoU with one object at least reaches a number that is drawn.

    Objects whose centres are outside are dropped. scale: of the sides; aspect: width by height of the part.
    Source: SSD (arXiv 1512.02325), as torchvision's RandomIoUCrop has it.
    """

    probability: float = 0.8
    scale: Range = (0.3, 1.0)
    aspect: Range = (0.5, 2.0)

    def __post_init__(self) -> None:
        _check_probability(self.probability)
        _check_range("scale", self.scale, lowest=0, highest=1)
        _check_range("aspect", self.aspect, lowest=0)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if example.kept is None:
            raise ConfigError("OverlapCrop chooses parts by objects, which a map of segments has not; use FixedCrop")
        if rng.random() >= self.probability or not len(example.kept):
            return example
        while (overlap := OVERLAPS[int(rng.integers(len(OVERLAPS)))]) < 1:
            for _ in range(CROP_TRIES):
                part = self._part(example.size, rng)
                if part is not None and (inside := _inside(example.boxes.as_subclass(Tensor), part, overlap)).any():
                    top, left, height, width = part
                    return cropped(example.only(inside), top, left, (height, width))
        return example

    def _part(self, size: Size, rng: np.random.Generator) -> tuple[int, int, int, int] | None:
        """Top, left, height, width; None for a shape that is too narrow or too wide."""
        height, width = (max(1, int(has * rng.uniform(*self.scale))) for has in size)
        if not self.aspect[0] <= width / height <= self.aspect[1]:
            return None
        return int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1)), height, width


@dataclass(frozen=True, kw_only=True)
class ZoomOut(Step):
    """The image somewhere on a canvas of `fill` (0 … 1 per channel) with sides of 1 … `most` times its own, with a
    probability. Source: SSD (arXiv 1512.02325).
    """

    probability: float = 0.5
    most: float = 4.0
    fill: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        _check_probability(self.probability)
        if not self.most >= 1:
            raise ConfigError(f"most is {self.most}; expected a factor from 1")
        if not self.fill or not all(0 <= value <= 1 for value in self.fill):
            raise ConfigError(f"fill is {self.fill}; expected 0 … 1 per channel")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if rng.random() >= self.probability:
            return example
        _, v2 = torchvision()
        height, width = example.size
        factor = rng.uniform(1, self.most)
        down, right = int(height * factor) - height, int(width * factor) - width
        top, left = int(rng.integers(down + 1)), int(rng.integers(right + 1))
        padding = [left, top, right - left, down - top]
        scale = 1 if example.picture.is_floating_point() else 255
        return replace(
            example,
            picture=v2.pad(example.picture, padding, fill=[value * scale for value in self.fill]),
            boxes=v2.pad(example.boxes, padding),
            masks=None if example.masks is None else v2.pad(example.masks, padding),
        )


@dataclass(frozen=True, kw_only=True)
class OneOf(Step):
    """One of several chains of steps, drawn with equal chances."""

    choices: tuple[tuple[Step, ...], ...]

    def __post_init__(self) -> None:
        if len(self.choices) < 2:
            raise ConfigError(f"{len(self.choices)} chain(s) to choose from; expected at least two")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        for step in self.choices[int(rng.integers(len(self.choices)))]:
            example = step(example, rng)
        return example


def resized(example: Example, size: Size) -> Example:
    """All parts at a size, (height, width)."""
    if example.size == size:
        return example
    tv, v2 = torchvision()
    masks = example.masks
    if masks is not None:
        # nearest to the pixel's centre, as PIL has it: a Mask's own resizing is half a pixel off where images shrink;
        # of no masks, torch would not know what to interpolate
        plain = masks.as_subclass(Tensor)
        exact = v2.InterpolationMode.NEAREST_EXACT
        masks = tv.Mask(v2.resize(plain, list(size), exact) if len(plain) else plain.new_zeros((0, *size)))
    return replace(
        example,
        picture=v2.resize(example.picture, list(size), antialias=True),
        boxes=v2.resize(example.boxes, list(size)),
        masks=masks,
    )


def cropped(example: Example, top: int, left: int, size: Size) -> Example:
    """A part of all; objects of which nothing is left are dropped."""
    if (top, left, size) == (0, 0, example.size):
        return example
    _, v2 = torchvision()
    part = replace(
        example,
        picture=v2.crop(example.picture, top, left, *size),
        boxes=v2.crop(example.boxes, top, left, *size),
        masks=None if example.masks is None else v2.crop(example.masks, top, left, *size),
        cropped=True,
    )
    corners = part.boxes.as_subclass(Tensor)
    return part.only((corners[:, 2:] > corners[:, :2]).all(1))


def _random_part(example: Example, size: Size, rng: np.random.Generator) -> Example:
    top, left = (int(rng.integers(has - side + 1)) for has, side in zip(example.size, size, strict=True))
    return cropped(example, top, left, size)


def _inside(boxes: Tensor, part: tuple[int, int, int, int], overlap: float) -> Tensor:
    """Which boxes have their centre in a part, (K,) bool; none where no IoU of these with it reaches `overlap`."""
    top, left, height, width = part
    corners = torch.tensor([left, top, left + width, top + height], dtype=boxes.dtype)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((center > corners[:2]) & (center < corners[2:])).all(1)
    common = (torch.minimum(boxes[:, 2:], corners[2:]) - torch.maximum(boxes[:, :2], corners[:2])).clamp_min(0).prod(1)
    iou = common / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + height * width - common)
    return inside & bool((iou[inside] >= overlap).any())


def _scaled(size: Size, factor: float) -> Size:
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def _check_probability(value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"probability is {value}; expected 0 … 1")


def _check_size(name: str, size: Size) -> None:
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"{name} is {size!r}; expected height and width in pixels, e.g. (1024, 1024)")


def _check_range(name: str, values: Range, *, lowest: float, highest: float = float("inf")) -> None:
    if len(values) != 2 or not lowest < values[0] <= values[1] <= highest:
        raise ConfigError(f"{name} is {values!r}; expected a range above {lowest:g} and up to {highest:g}")


@functools.cache
def torchvision() -> tuple[ModuleType, ModuleType]:
    """`tv_tensors` and the functions of `transforms.v2`; raises MissingExtraError."""
    try:
        from torchvision import tv_tensors
        from torchvision.transforms.v2 import functional
    except ImportError as error:
        raise MissingExtraError.of("torchvision", "detection", "for training on objects") from error
    return tv_tensors, functional
