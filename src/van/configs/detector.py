"""The detectors on the pyramid and the options of their heads: pure data, stdlib only.

Source: arXiv 2202.09741, COCO tables (RetinaNet and Mask R-CNN, feature pyramid of 256 channels, images of 1333 x 800).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ..errors import ConfigError, UnknownNameError, UnknownOptionError
from .backbone import ALIASES, VARIANTS, VanConfig

# Method -> stages of the backbone whose maps its feature pyramid takes.
METHODS: dict[str, tuple[int, ...]] = {"retinanet": (1, 2, 3), "mask_rcnn": (0, 1, 2, 3)}


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """One detector: a backbone, a method, and what images and boxes look like.

    Fields are checked on construction; impossible ones raise ConfigError.

    backbone: its `num_classes` is 0; `num_classes` of the detector is below.
    method: a key of METHODS.
    num_classes: kinds of objects, background not counted; labels are 1 … num_classes, as torchvision has them.
    channels: of the feature pyramid.
    min_size, max_size: images are resized to a short side of `min_size` unless the long one would pass `max_size`.
    mean, std: of the images on the 0 … 1 scale.
    smallest_anchor: side of the smallest anchors in pixels, on the finest map; they double from map to map.
    score_threshold, detections_per_image: of what inference returns.
    """

    backbone: VanConfig
    method: str
    num_classes: int = 80
    channels: int = 256
    min_size: int = 800
    max_size: int = 1333
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    smallest_anchor: int = 32
    score_threshold: float = 0.05
    detections_per_image: int = 100

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UnknownNameError.of("detection method", self.method, METHODS)
        if self.backbone.num_stages != 4:
            raise ConfigError(f"the backbone has {self.backbone.num_stages} stages; a detector needs 4")
        for name in ("num_classes", "channels", "min_size", "smallest_anchor", "detections_per_image"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.max_size < self.min_size:
            raise ConfigError(f"max_size is {self.max_size}, below min_size {self.min_size}; give both")
        if not len(self.mean) == len(self.std) == self.backbone.in_chans:
            raise ConfigError(
                f"mean is {self.mean}, std is {self.std}; expected {self.backbone.in_chans} entries each, "
                "one per channel of the images"
            )
        if not 0 <= self.score_threshold < 1:
            raise ConfigError(f"score_threshold is {self.score_threshold}; expected a probability in [0, 1)")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready dict of every field, the backbone nested."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        own = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
        return own | {"backbone": self.backbone.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DetectorConfig:
        """Inverse of `to_dict`; an unknown key raises UnknownNameError."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise UnknownOptionError.of("detector option", name, known)
        told: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**{**told, "backbone": VanConfig.from_dict(values["backbone"])})

    def with_options(self, **options: Any) -> DetectorConfig:
        """A copy with fields replaced; names of VanConfig's fields go to the backbone."""
        own = {field.name for field in fields(self)}
        mine = {name: value for name, value in options.items() if name in own}
        backbone = {name: value for name, value in options.items() if name not in own}
        mine.setdefault("backbone", self.backbone.with_options(**backbone))
        return replace(self, **mine)


# torchvision's own limits
_DETECTIONS = {"retinanet": 300, "mask_rcnn": 100}

DETECTORS: dict[str, DetectorConfig] = {
    f"{method}_{name}": DetectorConfig(
        backbone=variant.with_options(num_classes=0), method=method, detections_per_image=_DETECTIONS[method]
    )
    for method in METHODS
    for name, variant in VARIANTS.items()
}


def resolve(name: str) -> str:
    """Canonical detector name of `name` (aliases and dashes allowed); raises UnknownNameError."""
    key = name.lower().replace("-", "_")
    for alias, variant in ALIASES.items():
        key = f"{key.removesuffix(alias)}{variant}" if key.endswith(f"_{alias}") else key
    if key not in DETECTORS:
        raise UnknownNameError.of("detector", name, DETECTORS)
    return key


def is_detector(model: Any) -> bool:
    """Whether a model, or a name, is a detector's; anything may be asked about."""
    if isinstance(model, str):
        try:
            return bool(resolve(model))
        except UnknownNameError:
            return False
    return isinstance(getattr(model, "config", None), DetectorConfig)


def only_created(model: Any) -> str:
    """What can be done with a detector (a model or its name) until there is more, for an error."""
    name = model if isinstance(model, str) else f"this {type(model).__name__}"
    return (
        f"{name} is a detector: van.create_model makes it and torchvision's tools train and run it; saving, loading, "
        "prediction, evaluation and export by this package come with the detection task. Keep its weights with "
        "torch.save(model.state_dict(), FILE)"
    )
