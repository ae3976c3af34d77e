"""Mask2Former for panoptic and for instance segmentation, with its options: pure data, stdlib only.

Source: arXiv 2202.09741, panoptic table (B2, B6); sizes and weights of losses: arXiv 2112.01527, sections 3 and 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import ConfigError
from .backbone import VARIANTS, check_number
from .object_config import InstanceSegmenterConfig, ObjectConfig, PanopticSegmenterConfig

_SIZES = (
    *("queries", "hidden_size", "mask_size", "heads", "encoder_layers", "decoder_layers"),
    *("encoder_feed_forward", "feed_forward", "train_points"),
)
_WEIGHTS = ("class_weight", "mask_weight", "dice_weight", "no_object_weight")
GROUPS = 32  # of the pixel decoder's GroupNorms


@dataclass(frozen=True, kw_only=True)
class Mask2FormerFields(ObjectConfig):
    """What both kinds have; the defaults are the published ones.

    queries: how many segments an image can have.
    hidden_size: width of both decoders and of the queries. mask_size: channels of the map that masks are read from.
    heads: of every attention.
    encoder_layers, encoder_feed_forward: layers of the pixel decoder, and the width inside of them.
    decoder_layers, feed_forward: layers of the transformer decoder, and the width inside of them.
    class_weight, mask_weight, dice_weight: of the losses, and of the costs by which queries and segments are matched.
    no_object_weight: of queries without a segment, in the class loss.
    train_points: how many points of a mask the losses see, of which `importance_ratio` lie where the prediction is
    least sure, out of `oversample_ratio` times as many random ones.
    """

    not_exported: ClassVar[str] = (
        "graphs of its masked attention are not offered by this package; run the checkpoint itself, or export a "
        "segmenter such as light_ham_van_b0"
    )

    queries: int = 100
    hidden_size: int = 256
    mask_size: int = 256
    heads: int = 8
    encoder_layers: int = 6
    encoder_feed_forward: int = 1024
    decoder_layers: int = 9
    feed_forward: int = 2048
    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    no_object_weight: float = 0.1
    train_points: int = 12544
    oversample_ratio: float = 3.0
    importance_ratio: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        for divisor, what in ((GROUPS, "its GroupNorms need"), (self.heads, "its heads need")):
            if self.hidden_size % divisor:
                raise ConfigError(f"hidden_size is {self.hidden_size}; {what} a multiple of {divisor}")
        for name in (*_WEIGHTS, "oversample_ratio", "importance_ratio"):
            check_number(name, getattr(self, name), whole=False)
        for name in _WEIGHTS:
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if not self.class_weight + self.mask_weight + self.dice_weight:
            raise ConfigError("class_weight, mask_weight and dice_weight are 0; at least one must be above")
        if not 1 <= self.oversample_ratio <= 64:
            raise ConfigError(f"oversample_ratio is {self.oversample_ratio}; expected 1 to 64")
        if not 0 <= self.importance_ratio <= 1:
            raise ConfigError(f"importance_ratio is {self.importance_ratio}; expected 0 to 1")

    @property
    def size_fields(self) -> tuple[str, ...]:
        """See ObjectConfig."""
        return (*super().size_fields, *_SIZES)


@dataclass(frozen=True, kw_only=True)
class Mask2FormerConfig(PanopticSegmenterConfig, Mask2FormerFields):
    """One panoptic Mask2Former.

    score_threshold: queries whose class is surer than this compete for the pixels.
    overlap_threshold: a segment stays where it won at least this share of its mask from the others.
    """

    section: ClassVar[str] = "mask2former"
    prefix: ClassVar[str] = "mask2former"

    score_threshold: float = 0.8
    overlap_threshold: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("overlap_threshold", self.overlap_threshold, whole=False)
        if not 0 <= self.overlap_threshold <= 1:
            raise ConfigError(f"overlap_threshold is {self.overlap_threshold}; expected 0 to 1")


@dataclass(frozen=True, kw_only=True)
class InstanceMask2FormerConfig(InstanceSegmenterConfig, Mask2FormerFields):
    """One Mask2Former that finds objects: "mask2former_instance_van_b2".

    score_threshold: of class score times mask quality; as published there is none.
    """

    section: ClassVar[str] = "mask2former_instance"
    prefix: ClassVar[str] = "mask2former_instance"

    score_threshold: float = 0.0


PANOPTIC_MASK2FORMERS: dict[str, Mask2FormerConfig] = {
    f"mask2former_{name}": Mask2FormerConfig(backbone=variant.with_options(num_classes=0))
    for name, variant in VARIANTS.items()
}
INSTANCE_MASK2FORMERS: dict[str, InstanceMask2FormerConfig] = {
    f"mask2former_instance_{name}": InstanceMask2FormerConfig(backbone=variant.with_options(num_classes=0))
    for name, variant in VARIANTS.items()
}
