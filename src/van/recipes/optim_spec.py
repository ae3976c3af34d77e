"""The optimizer and the learning rate over time, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ConfigError
from .checks import at_least, in_range, one_of

SCHEDULES = ("cosine", "tanh", "step", "multistep", "poly", "wsd", "constant")
# Which schedules an option acts on; those without an entry act on all.
_ACTS_ON = {
    "power": ("poly",),
    "k_decay": ("cosine", "poly"),
    "cycles": ("cosine", "tanh", "poly"),
    "cycle_mul": ("cosine", "tanh", "poly"),
    "cycle_decay": ("cosine", "tanh", "poly"),
    "decay_epochs": ("step", "wsd"),
    "milestones": ("multistep",),
    "decay_rate": ("step", "multistep"),
}


@dataclass(frozen=True, kw_only=True)
class OptimSpec:
    """The optimizer, by timm's names; no weight decay on biases and other 1-d parameters.

    name: of timm.optim.list_optimizers(); "lookahead_" before it wraps it.
    lr: at a global batch of lr_batch images; for another global batch (batch_size x accumulate) it is scaled
    linearly, with a notice.
    lr_batch: the batch that lr is meant for; None: lr is used as it is.
    weight_decay: of all parameters with more than one dimension.
    layer_decay: the rate of every earlier layer (patch embedding, block) is this share of the next one's; None: all
    layers learn alike.
    betas, eps, momentum: None keeps the optimizer's own; one that the optimizer does not have raises ConfigError.
    clip_norm: largest norm of the gradient; None: not clipped.
    clip_value: largest absolute value of an element of the gradient.
    clip_agc: adaptive clipping: largest norm of a unit's gradient as a share of its weights' norm; spares the head.
    """

    name: str = "adamw"
    lr: float = 1e-3
    lr_batch: int | None = None
    weight_decay: float = 0.05
    layer_decay: float | None = None
    betas: tuple[float, ...] | None = None
    eps: float | None = None
    momentum: float | None = None
    clip_norm: float | None = None
    clip_value: float | None = None
    clip_agc: float | None = None

    def __post_init__(self) -> None:
        in_range("optim.lr", self.lr, 0, math.inf)
        in_range("optim.weight_decay", self.weight_decay, 0, math.inf)
        if self.lr_batch is not None:
            at_least("optim.lr_batch", self.lr_batch, 1)
        if self.layer_decay is not None and not 0 < self.layer_decay < 1:
            raise ConfigError(
                f"optim.layer_decay is {self.layer_decay}; expected a share such as 0.8, or null for none"
            )
        clips = {name: getattr(self, name) for name in ("clip_norm", "clip_value", "clip_agc")}
        given = {name: value for name, value in clips.items() if value is not None}
        for name, value in given.items():
            if not value > 0:
                raise ConfigError(f"optim.{name} is {value}; expected a positive number, or null for none")
        if len(given) > 1:
            raise ConfigError(f"optim.{' and '.join(given)} are set; clip the gradient one way, set the others to null")

    def scaled_lr(self, global_batch: int) -> float:
        """The learning rate at `global_batch` images per step."""
        return self.lr if self.lr_batch is None else self.lr * global_batch / self.lr_batch


@dataclass(frozen=True, kw_only=True)
class ScheduleSpec:
    """The learning rate over time, by timm's schedulers.

    name: "cosine", "tanh", "step", "multistep", "poly", "wsd" (warm-up, stable, decay) or "constant".
    warmup_epochs: linear from warmup_lr; counted in trainer.epochs.
    warmup_lr: where the warm-up starts.
    min_lr: at the end of the decay; step, multistep and constant have no such end.
    cooldown_epochs: further epochs at min_lr, after trainer.epochs.
    power: of the poly schedule.
    k_decay: of cosine and poly: above 1 the rate falls later; None: 1.
    cycles: of cosine, tanh and poly: how often trainer.epochs is run through, each time from the top; None: once.
    cycle_mul, cycle_decay: every cycle is so many times longer (None: 1) and starts at such a share of the last one's
    rate (None: 0.5).
    decay_epochs: of step: epochs between two steps (None: 100); of wsd: the epochs of the decay, or a share below 1 of
    the time after the warm-up (None: 0.2).
    milestones: of multistep: epochs after which the rate falls.
    decay_rate: of step and multistep: the factor (None: 0.1).
    noise: shares of the schedule between which the rate is shaken, (0.4, 0.9), or from which on, (0.4,); the noise of
    a step or epoch follows from trainer.seed and its number alone.
    noise_limit, noise_std: largest relative change (None: 0.67), and the spread of the noise (None: 1).
    per: "step" sets the rate for every step, "epoch" once per epoch (as the published script).
    """

    name: str = "cosine"
    warmup_epochs: float = 0.0
    warmup_lr: float = 1e-6
    min_lr: float = 1e-6
    cooldown_epochs: int = 0
    power: float | None = None
    k_decay: float | None = None
    cycles: int | None = None
    cycle_mul: float | None = None
    cycle_decay: float | None = None
    decay_epochs: float | None = None
    milestones: tuple[int, ...] | None = None
    decay_rate: float | None = None
    noise: tuple[float, ...] | None = None
    noise_limit: float | None = None
    noise_std: float | None = None
    per: str = "step"

    def __post_init__(self) -> None:
        one_of("schedule.name", self.name, SCHEDULES)
        one_of("schedule.per", self.per, ("step", "epoch"))
        for name in ("warmup_epochs", "warmup_lr", "min_lr", "cooldown_epochs"):
            in_range(f"schedule.{name}", getattr(self, name), 0, math.inf)
        self._check_options()
        self._check_noise()
        if self.per == "epoch" and self.warmup_epochs != int(self.warmup_epochs):
            raise ConfigError(
                f"schedule.warmup_epochs is {self.warmup_epochs}; a schedule per epoch needs whole epochs"
            )

    def _check_options(self) -> None:
        for name, schedules in _ACTS_ON.items():
            value = getattr(self, name)
            if value is None:
                continue
            if self.name not in schedules:
                raise ConfigError(
                    f"schedule.{name} belongs to {', '.join(schedules)}, not to the {self.name} schedule; leave it out"
                )
            if name not in ("cycles", "milestones") and not value > 0:
                raise ConfigError(f"schedule.{name} is {value}; expected a positive number")
        at_least("schedule.cycles", self.cycles, 2, 1000)
        if self.name == "poly" and self.power is None:
            raise ConfigError("schedule.power belongs to the poly schedule: give it there, e.g. 1.0")
        if (self.cycle_mul is not None or self.cycle_decay is not None) and self.cycles is None:
            raise ConfigError("schedule.cycle_mul and cycle_decay need several cycles: set schedule.cycles, e.g. 3")
        if self.name == "multistep" and not self.milestones:
            raise ConfigError("the multistep schedule needs schedule.milestones, e.g. [30, 60]")
        for milestone in self.milestones or ():
            at_least("schedule.milestones", milestone, 1)

    def _check_noise(self) -> None:
        if self.noise is None:
            if self.noise_limit is not None or self.noise_std is not None:
                raise ConfigError("schedule.noise_limit and noise_std need schedule.noise, e.g. [0.4, 0.9]")
            return
        if len(self.noise) not in (1, 2) or list(self.noise) != sorted(self.noise) or not 0 <= self.noise[0] < 1:
            raise ConfigError(f"schedule.noise is {self.noise}; expected one or two shares of the schedule, in order")
        for name in ("noise_limit", "noise_std"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"schedule.{name} is {value}; expected a positive number")

    def epochs(self, first: int) -> int:
        """All epochs of a run whose first cycle has `first`: the further cycles and the cool-down with it."""
        mul = self.cycle_mul or 1.0
        lengths = sum(first * mul**cycle for cycle in range(self.cycles or 1))
        return int(lengths) + self.cooldown_epochs
