"""How a segmenter is applied to a picture: sizes, scales, windows; as published, as trained, as asked for.

Source: the test pipeline of the VAN segmentation code (MMSegmentation 0.2x): ResizeToMultiple, slide, aug_test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...configs.backbone import check_number
from ...configs.segmenter import SIZE_DIVISORS
from ...errors import ConfigError
from ...images.preprocess import IMAGENET, Preprocess
from ...images.resize import fit_within

# The fields of Inference that training writes into a checkpoint.
RECORDED = ("resize", "window", "stride", "size_divisor")

PUBLISHED_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

MOST = 2**16  # of a side in pixels, and of any factor
# Pictures too large for one piece are cut into these; 512 is the crop that every published segmenter learned from.
LARGE_WINDOW, LARGE_STRIDE = 512, 384


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How a segmenter is applied to a picture. The default is the published single-scale test on ADE20K.

    Fields are checked on construction; impossible ones raise ConfigError.

    resize: (longest, shortest) side in pixels that the picture is scaled into, its shape kept; None: as it is.
    scales: factors on that size; the probabilities of all views are averaged.
    flip: every scale also mirrored.
    window, stride: square windows of `window` pixels every `stride` pixels, their logits averaged; stride defaults
        to two thirds of the window. None: the whole picture at once.
    size_divisor: sides are rounded up to a multiple by stretching the picture, not by padding it; 1: left alone, as in
        HamNet's published test.
    mean, std: per channel, on the 0 … 1 scale.
    whole_limit_pixels: with neither `window` nor `resize`, larger pictures are cut into windows and a VanNotice says
        so; None: never.
    band_bytes: size of one band of logits at the picture's size; a few of them are alive at a time.
    """

    resize: tuple[int, int] | None = (2048, 512)
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: int | None = None
    stride: int | None = None
    size_divisor: int = 32
    mean: tuple[float, ...] = IMAGENET.mean
    std: tuple[float, ...] = IMAGENET.std
    whole_limit_pixels: int | None = 2**21
    band_bytes: int = 2**24

    def __post_init__(self) -> None:
        for name in ("scales", "mean", "std"):
            object.__setattr__(self, name, tuple(map(float, self._numbers(name, whole=False))))
        if self.resize is not None:
            object.__setattr__(self, "resize", tuple(map(int, self._numbers("resize", whole=True))))
        for name in ("window", "stride", "size_divisor", "whole_limit_pixels", "band_bytes"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), whole=True)
                object.__setattr__(self, name, int(getattr(self, name)))
        self._check()

    def _numbers(self, name: str, *, whole: bool) -> Sequence[Any]:
        """The values of a field with several; raises ConfigError for what is none."""
        values = getattr(self, name)
        if not isinstance(values, list | tuple):
            raise ConfigError(f"{name} is {values!r:.80}; expected several numbers")
        for value in values:
            check_number(name, value, whole=whole)
            if abs(value) > MOST:
                raise ConfigError(f"{name} is {values!r:.80}; no picture is that large")
        return values

    def _check(self) -> None:
        if self.resize is not None and (len(self.resize) != 2 or min(self.resize) < 1):
            raise ConfigError(f"resize is {self.resize}; expected (longest, shortest) side in pixels, e.g. (2048, 512)")
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise ConfigError(f"scales is {self.scales}; expected positive factors, e.g. (0.5, 1.0, 1.5)")
        if self.window is not None and not 1 <= self.window <= MOST:
            raise ConfigError(f"window is {self.window}; expected a side in pixels, e.g. 512")
        if self.stride is not None and self.window is None:
            raise ConfigError(f"stride is {self.stride} without a window; set window too, e.g. 512")
        if self.stride is not None and self.window is not None and not 1 <= self.stride <= self.window:
            raise ConfigError(
                f"stride is {self.stride}; expected 1 to {self.window}, the window, or pixels would be left out"
            )
        divisor = self.size_divisor
        if isinstance(divisor, bool) or not isinstance(divisor, int) or not 1 <= divisor <= MOST:
            raise ConfigError(f"size_divisor is {divisor!r:.80}; expected a whole number, e.g. 32, or 1 for none")
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3) or min(self.std) <= 0:
            raise ConfigError(
                f"mean is {self.mean}, std is {self.std}; expected three entries each or one each, std positive"
            )
        if self.band_bytes < 1 or (self.whole_limit_pixels is not None and self.whole_limit_pixels < 1):
            raise ConfigError(
                f"band_bytes is {self.band_bytes}, whole_limit_pixels {self.whole_limit_pixels}; expected positive"
            )

    @property
    def views(self) -> tuple[tuple[float, bool], ...]:
        """(scale, mirrored) of every view, in the order in which they are added up."""
        return tuple((scale, mirrored) for scale in self.scales for mirrored in (False, True)[: 1 + self.flip])

    def size(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        """(H, W) of a picture before rounding to the divisor, for one of the scales."""
        limits = (width, height) if self.resize is None else self.resize
        return fit_within(height, width, int(max(limits) * scale), int(min(limits) * scale))

    def windows(self, height: int, width: int) -> tuple[int, int] | None:
        """(window, stride) for a picture of this size, or None for the whole at once."""
        if self.window is not None:
            return self.window, self.stride or max(1, self.window * 2 // 3)
        if self.resize is not None or self.whole_limit_pixels is None or height * width <= self.whole_limit_pixels:
            return None
        return LARGE_WINDOW, LARGE_STRIDE


PUBLISHED = Inference()
PUBLISHED_MULTI_SCALE = Inference(scales=PUBLISHED_SCALES, flip=True)


def inference_of(
    preprocess: Preprocess, provenance: Mapping[str, Any], overrides: Mapping[str, Any], *, method: str
) -> Inference:
    """How a segmenter is applied: as its method is published, as its training wrote down, then the overrides.

    method: of configs.segmenter.METHODS.
    """
    own = provenance.get("inference") or {}
    # a record without a divisor is of a version that knew one for all methods
    known: dict[str, Any] = {"size_divisor": Inference.size_divisor if own else SIZE_DIVISORS[method]}
    known |= {name: own[name] for name in RECORDED if name in own}
    if "window" in overrides:  # another window has another stride
        known.pop("stride", None)
    return replace(Inference(mean=preprocess.mean, std=preprocess.std), **{**known, **overrides})
