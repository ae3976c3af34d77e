"""What training a detector is, as data: counted in epochs, checked on construction, stdlib only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...configs.dfine import DFINES
from ...configs.object_config import ObjectConfig
from ...configs.retinanet import RETINANETS
from ..coco.augment_spec import ObjectAugmentSpec
from ..coco.data_spec import SampledDataSpec
from ..coco.model_spec import ObjectModelSpec
from ..coco.recipe import ObjectRecipe
from ..coco.training_spec import BOX_SCORES, ObjectLossSpec, ObjectOptimSpec, ObjectScheduleSpec, ObjectTrainerSpec
from ..track_spec import TrackSpec


@dataclass(frozen=True, kw_only=True)
class DetectorModelSpec(ObjectModelSpec):
    """The network, and the weights it starts from.

    name: a detector of `van list`; None: the checkpoint's own.
    channels, smallest_anchor, head_convs, assignment, loss, nms_threshold: as in RetinaNetConfig; None keeps what the
    detector or the checkpoint has.
    encoder_channels, encoder_feed_forward, encoder_layers, depth_multiplier, expansion, hidden_size, feed_forward,
    decoder_layers, heads, points, queries, bins, regression_scale, regression_limit, quality_hidden,
    denoising_queries, label_noise, box_noise: as in DFineConfig; None keeps what the detector or the checkpoint has.
    """

    KNOWN: ClassVar[Mapping[str, ObjectConfig]] = {**RETINANETS, **DFINES}
    NOUN = "detector"
    EXAMPLE = "retinanet_van_b0"

    channels: int | None = None
    smallest_anchor: int | None = None
    head_convs: int | None = None
    assignment: str | None = None
    loss: str | None = None
    nms_threshold: float | None = None
    encoder_channels: int | None = None
    encoder_feed_forward: int | None = None
    encoder_layers: int | None = None
    depth_multiplier: float | None = None
    expansion: float | None = None
    hidden_size: int | None = None
    feed_forward: int | None = None
    decoder_layers: int | None = None
    heads: int | None = None
    points: tuple[int, ...] | None = None
    queries: int | None = None
    bins: int | None = None
    regression_scale: float | None = None
    regression_limit: float | None = None
    quality_hidden: int | None = None
    denoising_queries: int | None = None
    label_noise: float | None = None
    box_noise: float | None = None


@dataclass(frozen=True, kw_only=True)
class DetectionDataSpec(SampledDataSpec):
    """The images and their boxes, and how they are read.

    path: "scenes", a COCO folder or JSON file, or a YOLO folder or its yaml file; must be given.
    """


@dataclass(frozen=True, kw_only=True)
class DetectionTrainerSpec(ObjectTrainerSpec):
    """How long, on what, and where the results go."""

    MONITORS: ClassVar[tuple[str, ...]] = tuple(f"val/{name}" for name in BOX_SCORES)

    monitor: str = "val/AP"


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe(ObjectRecipe):
    """Training of a detector, entirely."""

    task: ClassVar[str] = "detection"

    model: DetectorModelSpec = field(default_factory=DetectorModelSpec)
    data: DetectionDataSpec = field(default_factory=DetectionDataSpec)
    augment: ObjectAugmentSpec = field(default_factory=ObjectAugmentSpec)
    loss: ObjectLossSpec = field(default_factory=ObjectLossSpec)
    optim: ObjectOptimSpec = field(default_factory=ObjectOptimSpec)
    schedule: ObjectScheduleSpec = field(default_factory=ObjectScheduleSpec)
    trainer: DetectionTrainerSpec = field(default_factory=DetectionTrainerSpec)
    track: TrackSpec = field(default_factory=TrackSpec)

    @staticmethod
    def score_text(summary: Mapping[str, Any]) -> str:
        """The score in a run's summary: `AP 41.2%, AP50 61.0%`."""
        return ", ".join(f"{name} {summary.get(f'val/{name}', math.nan):.1%}" for name in ("AP", "AP50"))
