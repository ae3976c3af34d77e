"""Mask R-CNN and Cascade Mask R-CNN on the pyramid, with their options: pure data, stdlib only.

Source: arXiv 2202.09741, COCO tables (feature pyramid of 256 channels, images of 1333 x 800); arXiv 1703.06870 (Mask
R-CNN), 1712.00726 (cascade).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import ConfigError
from .backbone import VARIANTS, check_number
from .object_config import InstanceSegmenterConfig

_MOST_STAGES = 8


@dataclass(frozen=True, kw_only=True)
class MaskRCNNConfig(InstanceSegmenterConfig):
    """One Mask R-CNN.

    channels: of the feature pyramid. smallest_anchor: side of the smallest anchors in pixels, on the finest map; they
    double from map to map.
    proposals: boxes per image that go to the box head. hidden_channels: width of the box head's two linear layers.
    mask_channels: of the mask head's convolutions.
    rpn_samples, box_samples: anchors and proposals per image whose losses are taken, drawn at random where there are
    more.
    nms_threshold: overlap from which of two boxes of a class only the surer is kept.
    """

    section: ClassVar[str] = "mask_rcnn"
    prefix: ClassVar[str] = "mask_rcnn"
    not_exported: ClassVar[str] = (
        "how many objects its later layers see depends on what the earlier ones find, which no exported graph of this "
        "package can hold; run the checkpoint itself, or export a retinanet, atss, gfl or dfine model"
    )
    selects: ClassVar[bool] = True

    channels: int = 256
    smallest_anchor: int = 32
    proposals: int = 1000
    hidden_channels: int = 1024
    mask_channels: int = 256
    rpn_samples: int = 256
    box_samples: int = 512
    nms_threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("nms_threshold", self.nms_threshold, whole=False)
        if not 0 < self.nms_threshold <= 1:
            raise ConfigError(f"nms_threshold is {self.nms_threshold}; expected an overlap in (0, 1]")

    @property
    def size_fields(self) -> tuple[str, ...]:
        """See ObjectConfig."""
        own = ("channels", "smallest_anchor", "proposals", "hidden_channels", "mask_channels")
        return (*super().size_fields, *own, "rpn_samples", "box_samples")


@dataclass(frozen=True, kw_only=True)
class CascadeMaskRCNNConfig(MaskRCNNConfig):
    """One Cascade Mask R-CNN.

    stage_ious: of each stage's box head, the overlap with an object from which a box counts as one of it.
    """

    section: ClassVar[str] = "cascade_mask_rcnn"
    prefix: ClassVar[str] = "cascade_mask_rcnn"

    stage_ious: tuple[float, ...] = (0.5, 0.6, 0.7)

    def __post_init__(self) -> None:
        if isinstance(self.stage_ious, list):
            object.__setattr__(self, "stage_ious", tuple(self.stage_ious))
        super().__post_init__()
        if not isinstance(self.stage_ious, tuple) or not 1 <= len(self.stage_ious) <= _MOST_STAGES:
            raise ConfigError(f"stage_ious is {self.stage_ious!r:.80}; expected 1 to {_MOST_STAGES} overlaps")
        for value in self.stage_ious:
            check_number("stage_ious", value, whole=False)
            if not 0 < value < 1:
                raise ConfigError(f"stage_ious is {self.stage_ious!r:.80}; expected overlaps between 0 and 1")


MASK_RCNNS: dict[str, MaskRCNNConfig] = {
    f"{kind.prefix}_{name}": kind(backbone=variant.with_options(num_classes=0))
    for kind in (MaskRCNNConfig, CascadeMaskRCNNConfig)
    for name, variant in VARIANTS.items()
}
