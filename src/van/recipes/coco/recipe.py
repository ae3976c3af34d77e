"""A recipe of a model that finds objects: what the three tasks have alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ..base import EpochRecipe
from .augment_spec import ObjectAugmentSpec
from .data_spec import ObjectDataSpec
from .model_spec import ObjectModelSpec
from .training_spec import ObjectLossSpec, ObjectOptimSpec, ObjectScheduleSpec, ObjectTrainerSpec


@dataclass(frozen=True, kw_only=True)
class ObjectRecipe(EpochRecipe):
    """Training of a model that finds objects; a task adds the sections of its own."""

    if TYPE_CHECKING:

        @property
        def model(self) -> ObjectModelSpec: ...
        @property
        def data(self) -> ObjectDataSpec: ...
        @property
        def augment(self) -> ObjectAugmentSpec: ...
        @property
        def loss(self) -> ObjectLossSpec: ...
        @property
        def optim(self) -> ObjectOptimSpec: ...
        @property
        def schedule(self) -> ObjectScheduleSpec: ...
        @property
        def trainer(self) -> ObjectTrainerSpec: ...

    def __post_init__(self) -> None:
        super().__post_init__()
        off = self.augment.off_epoch
        if off is not None and off >= self.total_epochs:
            raise ConfigError(
                f"augment.off_epoch is {off}, but the run has {self.total_epochs} epochs; use an earlier one, or null"
            )

    def timm_schedule(self, updates_per_epoch: int) -> dict[str, Any]:
        """See BaseRecipe; the warm-up may be counted in steps."""
        options = super().timm_schedule(updates_per_epoch)
        steps = self.schedule.warmup_steps
        return options if steps is None else options | {"warmup_epochs": steps / updates_per_epoch}
