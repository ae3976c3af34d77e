"""What training does to images with objects, as data."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import ConfigError
from ..checks import MAX_SIDE, at_least, in_range, ordered


@dataclass(frozen=True, kw_only=True)
class ObjectAugmentSpec:
    """What training does to an image and its objects together, in this order.

    photometric: probability of distorting brightness, contrast, saturation and hue.
    zoom_out: probability of putting the image somewhere on a canvas of up to four times its sides.
    overlap_crop: probability of a random part in which an object keeps a drawn share of itself.
    short_sides: pixels of which one is drawn for an image's short side, the long one at most model.max_size; models
    that take squares: for the side of a whole batch. None: model.min_size alone.
    jitter: large-scale jitter: range of the random factor on top of the image fitted into augment.crop; None: none.
    crop: (height, width) in pixels of a random crop; smaller images stay as they are; None: the whole image.
    flip: probability of mirroring left to right.
    off_epoch: epochs from this one on, counted from 0, only resize and mirror; None: none.
    """

    photometric: float = 0.0
    zoom_out: float = 0.0
    overlap_crop: float = 0.0
    short_sides: tuple[int, ...] | None = None
    jitter: tuple[float, float] | None = None
    crop: tuple[int, int] | None = None
    flip: float = 0.5
    off_epoch: int | None = None

    def __post_init__(self) -> None:
        for name in ("photometric", "zoom_out", "overlap_crop", "flip"):
            in_range(f"augment.{name}", getattr(self, name), 0, 1)
        for side in self.short_sides or ():
            at_least("augment.short_sides", side, 1, MAX_SIDE)
        if self.short_sides == ():
            raise ConfigError("augment.short_sides is empty; expected sides in pixels, or null")
        if self.crop is not None:
            if len(self.crop) != 2:
                raise ConfigError(f"augment.crop is {self.crop}; expected (height, width) in pixels, e.g. (640, 640)")
            for side in self.crop:
                at_least("augment.crop", side, 1, MAX_SIDE)
        ordered("augment.jitter", self.jitter)
        at_least("augment.off_epoch", self.off_epoch, 1)
        if self.jitter is not None and self.crop is None:
            raise ConfigError("augment.jitter scales an image around the crop; give augment.crop, e.g. [640,640]")
        if self.jitter is not None and self.short_sides is not None:
            raise ConfigError(
                "augment.jitter and augment.short_sides scale an image in two ways; leave one of them out"
            )
