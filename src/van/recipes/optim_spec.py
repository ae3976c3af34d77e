"""The optimizer, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ConfigError
from .checks import at_least, in_range


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
