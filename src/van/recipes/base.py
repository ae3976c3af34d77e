"""What recipes of every task share: a name, sections, the global batch, and the checks across sections."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..errors import ConfigError, UnknownNameError
from .checks import file_name
from .cross_checks import check_sections
from .data_spec import BaseDataSpec
from .model_spec import BaseModelSpec
from .optim_spec import OptimSpec
from .schedule_spec import BaseScheduleSpec, ScheduleSpec, StepScheduleSpec
from .sections import Sectioned
from .track_spec import TrackSpec
from .trainer_spec import BaseTrainerSpec, EpochTrainerSpec, StepTrainerSpec


@dataclass(frozen=True, kw_only=True)
class BaseRecipe(Sectioned):
    """One training run, entirely. A task's recipe declares the sections, each a subclass of the one here.

    task: name of the task. tagged: whether it stands as `task` in files; classification's, which were there before
    there were tasks, name none.
    unit: what the run is counted in, "epoch" or "step".
    """

    task: ClassVar[str]
    tagged: ClassVar[bool] = True
    unit: ClassVar[str] = "epoch"

    name: str = "custom"

    if TYPE_CHECKING:

        @property
        def model(self) -> BaseModelSpec: ...
        @property
        def data(self) -> BaseDataSpec: ...
        @property
        def optim(self) -> OptimSpec: ...
        @property
        def schedule(self) -> BaseScheduleSpec: ...
        @property
        def trainer(self) -> BaseTrainerSpec: ...
        @property
        def track(self) -> TrackSpec: ...

    def __post_init__(self) -> None:
        file_name(self.name)
        check_sections(self)

    @property
    def global_batch(self) -> int:
        """Images per optimizer step, over all devices."""
        return self.trainer.devices * self.trainer.batch_size * self.trainer.accumulate

    @property
    @abstractmethod
    def total_epochs(self) -> int:
        """Epochs of the whole run, each of which ends with a validation."""

    @property
    def batches_per_epoch(self) -> int | None:
        """Batches of one device in an epoch; None: as many as there are images for."""
        return None

    @abstractmethod
    def updates_per_epoch(self, images: int) -> int:
        """Optimizer steps in one epoch; images: those of the training set."""

    @abstractmethod
    def images_per_epoch(self, images: int) -> int:
        """Training images of an epoch, over all devices; images: those of the training set."""

    @abstractmethod
    def timm_schedule(self, updates_per_epoch: int) -> dict[str, Any]:
        """Options of timm's `create_scheduler_v2`."""

    @staticmethod
    def score_text(summary: Mapping[str, Any]) -> str:
        """The score in a run's summary.json, for people: `top-1 97.50%`."""
        return f"loss {summary.get('val/loss', math.nan):.4f}"

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, tuples as lists: what recipe.yaml holds."""
        return ({"task": self.task} if self.tagged else {}) | super().to_dict()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; missing keys take their defaults, unknown ones raise UnknownNameError."""
        tag = values.get("task", cls.task)
        if tag != cls.task:
            raise UnknownNameError.of("task of this recipe:", str(tag), [cls.task])
        return super().from_dict({name: value for name, value in values.items() if name != "task"})


@dataclass(frozen=True, kw_only=True)
class EpochRecipe(BaseRecipe):
    """A run that is counted in passes over its images."""

    if TYPE_CHECKING:

        @property
        def schedule(self) -> ScheduleSpec: ...
        @property
        def trainer(self) -> EpochTrainerSpec: ...

    def __post_init__(self) -> None:
        self._check_length()
        super().__post_init__()
        late = [epoch for epoch in self.schedule.milestones or () if epoch >= self.total_epochs]
        if late:
            raise ConfigError(
                f"schedule.milestones has {late[0]}, but the run has {self.total_epochs} epochs; use earlier ones"
            )

    def _check_length(self) -> None:
        try:
            epochs: float = self.total_epochs
        except OverflowError:
            epochs = math.inf
        if epochs > 10**9:
            raise ConfigError("trainer.epochs, schedule.cycles and cycle_mul make more than a thousand million epochs")

    @property
    def total_epochs(self) -> int:
        """Epochs of the schedule, all its cycles, and its cool-down."""
        return self.schedule.epochs(self.trainer.epochs)

    def updates_per_epoch(self, images: int) -> int:
        """See BaseRecipe; the last one may have fewer passes to accumulate."""
        spec = self.trainer
        return -(-(images // spec.devices // spec.batch_size) // spec.accumulate)

    def images_per_epoch(self, images: int) -> int:
        """See BaseRecipe; the incomplete last batch of every device is left out."""
        spec = self.trainer
        return images // spec.devices // spec.batch_size * spec.batch_size * spec.devices

    def timm_schedule(self, updates_per_epoch: int) -> dict[str, Any]:
        """See BaseRecipe."""
        spec = self.schedule
        per_epoch = spec.per == "epoch"
        warmup = spec.warmup_epochs if per_epoch else round(spec.warmup_epochs * updates_per_epoch) / updates_per_epoch
        return {
            "num_epochs": self.trainer.epochs,
            "warmup_epochs": warmup,
            "step_on_epochs": per_epoch,
            "updates_per_epoch": updates_per_epoch,
            **spec.timm_options(),
        }


@dataclass(frozen=True, kw_only=True)
class StepRecipe(BaseRecipe):
    """A run that is counted in iterations; an epoch is the `trainer.val_every` of them between two validations."""

    unit: ClassVar[str] = "step"

    if TYPE_CHECKING:

        @property
        def schedule(self) -> StepScheduleSpec: ...
        @property
        def trainer(self) -> StepTrainerSpec: ...

    def __post_init__(self) -> None:
        super().__post_init__()
        steps = self.trainer.steps
        if self.schedule.warmup_steps >= steps:
            raise ConfigError(
                f"schedule.warmup_steps is {self.schedule.warmup_steps}, trainer.steps {steps}; a run "
                "cannot be all warm-up: use a shorter one, or 0"
            )
        late = [milestone for milestone in self.schedule.milestones or () if milestone >= steps]
        if late:
            raise ConfigError(f"schedule.milestones has {late[0]}, but the run has {steps} steps; use earlier ones")

    @property
    def total_epochs(self) -> int:
        """Validations of the run."""
        return self.trainer.steps // self.trainer.val_every

    @property
    def batches_per_epoch(self) -> int | None:
        """See BaseRecipe."""
        return self.trainer.val_every * self.trainer.accumulate

    def updates_per_epoch(self, images: int) -> int:
        """See BaseRecipe."""
        return self.trainer.val_every

    def images_per_epoch(self, images: int) -> int:
        """See BaseRecipe."""
        return self.trainer.val_every * self.global_batch

    def timm_schedule(self, updates_per_epoch: int) -> dict[str, Any]:
        """See BaseRecipe; every iteration is an epoch of timm's."""
        lr = self.optim.scaled_lr(self.global_batch)
        return {
            "num_epochs": self.trainer.steps,
            "warmup_epochs": self.schedule.warmup_steps,
            "warmup_lr": self.schedule.warmup_ratio * lr,
            "step_on_epochs": False,
            "updates_per_epoch": 1,
            **self.schedule.timm_options(),
        }
