"""RetinaNet on the pyramid, with its options: pure data, stdlib only.

Source: arXiv 2202.09741, COCO tables (feature pyramid of 256 channels, images of 1333 x 800).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .backbone import VARIANTS
from .object_config import DetectorConfig


@dataclass(frozen=True, kw_only=True)
class RetinaNetConfig(DetectorConfig):
    """One RetinaNet.

    channels: of the feature pyramid. smallest_anchor: side of the smallest anchors in pixels, on the finest map; they
    double from map to map.
    """

    section: ClassVar[str] = "retinanet"
    prefix: ClassVar[str] = "retinanet"

    channels: int = 256
    smallest_anchor: int = 32
    detections_per_image: int = 300

    @property
    def size_fields(self) -> tuple[str, ...]:
        """See ObjectConfig."""
        return (*super().size_fields, "channels", "smallest_anchor")


RETINANETS: dict[str, RetinaNetConfig] = {
    f"retinanet_{name}": RetinaNetConfig(backbone=variant.with_options(num_classes=0))
    for name, variant in VARIANTS.items()
}
