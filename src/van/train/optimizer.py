"""timm's optimizers and schedules from a recipe, with nothing dropped in silence."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import create_scheduler_v2
from torch import nn

from ..errors import ConfigError, UnknownNameError
from ..recipes import OptimSpec, Recipe


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """timm's optimizer over the trainable parameters: no weight decay on biases and other 1-d parameters.

    Raises UnknownNameError for a name timm does not have, ConfigError for options the optimizer does not have.
    """
    spec = recipe.optim
    options = optimizer_options(spec)
    lr = spec.scaled_lr(recipe.global_batch)
    try:
        return create_optimizer_v2(model, spec.name, lr=lr, weight_decay=spec.weight_decay, **options)
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        raise ConfigError(f"optimizer {spec.name!r} cannot be built: {' '.join(str(error).split())}") from error


def optimizer_options(spec: OptimSpec) -> dict[str, Any]:
    """The options that are set; timm would drop the ones that an optimizer does not have."""
    known = list_optimizers()
    name = spec.name.lower().removeprefix("lookahead_")
    if name not in known:
        raise UnknownNameError.of("optimizer", spec.name, known)
    info: Any = get_optimizer_info(name)
    offered = {"betas": info.has_betas, "eps": info.has_eps, "momentum": info.has_momentum}
    given = {key: getattr(spec, key) for key in offered if getattr(spec, key) is not None}
    for key in given:
        if not offered[key]:
            raise ConfigError(f"optim.{key} is set, but the optimizer {spec.name!r} has no {key}; leave it out")
    if "betas" in given and len(given["betas"]) != info.num_betas:
        raise ConfigError(f"optim.betas is {given['betas']}; {spec.name!r} takes {info.num_betas} numbers")
    return given


def build_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, updates_per_epoch: int) -> Any:
    """timm's scheduler: `step_update(step)` acts for a schedule per step, `step(epoch)` for one per epoch."""
    spec = recipe.schedule
    options = {"decay_rate": spec.power} if spec.power is not None else {}
    per_epoch = spec.per == "epoch"
    warmup = spec.warmup_epochs if per_epoch else round(spec.warmup_epochs * updates_per_epoch) / updates_per_epoch
    scheduler, _ = create_scheduler_v2(
        optimizer,
        spec.name,
        num_epochs=recipe.trainer.epochs,
        cooldown_epochs=spec.cooldown_epochs,
        min_lr=spec.min_lr,
        warmup_lr=spec.warmup_lr,
        warmup_epochs=warmup,
        step_on_epochs=per_epoch,
        updates_per_epoch=updates_per_epoch,
        **options,
    )
    return scheduler
