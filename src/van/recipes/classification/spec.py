"""What training a classifier is, as data: frozen dataclasses of plain values, checked on construction, stdlib only.

tasks/classification and train/ give the fields their meaning. Every field does something; a combination in which one
could not raises ConfigError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...configs.backbone import resolve
from ..base import EpochRecipe
from ..model_spec import BaseModelSpec
from ..optim_spec import OptimSpec
from ..schedule_spec import ScheduleSpec
from ..track_spec import TrackSpec
from ..trainer_spec import EpochTrainerSpec
from .augment_spec import AugmentSpec
from .cross_checks import check_classification
from .data_spec import DataSpec
from .loss_spec import CriterionSpec

MONITORS = ("val/top1", "val/top5", "val/loss", "val/macro_f1", "val/macro_precision", "val/macro_recall")


@dataclass(frozen=True, kw_only=True)
class ModelSpec(BaseModelSpec):
    """The network, and the weights it starts from.

    name: a variant of `van list`; None: the checkpoint's own, or van_b0 without a checkpoint.
    in_chans, drop_rate, head_drop_rate: as in VanConfig; None keeps what the variant or the checkpoint has.
    """

    in_chans: int | None = None
    drop_rate: float | None = None
    head_drop_rate: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name is not None:
            resolve(self.name)


@dataclass(frozen=True, kw_only=True)
class TrainerSpec(EpochTrainerSpec):
    """How long, on what, and where the results go.

    monitor: metric for best.ckpt and early stopping: "val/top1", "val/top5", "val/loss", or the mean over classes
    "val/macro_f1", "val/macro_precision" or "val/macro_recall".
    workers: processes that read images, per device; None: by the machine, 0 for the digits.
    """

    MONITORS = MONITORS

    monitor: str = "val/top1"


@dataclass(frozen=True, kw_only=True)
class Recipe(EpochRecipe):
    """Training of a classifier, entirely."""

    task: ClassVar[str] = "classification"
    tagged: ClassVar[bool] = False

    model: ModelSpec = field(default_factory=ModelSpec)
    data: DataSpec = field(default_factory=DataSpec)
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    loss: CriterionSpec = field(default_factory=CriterionSpec)
    optim: OptimSpec = field(default_factory=OptimSpec)
    schedule: ScheduleSpec = field(default_factory=ScheduleSpec)
    trainer: TrainerSpec = field(default_factory=TrainerSpec)
    track: TrackSpec = field(default_factory=TrackSpec)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_classification(self)

    @staticmethod
    def score_text(summary: Mapping[str, Any]) -> str:
        """The score in a run's summary: `top-1 97.50%`."""
        return f"top-1 {summary['val/top1']:.2f}%"
