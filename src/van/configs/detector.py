"""The detectors on the pyramid and the options of their heads: pure data, stdlib only.

Source: arXiv 2202.09741, COCO tables (RetinaNet and Mask R-CNN, feature pyramid of 256 channels, images of 1333 x 800).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import ConfigError, UnknownNameError
from .backbone import VARIANTS, VanConfig
from .head_config import HeadConfig

# Method -> stages of the backbone whose maps its feature pyramid takes.
METHODS: dict[str, tuple[int, ...]] = {"retinanet": (1, 2, 3), "mask_rcnn": (0, 1, 2, 3)}


@dataclass(frozen=True, kw_only=True)
class DetectorConfig(HeadConfig):
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

    task: ClassVar[str] = "detection"
    noun: ClassVar[str] = "detector"
    section: ClassVar[str] = "detector"
    created_only: ClassVar[str] = (
        "it can be created with van.create_model, and trained and run with torchvision's tools; this package cannot "
        "save, load, predict with, evaluate or export it yet. Save its weights with "
        "torch.save(model.state_dict(), FILE)"
    )

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

    @property
    def name(self) -> str:
        """Name of the detector of this method and size of backbone."""
        return f"{self.method}_{self.backbone.name}"


# torchvision's own limits
_DETECTIONS = {"retinanet": 300, "mask_rcnn": 100}

DETECTORS: dict[str, DetectorConfig] = {
    f"{method}_{name}": DetectorConfig(
        backbone=variant.with_options(num_classes=0), method=method, detections_per_image=_DETECTIONS[method]
    )
    for method in METHODS
    for name, variant in VARIANTS.items()
}
