"""What training does to images and labels, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import ConfigError
from ..checks import at_least, in_range, one_of, ordered

MIX_MODES = ("batch", "pair", "elem")


@dataclass(frozen=True, kw_only=True)
class AugmentSpec:
    """What training does to images and labels; a zero or None switches a step off.

    crop_scale: random-resized crop of this share of the area (timm's); None: the whole image as in evaluation.
    crop_ratio, crop_interpolation: of that crop (3/4 … 4/3, "random").
    rotate_degrees: turn by up to this angle either way.
    shift: move by up to this share of the side.
    zoom: range of a scale factor, e.g. 0.9 to 1.1.
    hflip, vflip: probability of a mirror image.
    auto_augment: policy in timm's notation: "rand-m9-mstd0.5-inc1", "augmix-m5-w4-d2", "original", "v0", "3a".
    color_jitter: strength of brightness, contrast and saturation changes; acts beside a policy too.
    erasing: probability of erasing rectangles.
    erasing_mode, erasing_count: what fills them ("const", "rand", "pixel"), and how many at most.
    repeats: repeated augmentation: every image comes so many times in a row, each augmented differently; an epoch keeps
    its length, so it sees a share of the images.
    splits: so many versions of every image in one batch, the first without policy and jitter; for loss.name jsd.
    erasing_spares_clean: leave the first split alone.
    mixup, cutmix: alpha of each.
    cutmix_minmax: range of the box's sides as shares of the image's, in place of alpha.
    mix_prob: share of batches that are mixed.
    switch_prob: share of CutMix among them when both are on.
    mix_mode: draw once per "batch", per "pair" of images or per image ("elem").
    mix_off_epoch: mixing ends after so many epochs; None: mix to the end.
    label_smoothing: share of the target given to all classes alike.
    """

    crop_scale: tuple[float, float] | None = (0.08, 1.0)
    crop_ratio: tuple[float, float] | None = None
    crop_interpolation: str | None = None
    rotate_degrees: float = 0.0
    shift: float = 0.0
    zoom: tuple[float, float] | None = None
    hflip: float = 0.5
    vflip: float = 0.0
    auto_augment: str | None = None
    color_jitter: float = 0.0
    erasing: float = 0.0
    erasing_mode: str = "pixel"
    erasing_count: int = 1
    repeats: int = 1
    splits: int = 1
    erasing_spares_clean: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0
    cutmix_minmax: tuple[float, float] | None = None
    mix_prob: float = 1.0
    switch_prob: float = 0.5
    mix_mode: str = "batch"
    mix_off_epoch: int | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("hflip", "vflip", "erasing", "mix_prob", "switch_prob"):
            in_range(f"augment.{name}", getattr(self, name), 0, 1)
        for name in ("mixup", "cutmix", "color_jitter", "rotate_degrees"):
            in_range(f"augment.{name}", getattr(self, name), 0, math.inf)
        for name in ("label_smoothing", "shift"):
            in_range(f"augment.{name}", getattr(self, name), 0, 0.999)
        for name in ("crop_scale", "crop_ratio", "zoom", "cutmix_minmax"):
            ordered(f"augment.{name}", getattr(self, name))
        for name in ("erasing_count", "repeats", "splits", "mix_off_epoch"):
            at_least(f"augment.{name}", getattr(self, name), 1)
        one_of("augment.erasing_mode", self.erasing_mode, ("const", "rand", "pixel"))
        one_of("augment.mix_mode", self.mix_mode, MIX_MODES)
        if self.crop_interpolation is not None:
            one_of("augment.crop_interpolation", self.crop_interpolation, ("random", "bilinear", "bicubic"))
        self._check_images()
        self._check_mixing()

    def _check_images(self) -> None:
        """Options of steps that are off, or that would make equal splits."""
        if self.crop_scale is None and (self.crop_ratio is not None or self.crop_interpolation is not None):
            raise ConfigError("augment.crop_ratio and crop_interpolation belong to the random crop; set crop_scale too")
        if not self.erasing and (self.erasing_count > 1 or self.erasing_mode != "pixel" or self.erasing_spares_clean):
            raise ConfigError("augment.erasing_mode, _count and _spares_clean need augment.erasing, e.g. 0.25")
        if self.splits == 1 and self.erasing_spares_clean:
            raise ConfigError("augment.erasing_spares_clean needs several versions of an image: set augment.splits 3")
        if self.splits > 1 and not (self.auto_augment or self.color_jitter or self.erasing):
            raise ConfigError(
                f"augment.splits {self.splits} would be equal copies; set augment.auto_augment, e.g. 'augmix-m5-w4-d2'"
            )

    def _check_mixing(self) -> None:
        """Options of mixing that is off, or of which one overrides another."""
        if not (self.mixup or self.cutmix or self.cutmix_minmax):
            if self.mix_mode != "batch" or self.mix_off_epoch is not None or self.mix_prob != 1:
                raise ConfigError(
                    "augment.mix_mode, mix_off_epoch and mix_prob belong to mixing; set augment.mixup or augment.cutmix"
                )
        elif self.splits > 1:
            raise ConfigError(
                "augment.splits compares versions of one image, Mixup and CutMix blend two; set mixup and cutmix to 0, "
                "or splits to 1"
            )
        if self.switch_prob != 0.5 and not (self.mixup and (self.cutmix or self.cutmix_minmax)):
            raise ConfigError("augment.switch_prob chooses between Mixup and CutMix; set both, or leave it out")
        if self.cutmix_minmax is not None and self.cutmix:
            raise ConfigError("augment.cutmix_minmax replaces augment.cutmix's alpha; set augment.cutmix 0")
        if self.cutmix_minmax is not None and not self.cutmix_minmax[0] < self.cutmix_minmax[1] <= 1:
            raise ConfigError(f"augment.cutmix_minmax is {self.cutmix_minmax}; expected shares such as (0.2, 0.8)")

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed, which makes targets soft."""
        return self.mix_prob > 0 and (self.mixup > 0 or self.cutmix > 0 or self.cutmix_minmax is not None)
