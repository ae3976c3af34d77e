"""Mask2Former for panoptic and for instance segmentation, with its options: pure data, stdlib only.

Source: arXiv 2202.09741, panoptic table (B2, B6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .backbone import VARIANTS
from .object_config import InstanceSegmenterConfig, ObjectConfig, PanopticSegmenterConfig


@dataclass(frozen=True, kw_only=True)
class Mask2FormerFields(ObjectConfig):
    """What both kinds have.

    queries: how many segments an image can have.
    """

    queries: int = 100

    @property
    def size_fields(self) -> tuple[str, ...]:
        """See ObjectConfig."""
        return (*super().size_fields, "queries")


@dataclass(frozen=True, kw_only=True)
class Mask2FormerConfig(Mask2FormerFields, PanopticSegmenterConfig):
    """One panoptic Mask2Former."""

    section: ClassVar[str] = "mask2former"
    prefix: ClassVar[str] = "mask2former"


@dataclass(frozen=True, kw_only=True)
class InstanceMask2FormerConfig(Mask2FormerFields, InstanceSegmenterConfig):
    """One Mask2Former that finds objects: "mask2former_instance_van_b2"."""

    section: ClassVar[str] = "mask2former_instance"
    prefix: ClassVar[str] = "mask2former_instance"


PANOPTIC_MASK2FORMERS: dict[str, Mask2FormerConfig] = {
    f"mask2former_{name}": Mask2FormerConfig(backbone=variant.with_options(num_classes=0))
    for name, variant in VARIANTS.items()
}
INSTANCE_MASK2FORMERS: dict[str, InstanceMask2FormerConfig] = {
    f"mask2former_instance_{name}": InstanceMask2FormerConfig(backbone=variant.with_options(num_classes=0))
    for name, variant in VARIANTS.items()
}
