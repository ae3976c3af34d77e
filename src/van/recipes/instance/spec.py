"""What training an instance segmenter is, as data: counted in epochs, checked on construction, stdlib only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...configs.mask2former import INSTANCE_MASK2FORMERS
from ...configs.mask_rcnn import MASK_RCNNS
from ...configs.object_config import ObjectConfig
from ..coco.augment_spec import ObjectAugmentSpec
from ..coco.data_spec import SampledDataSpec
from ..coco.mask2former_spec import Mask2FormerSpec
from ..coco.recipe import ObjectRecipe
from ..coco.training_spec import BOX_SCORES, ObjectLossSpec, ObjectOptimSpec, ObjectScheduleSpec, ObjectTrainerSpec
from ..track_spec import TrackSpec


@dataclass(frozen=True, kw_only=True)
class InstanceModelSpec(Mask2FormerSpec):
    """The network, and the weights it starts from.

    name: an instance segmenter of `van list`; None: the checkpoint's own.
    channels, smallest_anchor, proposals, hidden_channels, mask_channels, rpn_samples, box_samples, nms_threshold,
    stage_ious: as in MaskRCNNConfig and CascadeMaskRCNNConfig; None keeps what the model or the checkpoint has.
    queries, hidden_size, mask_size, heads, encoder_layers, encoder_feed_forward, decoder_layers, feed_forward,
    class_weight, mask_weight, dice_weight, no_object_weight, train_points, oversample_ratio, importance_ratio:
    as in InstanceMask2FormerConfig; None keeps what the model or the checkpoint has.
    """

    KNOWN: ClassVar[Mapping[str, ObjectConfig]] = {**MASK_RCNNS, **INSTANCE_MASK2FORMERS}
    NOUN = "instance segmenter"
    EXAMPLE = "mask_rcnn_van_b0"

    channels: int | None = None
    smallest_anchor: int | None = None
    proposals: int | None = None
    hidden_channels: int | None = None
    mask_channels: int | None = None
    rpn_samples: int | None = None
    box_samples: int | None = None
    nms_threshold: float | None = None
    stage_ious: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class InstanceDataSpec(SampledDataSpec):
    """The images and their objects with masks, and how they are read.

    path: "scenes", a COCO folder or JSON file, or a YOLO folder with polygons or its yaml file; must be given.
    """


@dataclass(frozen=True, kw_only=True)
class InstanceTrainerSpec(ObjectTrainerSpec):
    """How long, on what, and where the results go."""

    MONITORS: ClassVar[tuple[str, ...]] = (
        *(f"val/{name}" for name in BOX_SCORES),
        *(f"val/mask/{name}" for name in BOX_SCORES),
    )

    monitor: str = "val/mask/AP"


@dataclass(frozen=True, kw_only=True)
class InstanceRecipe(ObjectRecipe):
    """Training of an instance segmenter, entirely."""

    task: ClassVar[str] = "instance"

    model: InstanceModelSpec = field(default_factory=InstanceModelSpec)
    data: InstanceDataSpec = field(default_factory=InstanceDataSpec)
    augment: ObjectAugmentSpec = field(default_factory=ObjectAugmentSpec)
    loss: ObjectLossSpec = field(default_factory=ObjectLossSpec)
    optim: ObjectOptimSpec = field(default_factory=ObjectOptimSpec)
    schedule: ObjectScheduleSpec = field(default_factory=ObjectScheduleSpec)
    trainer: InstanceTrainerSpec = field(default_factory=InstanceTrainerSpec)
    track: TrackSpec = field(default_factory=TrackSpec)

    @staticmethod
    def score_text(summary: Mapping[str, Any]) -> str:
        """The score in a run's summary: `AP 41.2%, mask AP 37.6%, mask AP50 58.0%`."""
        names = ("AP", "mask/AP", "mask/AP50")
        return ", ".join(f"{name.replace('/', ' ')} {summary.get(f'val/{name}', math.nan):.1%}" for name in names)
