"""Options of models that find objects: how large images are, at what they are seen, which objects count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...configs.object_config import ObjectConfig
from ...errors import ConfigError
from .. import base
from ..options import OWN, Own, numbers, option, side_or_sides
from .scales import Views

OBJECTS = "detectors and instance segmenters (default: the model's own)"
SIZES = "detectors, instance and panoptic segmenters (default: the model's own)"
OUTPUT = "detectors, instance and panoptic segmenters"


def _scales(text: str) -> tuple[float, ...]:
    return numbers(text, "--scales", "factors with commas, as 0.5,1,1.5")


@dataclass(frozen=True, kw_only=True)
class SizeOptions:
    """size: of the short side that images are resized to, or of the short and the long one."""

    size: int | tuple[int, int] | None = option(
        None,
        "short side of the image in pixels, 800, or short and long side, 800x1333",
        parse=side_or_sides,
        group=SIZES,
    )


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """opacity: of masks over a picture, 0 … 1."""

    opacity: float = option(0.5, "of masks over a picture, 0 … 1", kind=float, group=OUTPUT)

    def __post_init__(self) -> None:
        if not 0 <= self.opacity <= 1:
            raise ConfigError(f"--opacity is {self.opacity}; expected 0 (picture) to 1 (colours)")


@dataclass(frozen=True, kw_only=True)
class ObjectOptions(SizeOptions):
    """What objects are found with.

    scales, flip: views of the image; what is found in all of them goes through non-maximum suppression.
    score_threshold, max_detections: objects at or above it, and at most so many in an image.
    """

    scales: Sequence[float] | Own = option(
        OWN, "join what is found at these scales: 0.75,1,1.25", parse=_scales, group=OBJECTS
    )
    flip: bool | Own = option(OWN, "join with what is found in mirrored views", kind=bool, group=OBJECTS)
    score_threshold: float | None = option(
        None,
        "leave out less sure objects, 0 … 1; pictures show those from 0.3 unless it is given",
        kind=float,
        group=OBJECTS,
    )
    max_detections: int | None = option(None, "most objects of an image", kind=int, group=OBJECTS)

    def __post_init__(self) -> None:
        if self.score_threshold is not None and not 0 <= self.score_threshold < 1:
            raise ConfigError(f"score_threshold is {self.score_threshold}; expected a probability in [0, 1)")
        if self.max_detections is not None and self.max_detections < 1:
            raise ConfigError(f"max_detections is {self.max_detections}; expected at least 1")
        _ = self.views  # raises

    def applied(self, config: ObjectConfig) -> ObjectConfig:
        """A model's configuration with what these options override of it; raises ConfigError for what cannot be."""
        least, most = config.score_threshold, config.detections_per_image
        if config.selects and self.score_threshold is not None and self.score_threshold < least:
            raise ConfigError(
                f"score_threshold is {self.score_threshold}, but the network itself leaves out what is below {least}; "
                "give a larger one"
            )
        if config.selects and self.max_detections is not None and self.max_detections > most:
            raise ConfigError(
                f"max_detections is {self.max_detections}, but the network itself gives {most} at most; give fewer"
            )
        given: dict[str, Any] = {"score_threshold": self.score_threshold, "detections_per_image": self.max_detections}
        return replace(config, **{name: value for name, value in given.items() if value is not None})

    @property
    def views(self) -> Views:
        """At what an image is seen; raises ConfigError for scales that cannot be."""
        scales = (1.0,) if self.scales is OWN else tuple(self.scales)
        return Views(scales=scales, flip=self.flip is True)


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ObjectOptions, PictureOptions):
    """Options of prediction."""

    def __post_init__(self) -> None:
        ObjectOptions.__post_init__(self)
        PictureOptions.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class EvalOptions(ObjectOptions, base.EvalOptions):
    """Options of evaluation. out: folder for the results in COCO's formats."""

    out: str | None = option(None, "folder: results in COCO's formats: bbox.json, segm.json", group=OUTPUT, single=True)
