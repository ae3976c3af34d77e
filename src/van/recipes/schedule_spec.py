"""The learning rate over time, as data: in epochs, or in steps.

timm's schedulers compute the rates, from the options that `timm_options` gives; a section that has a formula of its own
gives it as `factor`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ConfigError
from .checks import at_least, in_range, one_of

SCHEDULES = ("cosine", "tanh", "step", "multistep", "poly", "wsd", "constant")
POSITIVE = ("power", "k_decay", "cycle_mul", "cycle_decay", "decay_epochs", "decay_steps", "decay_rate")


@dataclass(frozen=True, kw_only=True)
class BaseScheduleSpec:
    """The learning rate over time.

    power: of the poly schedule.
    k_decay: of cosine and poly: above 1 the rate falls later; None: 1.
    decay_rate: of step and multistep: the factor (None: 0.1).
    noise: shares of the schedule between which the rate is shaken, (0.4, 0.9), or from which on, (0.4,); the noise of
    a step or epoch follows from trainer.seed and its number alone.
    noise_limit, noise_std: largest relative change (None: 0.67), and the spread of the noise (None: 1).
    """

    # which schedules an option acts on; those without an entry act on all
    ACTS_ON: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    name: str = "cosine"
    power: float | None = None
    k_decay: float | None = None
    milestones: tuple[int, ...] | None = None
    decay_rate: float | None = None
    noise: tuple[float, ...] | None = None
    noise_limit: float | None = None
    noise_std: float | None = None

    def __post_init__(self) -> None:
        one_of("schedule.name", self.name, SCHEDULES)
        self._check_options()
        self._check_noise()

    def factor(self, step: int, steps: int) -> float | None:
        """Of the learning rate at step `step`, 0-based, of `steps`; None: what timm's scheduler makes of it."""
        return None

    def timm_options(self) -> dict[str, Any]:
        """What is set, by timm's names."""
        given = {
            "decay_rate": self.power if self.name == "poly" else self.decay_rate,  # timm's overloaded name
            "k_decay": self.k_decay,
            "decay_milestones": list(self.milestones or ()) or None,
            "noise": list(self.noise or ()) or None,
            "noise_pct": self.noise_limit,
            "noise_std": self.noise_std,
        }
        return {name: value for name, value in given.items() if value is not None}

    def _check_options(self) -> None:
        for name, schedules in self.ACTS_ON.items():
            value = getattr(self, name)
            if value is None:
                continue
            if self.name not in schedules:
                raise ConfigError(
                    f"schedule.{name} belongs to {', '.join(schedules)}, not to the {self.name} schedule; leave it out"
                )
            if name in POSITIVE and not value > 0:
                raise ConfigError(f"schedule.{name} is {value}; expected a positive number")
        if self.name == "poly" and self.power is None:
            raise ConfigError("schedule.power belongs to the poly schedule: give it there, e.g. 1.0")
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


@dataclass(frozen=True, kw_only=True)
class ScheduleSpec(BaseScheduleSpec):
    """The learning rate over time, by timm's schedulers.

    name: "cosine", "tanh", "step", "multistep", "poly", "wsd" (warm-up, stable, decay) or "constant".
    warmup_epochs: linear from warmup_lr; counted in trainer.epochs.
    warmup_lr: where the warm-up starts.
    min_lr: at the end of the decay; step, multistep and constant have no such end.
    cooldown_epochs: further epochs at min_lr, after trainer.epochs.
    cycles: of cosine, tanh and poly: how often trainer.epochs is run through, each time from the top; None: once.
    cycle_mul, cycle_decay: every cycle is so many times longer (None: 1) and starts at such a share of the last one's
    rate (None: 0.5).
    decay_epochs: of step: epochs between two steps (None: 100); of wsd: the epochs of the decay, or a share below 1 of
    the time after the warm-up (None: 0.2).
    milestones: of multistep: epochs after which the rate falls.
    per: "step" sets the rate for every step, "epoch" once per epoch (as the published script).
    """

    ACTS_ON: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "power": ("poly",),
        "k_decay": ("cosine", "poly"),
        "cycles": ("cosine", "tanh", "poly"),
        "cycle_mul": ("cosine", "tanh", "poly"),
        "cycle_decay": ("cosine", "tanh", "poly"),
        "decay_epochs": ("step", "wsd"),
        "milestones": ("multistep",),
        "decay_rate": ("step", "multistep"),
    }

    warmup_epochs: float = 0.0
    warmup_lr: float = 1e-6
    min_lr: float = 1e-6
    cooldown_epochs: int = 0
    cycles: int | None = None
    cycle_mul: float | None = None
    cycle_decay: float | None = None
    decay_epochs: float | None = None
    per: str = "step"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("schedule.per", self.per, ("step", "epoch"))
        for name in ("warmup_epochs", "warmup_lr", "min_lr", "cooldown_epochs"):
            in_range(f"schedule.{name}", getattr(self, name), 0, math.inf)
        at_least("schedule.cycles", self.cycles, 2, 1000)
        if (self.cycle_mul is not None or self.cycle_decay is not None) and self.cycles is None:
            raise ConfigError("schedule.cycle_mul and cycle_decay need several cycles: set schedule.cycles, e.g. 3")
        if self.per == "epoch" and self.warmup_epochs != int(self.warmup_epochs):
            raise ConfigError(
                f"schedule.warmup_epochs is {self.warmup_epochs}; a schedule per epoch needs whole epochs"
            )

    def timm_options(self) -> dict[str, Any]:
        """What is set, by timm's names; what is not has the defaults of the published script."""
        defaults = {"step": 100, "wsd": 0.2}
        given = {
            "cooldown_epochs": self.cooldown_epochs,
            "min_lr": self.min_lr,
            "warmup_lr": self.warmup_lr,
            "cycle_limit": self.cycles,
            "cycle_mul": self.cycle_mul,
            "cycle_decay": 0.5 if self.cycle_decay is None and self.cycles else self.cycle_decay,
            "decay_epochs": defaults.get(self.name) if self.decay_epochs is None else self.decay_epochs,
        }
        return super().timm_options() | {name: value for name, value in given.items() if value is not None}

    def epochs(self, first: int) -> int:
        """All epochs of a run whose first cycle has `first`: the further cycles and the cool-down with it."""
        mul = self.cycle_mul or 1.0
        lengths = sum(first * mul**cycle for cycle in range(self.cycles or 1))
        return int(lengths) + self.cooldown_epochs


@dataclass(frozen=True, kw_only=True)
class StepScheduleSpec(BaseScheduleSpec):
    """The learning rate over the iterations; poly: lr x (1 - i / steps)^power at iteration i, the published one.

    name: "poly", or timm's "cosine", "tanh", "step", "multistep", "wsd" (warm-up, stable, decay) or "constant".
    power: of poly.
    warmup_steps: iterations of the linear warm-up, counted in trainer.steps.
    warmup_ratio: the factor it starts from; in poly it multiplies the rate that the decay has reached meanwhile.
    min_lr: at the end of cosine, tanh and wsd; None: 0.
    k_decay: of cosine: above 1 the rate falls later; None: 1.
    decay_steps: of step: iterations between two steps (None: 40,000); of wsd: those of the decay, or a share below 1 of
    the time after the warm-up (None: 0.2).
    milestones: of multistep: iterations after which the rate falls.
    Source of poly: mmcv's policy with linear warm-up.
    """

    ACTS_ON: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "k_decay": ("cosine",),
        "min_lr": ("cosine", "tanh", "wsd"),
        "decay_steps": ("step", "wsd"),
        "milestones": ("multistep",),
        "decay_rate": ("step", "multistep"),
        "noise": tuple(name for name in SCHEDULES if name != "poly"),
    }

    name: str = "poly"
    power: float | None = 1.0
    warmup_steps: int = 1500
    warmup_ratio: float = 1e-6
    min_lr: float | None = None
    decay_steps: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("schedule.power", 1.0 if self.power is None else self.power, 0, math.inf)
        in_range("schedule.min_lr", self.min_lr or 0.0, 0, math.inf)
        at_least("schedule.warmup_steps", self.warmup_steps, 0)
        in_range("schedule.warmup_ratio", self.warmup_ratio, 0, 1)
        if self.name != "poly" and self.power not in (None, 1.0):
            raise ConfigError(
                f"schedule.power belongs to poly, not to the {self.name} schedule; set schedule.power null"
            )

    def factor(self, step: int, steps: int) -> float | None:
        """Of the learning rate at iteration `step`, 0-based, of `steps`; None for timm's schedules."""
        if self.name != "poly" or self.power is None:
            return None
        regular = max(0.0, 1 - step / steps) ** self.power
        if step >= self.warmup_steps:
            return regular
        return regular * (1 - (1 - step / self.warmup_steps) * (1 - self.warmup_ratio))

    def timm_options(self) -> dict[str, Any]:
        """What is set, by timm's names, every iteration an epoch."""
        defaults = {"step": 40_000, "wsd": 0.2}
        given = {
            "min_lr": self.min_lr or 0.0,
            "decay_epochs": defaults.get(self.name) if self.decay_steps is None else self.decay_steps,
        }
        return super().timm_options() | {name: value for name, value in given.items() if value is not None}
