"""Optimizer, schedule, loss and trainer of recipes that find objects, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import ConfigError
from ..checks import at_least, in_range, one_of
from ..optim_spec import OptimSpec
from ..schedule_spec import ScheduleSpec
from ..trainer_spec import EpochTrainerSpec

DECAYED = ("matrices", "all_but_norms", "everything")
BOX_SCORES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True, kw_only=True)
class ObjectLossSpec:
    """The losses of the network, which its method gives.

    weights: factors of some of the losses, by the names that the method has for them; the others count once.
    """

    weights: dict[str, float] | None = None

    def __post_init__(self) -> None:
        for name, number in (self.weights or {}).items():
            in_range(f"loss.weights.{name}", number, 0, math.inf)


@dataclass(frozen=True, kw_only=True)
class ObjectOptimSpec(OptimSpec):
    """The optimizer, by timm's names, and what decays.

    weight_decay: of the parameters that `decayed` names.
    decayed: "matrices" (parameters with more than one dimension), "all_but_norms" (all but those of normalisation
    layers) or "everything".
    layer_decay: the rate of every earlier layer of the backbone (patch embedding, block) is this share of the next
    one's, neck and heads learn at the full rate; None: all layers learn alike.
    backbone_lr_scale: share of the rate at which the backbone learns; None: the whole.
    clip_agc: adaptive clipping: largest norm of a unit's gradient as a share of its weights' norm; spares the
    classifiers.
    """

    lr: float = 1e-4
    decayed: str = "matrices"
    backbone_lr_scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("optim.decayed", self.decayed, DECAYED)
        if self.backbone_lr_scale is not None:
            in_range("optim.backbone_lr_scale", self.backbone_lr_scale, 0, 1)
            if self.layer_decay is not None:
                raise ConfigError(
                    "optim.backbone_lr_scale and optim.layer_decay slow the backbone down in two ways; leave one of "
                    "them out"
                )


@dataclass(frozen=True, kw_only=True)
class ObjectScheduleSpec(ScheduleSpec):
    """The learning rate over time, by timm's schedulers.

    warmup_epochs: linear from warmup_lr; counted in trainer.epochs.
    warmup_steps: the same in optimizer steps; None: warmup_epochs says.
    """

    name: str = "multistep"
    milestones: tuple[int, ...] | None = (8, 11)
    warmup_lr: float = 1e-7
    warmup_steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("schedule.warmup_steps", self.warmup_steps, 0)
        if self.warmup_steps is None:
            return
        if self.warmup_epochs:
            raise ConfigError(
                "schedule.warmup_steps and schedule.warmup_epochs say the same in two ways; leave one of them out"
            )
        if self.per == "epoch":
            raise ConfigError("schedule.warmup_steps needs a rate for every step; set schedule.per step")


@dataclass(frozen=True, kw_only=True)
class ObjectTrainerSpec(EpochTrainerSpec):
    """How long, on what, and where the results go.

    eval_batch_size: must be null: validation takes images one by one, because their sizes differ.
    compile: torch.compile the backbone for training.
    monitor: score for best.ckpt and early stopping, by COCO's names: one of the scores in metrics.csv.
    workers: processes that read images, per device; None: by the machine, 0 for the digit scenes.
    """

    epochs: int = 12
    batch_size: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_batch_size is not None:
            raise ConfigError(
                "trainer.eval_batch_size has no effect here: validation takes images one by one; leave it out"
            )
