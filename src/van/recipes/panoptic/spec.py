"""What training a panoptic segmenter is, as data: counted in epochs, checked on construction, stdlib only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...configs.mask2former import PANOPTIC_MASK2FORMERS
from ...configs.object_config import ObjectConfig
from ...errors import ConfigError
from ..coco.augment_spec import ObjectAugmentSpec
from ..coco.data_spec import ObjectDataSpec
from ..coco.mask2former_spec import Mask2FormerSpec
from ..coco.recipe import ObjectRecipe
from ..coco.training_spec import ObjectLossSpec, ObjectOptimSpec, ObjectScheduleSpec, ObjectTrainerSpec
from ..track_spec import TrackSpec

SCORES = tuple(f"{name}{part}" for part in ("", "_things", "_stuff") for name in ("PQ", "SQ", "RQ"))


@dataclass(frozen=True, kw_only=True)
class PanopticModelSpec(Mask2FormerSpec):
    """The network, and the weights it starts from.

    name: a panoptic segmenter of `van list`; None: the checkpoint's own.
    queries, hidden_size, mask_size, heads, encoder_layers, encoder_feed_forward, decoder_layers, feed_forward,
    class_weight, mask_weight, dice_weight, no_object_weight, train_points, oversample_ratio, importance_ratio,
    overlap_threshold: as in Mask2FormerConfig; None keeps what the model or the checkpoint has.
    """

    KNOWN: ClassVar[Mapping[str, ObjectConfig]] = PANOPTIC_MASK2FORMERS
    NOUN = "panoptic segmenter"
    EXAMPLE = "mask2former_van_b2"

    overlap_threshold: float | None = None


@dataclass(frozen=True, kw_only=True)
class PanopticDataSpec(ObjectDataSpec):
    """The images and their segments, and how they are read.

    path: "scenes", or a folder in COCO's panoptic layout (images, JSON and PNG) or its JSON file; must be given.
    """


@dataclass(frozen=True, kw_only=True)
class PanopticTrainerSpec(ObjectTrainerSpec):
    """How long, on what, and where the results go.

    monitor: score for best.ckpt and early stopping: "val/PQ" or another one in metrics.csv.
    """

    MONITORS: ClassVar[tuple[str, ...]] = tuple(f"val/{name}" for name in SCORES)

    monitor: str = "val/PQ"


@dataclass(frozen=True, kw_only=True)
class PanopticRecipe(ObjectRecipe):
    """Training of a panoptic segmenter, entirely."""

    task: ClassVar[str] = "panoptic"

    model: PanopticModelSpec = field(default_factory=PanopticModelSpec)
    data: PanopticDataSpec = field(default_factory=PanopticDataSpec)
    augment: ObjectAugmentSpec = field(default_factory=ObjectAugmentSpec)
    loss: ObjectLossSpec = field(default_factory=ObjectLossSpec)
    optim: ObjectOptimSpec = field(default_factory=ObjectOptimSpec)
    schedule: ObjectScheduleSpec = field(default_factory=ObjectScheduleSpec)
    trainer: PanopticTrainerSpec = field(default_factory=PanopticTrainerSpec)
    track: TrackSpec = field(default_factory=TrackSpec)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augment.overlap_crop:
            raise ConfigError(
                "augment.overlap_crop chooses parts by their objects, which a panoptic map has not; use augment.crop"
            )

    @staticmethod
    def score_text(summary: Mapping[str, Any]) -> str:
        """The score in a run's summary: `PQ 54.9%, SQ 82.0%, RQ 65.1%`."""
        return ", ".join(f"{name} {summary.get(f'val/{name}', math.nan):.1%}" for name in ("PQ", "SQ", "RQ"))
