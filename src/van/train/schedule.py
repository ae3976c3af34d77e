"""The learning rate over time: timm's schedulers, or a section's own formula, behind one interface."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from timm.scheduler import create_scheduler_v2

from ..errors import ConfigError
from ..recipes import BaseRecipe


class Schedule(Protocol):
    """Sets the rate of every group before an epoch, and after an optimizer step."""

    optimizer: torch.optim.Optimizer

    def before_epoch(self, epoch: int) -> None:
        """Act if the rate is set once per epoch."""

    def after_step(self, step: int) -> None:
        """Act if the rate is set for every step; step: how many were made."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class TimmSchedule:
    """One of timm's; the rate of a step or epoch depends on its number alone, the noise included."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.optimizer = scheduler, scheduler.optimizer

    def before_epoch(self, epoch: int) -> None:
        self.scheduler.step(epoch)  # does nothing for a schedule per step

    def after_step(self, step: int) -> None:
        self.scheduler.step_update(step)  # does nothing for a schedule per epoch

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state_dict)


class FactorSchedule:
    """A factor of the rate for every step, given by the recipe's section."""

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: BaseRecipe, steps: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] *= group.get("lr_scale", 1.0)  # timm's schedulers do so by themselves
        self.optimizer = optimizer
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: recipe.schedule.factor(step, steps) or 0.0
        )

    def before_epoch(self, epoch: int) -> None:
        """The rate is set for every step."""

    def after_step(self, step: int) -> None:
        self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state_dict)


def build_schedule(optimizer: torch.optim.Optimizer, recipe: BaseRecipe, updates_per_epoch: int) -> Schedule:
    """The schedule of a recipe; raises ConfigError for a decay that does not fit the run."""
    steps = recipe.total_epochs * updates_per_epoch
    if recipe.schedule.factor(0, steps) is not None:
        return FactorSchedule(optimizer, recipe, steps)
    options = recipe.timm_schedule(updates_per_epoch)
    try:
        scheduler, _ = create_scheduler_v2(optimizer, recipe.schedule.name, noise_seed=recipe.trainer.seed, **options)
    except ValueError as error:
        raise ConfigError(f"schedule.name {recipe.schedule.name}: {' '.join(str(error).split())}") from error
    return TimmSchedule(scheduler)
