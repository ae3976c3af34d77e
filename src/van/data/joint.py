"""What training does to an image and its label map together: scale, crop, flip, colours, normalise, pad.

As published for ADE20K (mmseg's pipeline): the image's short side goes to 512 times a random scale, a crop is drawn
again while one class fills more than three quarters of it, and what a crop lacks is padded after normalising, so that
padding has the mean colour and no label. Geometry runs on torchvision's `tv_tensors.Image` and `tv_tensors.Mask`.

Every random number comes from the generator that is passed in; the global generators are left alone.

C channels (1 or 3), H, W height and width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import ConfigError, DataError, MissingExtraError
from ..images.preprocess import Preprocess, to_color

# Published: further crops are drawn this often at most, and the last one is taken as it comes.
CROP_TRIES = 10


@dataclass(frozen=True, kw_only=True)
class JointTransform:
    """PIL image and label map (H, W) -> float32 (C, *crop) and int64 (*crop), `ignore_index` where nothing is known.

    preprocess: mean, std and colour of the record; its size and crop_pct play no part here.
    crop: (height, width) in pixels.
    base: (long side, short side) that an image is fitted into before scaling; None keeps its own size.
    scale: range of the random factor; max_class_share: a crop's largest class stays below it (1: any crop will do).
    flip, vflip: probability of mirroring left to right, and top to bottom.
    photometric: distort brightness, contrast, saturation and hue.
    pad: what is smaller than the crop is padded at the right and bottom, as published; False makes it an error.
    Raises ConfigError for options that cannot work; calling raises DataError when the crop does not fit and pad is off.
    Source: mmseg's ADE20K training pipeline (Resize, RandomCrop, RandomFlip, PhotoMetricDistortion, Normalize, Pad).
    """

    preprocess: Preprocess
    crop: tuple[int, int] = (512, 512)
    base: tuple[int, int] | None = (2048, 512)
    scale: tuple[float, float] = (0.5, 2.0)
    max_class_share: float = 0.75
    flip: float = 0.5
    vflip: float = 0.0
    photometric: bool = True
    pad: bool = True
    ignore_index: int = 255

    def __post_init__(self) -> None:
        for name in ("crop", "base"):
            sides = getattr(self, name)
            if sides is not None and (len(sides) != 2 or min(sides) < 1):
                raise ConfigError(f"{name} is {sides!r}; expected two sides in pixels, e.g. (512, 512)")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"scale is {self.scale!r}; expected a range of positive factors, e.g. (0.5, 2.0)")
        if not 0 < self.max_class_share <= 1:
            raise ConfigError(f"max_class_share is {self.max_class_share}; expected a share in (0, 1]")
        for name in ("flip", "vflip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a probability in [0, 1]")

    def __call__(self, image: Image.Image, labels: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        tv, v2 = _torchvision()
        pixels = np.array(to_color(image, self.preprocess.color)).reshape(image.height, image.width, -1)
        picture = tv.Image(torch.from_numpy(pixels).permute(2, 0, 1))  # (C, H, W) uint8
        # torch has few operations for uint16
        mask = tv.Mask(torch.from_numpy(labels if labels.dtype == np.uint8 else labels.astype(np.int32)))  # (H, W)
        picture, mask = self._resized(picture, mask, rng, v2)
        picture, mask = self._cropped(picture, mask, rng, v2)
        if rng.random() < self.flip:
            picture, mask = v2.horizontal_flip(picture), v2.horizontal_flip(mask)
        if self.vflip and rng.random() < self.vflip:  # without it the random numbers stay those of before
            picture, mask = v2.vertical_flip(picture), v2.vertical_flip(mask)
        values = picture.as_subclass(Tensor).float() / 255
        if self.photometric:
            values = distort(values, rng)
        values = v2.normalize(values, self.preprocess.mean, self.preprocess.std)
        right, bottom = self.crop[1] - values.shape[-1], self.crop[0] - values.shape[-2]
        if right or bottom:
            values = v2.pad(values, [0, 0, right, bottom])
            mask = v2.pad(mask, [0, 0, right, bottom], fill=self.ignore_index)
        return values.contiguous(), mask.as_subclass(Tensor).long()

    def _resized(self, picture: Any, mask: Any, rng: np.random.Generator, v2: Any) -> tuple[Any, Any]:
        ratio = rng.uniform(*self.scale)
        height, width = picture.shape[-2:]
        if self.base is not None:
            long, short = int(max(self.base) * ratio), int(min(self.base) * ratio)
            ratio = min(long / max(height, width), short / min(height, width))
        size = [max(int(side * ratio + 0.5), 1) for side in (height, width)]
        if size == [height, width]:
            return picture, mask
        # antialias off, as published: the original resizes through OpenCV; a Mask takes its nearest label
        return v2.resize(picture, size, antialias=False), v2.resize(mask, size)

    def _cropped(self, picture: Any, mask: Any, rng: np.random.Generator, v2: Any) -> tuple[Any, Any]:
        height, width = picture.shape[-2:]
        if not self.pad and (height < self.crop[0] or width < self.crop[1]):
            raise DataError(
                f"crop {self.crop[0]} x {self.crop[1]} is larger than the image, {height} x {width} (height x width) "
                f"after scaling; choose a smaller crop, a larger base or scale, or pad"
            )
        h, w = min(self.crop[0], height), min(self.crop[1], width)
        for attempt in range(CROP_TRIES + 1):
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            part = mask[top : top + h, left : left + w]
            if self.max_class_share == 1 or attempt == CROP_TRIES or self._is_mixed(part):
                break
        return v2.crop(picture, top, left, h, w), v2.crop(mask, top, left, h, w)

    def _is_mixed(self, part: Tensor) -> bool:
        """Whether at least two classes occur, and none fills `max_class_share` of the labelled pixels."""
        known = part.as_subclass(Tensor)
        counts = torch.bincount(known[known != self.ignore_index].flatten())
        return int((counts > 0).sum()) > 1 and int(counts.max()) / int(counts.sum()) < self.max_class_share


def distort(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Photometric distortion of (C, H, W) in 0 … 1, each step with probability one half.

    Brightness shifts by up to 32/255; contrast multiplies by 0.5 … 1.5, before or after the colours; saturation
    multiplies by 0.5 … 1.5 and hue turns by up to 18 of 180 steps, both in HSV (not for one channel).
    Source: mmseg's PhotoMetricDistortion; ours keeps fractions where the original rounds to whole levels at each step.
    """
    if rng.random() < 0.5:
        pixels = (pixels + rng.uniform(-32, 32) / 255).clamp(0, 1)
    first = rng.random() < 0.5
    if first:
        pixels = _contrast(pixels, rng)
    if pixels.shape[0] == 3:
        if rng.random() < 0.5:
            pixels = saturate(pixels, rng.uniform(0.5, 1.5))
        if rng.random() < 0.5:
            pixels = _torchvision()[1].adjust_hue(pixels, int(rng.integers(-18, 18)) / 180)
    return pixels if first else _contrast(pixels, rng)


def _contrast(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    return (pixels * rng.uniform(0.5, 1.5)).clamp(0, 1) if rng.random() < 0.5 else pixels


def saturate(pixels: Tensor, factor: float) -> Tensor:
    """Multiplies the S of HSV, H and V kept: (3, H, W) in 0 … 1.

    With V the largest channel, S = (V - smallest) / V: each channel's distance to V grows by the same factor, which
    ends where the smallest channel reaches 0 (S = 1).
    """
    value = pixels.amax(0)
    reach = value - pixels.amin(0)
    growth = torch.where(reach > 0, value / reach.clamp_min(1e-12), 1).clamp(max=factor) if factor > 1 else factor
    return value - (value - pixels) * growth


def generator(seed: int, *key: int) -> np.random.Generator:
    """The random numbers of one image at one place of a run, the same in every worker."""
    return np.random.default_rng([seed, *key])


class JointExample:
    """An augmented image (C, H, W) float32 with its label map (H, W) int64, drawn from (seed, key)."""

    def __init__(self, transform: JointTransform, *, seed: int) -> None:
        self.transform, self.seed = transform, seed

    def __call__(self, image: Image.Image, labels: np.ndarray, key: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        return self.transform(image, labels, generator(self.seed, *key))


def _torchvision() -> tuple[Any, Any]:
    try:
        from torchvision import tv_tensors
        from torchvision.transforms.v2 import functional
    except ImportError as error:
        raise MissingExtraError.of("torchvision", "train", "for training") from error
    return tv_tensors, functional
