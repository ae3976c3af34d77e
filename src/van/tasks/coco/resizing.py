"""From an image to what a network that finds objects gets.

Source: torchvision's GeneralizedRCNNTransform: normalised, resized without antialiasing, padded with zeros at the
right and bottom.

Shapes: C channels, H, W sides of the image, h, w of what the network gets without padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...configs.object_config import ObjectConfig
from ...errors import ConfigError, DataError
from ...images.preprocess import MAX_RESIZED_PIXELS, to_color
from ...images.resize import round_up
from ..base import Subject

MOST = 2**16  # pixels of a side


@dataclass(frozen=True, kw_only=True)
class Resizing:
    """How images become inputs; fields as those of ObjectConfig.

    min_size, max_size: an image gets a short side of `min_size` unless its long one would pass `max_size`.
    stretched: it becomes a square of `min_size` instead. divisor: sides are padded to a multiple of it.
    """

    min_size: int
    max_size: int
    stretched: bool
    divisor: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, config: ObjectConfig, size: int | tuple[int, int] | None = None) -> Self:
        """A model's own; size: another `min_size`, with `max_size` in proportion, or both in either order.

        Raises ConfigError for sizes that cannot be.
        """
        sides = (config.min_size, config.max_size) if size is None else _sides(config, size)
        return cls(
            min_size=sides[0],
            max_size=sides[1],
            stretched=config.stretched,
            divisor=config.size_divisor,
            mean=config.mean,
            std=config.std,
        )

    @property
    def color(self) -> str:
        """PIL mode that images are converted to: "RGB" or "L"."""
        return "L" if len(self.mean) == 1 else "RGB"

    def size(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        """(h, w) of an image; scale: factor on `min_size` and `max_size`."""
        if self.stretched:  # nothing is padded then, which boxes relative to the whole input rely on
            return round_up((max(1, int(self.min_size * scale)),) * 2, self.divisor)
        short, long = self.min_size * scale, self.max_size * scale
        factor = min(short / min(height, width), long / max(height, width))
        return max(1, int(height * factor)), max(1, int(width * factor))

    def pixels(self, image: Image.Image) -> Tensor:
        """The image normalised, (C, H, W) float32."""
        array = np.array(to_color(image, self.color)).reshape(image.height, image.width, len(self.mean))
        mean, std = torch.tensor((self.mean, self.std), dtype=torch.float32)[:, :, None, None]
        return (torch.from_numpy(array).permute(2, 0, 1).float().div(255) - mean) / std

    def resized(self, pixels: Tensor, scale: float = 1.0) -> Tensor:
        """Normalised pixels (C, H, W) -> (C, h, w); raises DataError where that would be gigabytes."""
        height, width = pixels.shape[-2:]
        size = self.size(height, width, scale)
        if size[0] * size[1] > MAX_RESIZED_PIXELS:
            raise DataError(
                f"an image of {height} x {width} pixels would be resized to {size[0]} x {size[1]}; use a smaller size"
            )
        return F.interpolate(pixels[None], size, mode="bilinear", align_corners=False)[0]

    def padded(self, pixels: Tensor) -> Tensor:
        """(C, h, w) -> with zeros at the right and bottom, up to multiples of `divisor`."""
        height, width = pixels.shape[-2:]
        rows, columns = round_up((height, width), self.divisor)
        return F.pad(pixels, (0, columns - width, 0, rows - height))


def takes_images(subject: Subject) -> bool:
    """Whether images can be made inputs of a model."""
    config = subject.config
    return isinstance(config, ObjectConfig) and config.backbone.in_chans in (1, 3)


def sized(subject: Subject, size: int | tuple[int, int]) -> Subject:
    """A model as for images of another size; raises ConfigError for sizes that cannot be."""
    assert isinstance(subject.config, ObjectConfig)
    resizing = Resizing.of(subject.config, size)
    config = replace(subject.config, min_size=resizing.min_size, max_size=resizing.max_size)
    return replace(subject, config=config)


def _sides(config: ObjectConfig, size: int | Sequence[int]) -> tuple[int, int]:
    """(min_size, max_size) as asked for."""
    sides = (size,) if isinstance(size, int) else tuple(size)
    whole = all(isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= MOST for side in sides)
    if not whole or len(sides) not in (1, 2):
        raise ConfigError(f"size is {size!r:.80}; expected pixels, 1 to {MOST:,}: a short side, or short and long side")
    if len(sides) == 2 and config.stretched:
        raise ConfigError(f"size is {sides[0]}x{sides[1]}, but this {config.noun} takes squares; give one side")
    if len(sides) == 2:
        return min(sides), max(sides)
    return sides[0], max(sides[0], round(sides[0] * config.max_size / config.min_size))
