"""Mask R-CNN and Cascade Mask R-CNN on the pyramid, with their options: pure data, stdlib only.

Source: arXiv 2202.09741, COCO tables (feature pyramid of 256 channels, images of 1333 x 800).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .backbone import VARIANTS
from .object_config import InstanceSegmenterConfig


@dataclass(frozen=True, kw_only=True)
class MaskRCNNConfig(InstanceSegmenterConfig):
    """One Mask R-CNN.

    channels: of the feature pyramid. smallest_anchor: side of the smallest anchors in pixels, on the finest map; they
    double from map to map.
    """

    section: ClassVar[str] = "mask_rcnn"
    prefix: ClassVar[str] = "mask_rcnn"

    channels: int = 256
    smallest_anchor: int = 32

    @property
    def size_fields(self) -> tuple[str, ...]:
        """See ObjectConfig."""
        return (*super().size_fields, "channels", "smallest_anchor")


@dataclass(frozen=True, kw_only=True)
class CascadeMaskRCNNConfig(MaskRCNNConfig):
    """One Cascade Mask R-CNN."""

    section: ClassVar[str] = "cascade_mask_rcnn"
    prefix: ClassVar[str] = "cascade_mask_rcnn"


MASK_RCNNS: dict[str, MaskRCNNConfig] = {
    f"{kind.prefix}_{name}": kind(backbone=variant.with_options(num_classes=0))
    for kind in (MaskRCNNConfig, CascadeMaskRCNNConfig)
    for name, variant in VARIANTS.items()
}
