"""The one-stage detectors on the pyramid, RetinaNet, ATSS and GFL, with their options: pure data, stdlib only.

Source: arXiv 2202.09741, COCO tables (feature pyramid of 256 channels, images of 1333 x 800); arXiv 1708.02002
(RetinaNet), 1912.02424 (ATSS), 2006.04388 (GFL).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ConfigError, UnknownNameError
from .backbone import VARIANTS, check_number
from .object_config import DetectorConfig

ASSIGNMENTS = ("iou", "atss")
LOSSES = ("focal", "gfl")
HEAD_CONVS = 4


@dataclass(frozen=True, kw_only=True)
class RetinaNetConfig(DetectorConfig):
    """One one-stage detector: RetinaNet, or with its options ATSS or GFL.

    channels: of the feature pyramid. smallest_anchor: side of the smallest anchors in pixels, on the finest map; they
    double from map to map. head_convs: 3x3 convolutions before each output of the heads, 1 to 4.
    assignment: which anchors learn which objects. "iou": by fixed overlaps, with nine anchors per place and heads
    without norms, as RetinaNet. "atss": by the mean and spread of the overlaps of the nearest, with one anchor per
    place and group norm in the heads.
    loss: "focal" (with "atss": also a predicted centerness), or "gfl": quality focal loss, and distributions for the
    sides of the boxes; it needs "atss".
    nms_threshold: overlap from which of two boxes of a class only the surer is kept.
    """

    section: ClassVar[str] = "retinanet"
    prefix: ClassVar[str] = "retinanet"

    channels: int = 256
    smallest_anchor: int = 32
    head_convs: int = 4
    assignment: str = "iou"
    loss: str = "focal"
    nms_threshold: float = 0.5
    detections_per_image: int = 300

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_convs > HEAD_CONVS:
            raise ConfigError(f"head_convs is {self.head_convs}; expected 1 to {HEAD_CONVS}")
        for name, value, known in (("assignment", self.assignment, ASSIGNMENTS), ("loss", self.loss, LOSSES)):
            if value not in known:
                raise UnknownNameError.of(name, str(value), known)
        if self.loss == "gfl" and self.assignment != "atss":
            raise ConfigError(f"loss 'gfl' needs assignment 'atss'; it is {self.assignment!r}")
        check_number("nms_threshold", self.nms_threshold, whole=False)
        if not 0 < self.nms_threshold <= 1:
            raise ConfigError(f"nms_threshold is {self.nms_threshold}; expected an overlap in (0, 1]")

    @property
    def size_fields(self) -> tuple[str, ...]:
        """See ObjectConfig."""
        return (*super().size_fields, "channels", "smallest_anchor", "head_convs")

    @property
    def method(self) -> str:
        """ "retinanet", "atss" or "gfl"."""
        if self.loss == "gfl":
            return "gfl"
        return "atss" if self.assignment == "atss" else self.prefix

    @property
    def name(self) -> str:
        """See ObjectConfig.name; the method is that of the options."""
        return super().name.replace(self.prefix, self.method, 1)


# Boxes of 8 strides, one per place; overlaps and numbers of detections as published.
_ATSS: dict[str, Any] = {
    "assignment": "atss",
    "smallest_anchor": 64,
    "nms_threshold": 0.6,
    "detections_per_image": 100,
}
_METHODS: dict[str, dict[str, Any]] = {"retinanet": {}, "atss": _ATSS, "gfl": {**_ATSS, "loss": "gfl"}}

RETINANETS: dict[str, RetinaNetConfig] = {
    f"{method}_{name}": RetinaNetConfig(backbone=variant.with_options(num_classes=0), **options)
    for method, options in _METHODS.items()
    for name, variant in VARIANTS.items()
}
