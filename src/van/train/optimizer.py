"""timm's optimizers, schedules and clipping from a recipe, with nothing dropped in silence."""

from __future__ import annotations

import re
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.utils.clip_grad import dispatch_clip_grad
from torch import nn

from ..errors import ConfigError, UnknownNameError
from ..recipes import OptimSpec, Recipe, ScheduleSpec


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """timm's optimizer over the trainable parameters: no weight decay on biases and other 1-d parameters.

    With layer decay, a group's `lr_scale` is what timm's schedules multiply the rate by.
    Raises UnknownNameError for a name timm does not have, ConfigError for options the optimizer does not have.
    """
    spec = recipe.optim
    options = optimizer_options(spec)
    lr = spec.scaled_lr(recipe.global_batch)
    params: Any = model if spec.layer_decay is None else _layer_groups(model, spec, spec.layer_decay)
    try:
        return create_optimizer_v2(params, spec.name, lr=lr, weight_decay=spec.weight_decay, **options)
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


def _layer_groups(model: nn.Module, spec: OptimSpec, layer_decay: float) -> list[dict[str, Any]]:
    """Groups of one layer and one weight decay each; the last layer, the head's, learns at the full rate."""
    trainable = {name: value for name, value in model.named_parameters() if value.requires_grad}
    numbers = {
        key: number for number, key in enumerate(sorted({layer_of(name) for name, _ in model.named_parameters()}))
    }
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, value in trainable.items():
        number, decayed = numbers[layer_of(name)], value.ndim > 1
        group = {
            "params": [],
            "lr_scale": layer_decay ** (len(numbers) - 1 - number),
            "weight_decay": spec.weight_decay if decayed else 0.0,
        }
        groups.setdefault((number, decayed), group)["params"].append(value)
    return list(groups.values())


def layer_of(name: str) -> tuple[float, float]:
    """(stage, place) of a parameter of a Classifier, which sort from the image to the logits.

    Every patch embedding and block is a layer; a stage's last norm is one too.
    """
    found = re.match(r"backbone\.stages\.(\d+)\.(?:(patch_embed)|blocks\.(\d+)|norm)", name)
    if found is None:
        return float("inf"), 0.0
    place = -1.0 if found[2] else float("inf") if found[3] is None else float(found[3])
    return float(found[1]), place


def clip_gradients(model: nn.Module, spec: OptimSpec) -> None:
    """Clip the gradients of a network as its recipe says; adaptive clipping leaves the classifying layers alone."""
    modes = {"norm": spec.clip_norm, "value": spec.clip_value, "agc": spec.clip_agc}
    for mode, limit in modes.items():
        if limit is None:
            continue
        spared = ("head.weight", "head.bias") if mode == "agc" else ()
        parameters = [
            value
            for name, value in model.named_parameters()
            if name not in spared and not (mode == "agc" and ".classify." in name)
        ]
        dispatch_clip_grad(parameters, limit, mode=mode)


def base_lr(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the schedule, before layer decay."""
    group = optimizer.param_groups[0]
    return float(group["lr"]) / float(group.get("lr_scale", 1.0))


def build_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, updates_per_epoch: int) -> Any:
    """timm's scheduler: `step_update(step)` acts for a schedule per step, `step(epoch)` for one per epoch.

    The rate of a step or epoch depends on its number alone, the noise included. Raises ConfigError for a decay that
    does not fit the run.
    """
    spec = recipe.schedule
    per_epoch = spec.per == "epoch"
    warmup = spec.warmup_epochs if per_epoch else round(spec.warmup_epochs * updates_per_epoch) / updates_per_epoch
    try:
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
            noise_seed=recipe.trainer.seed,
            **_schedule_options(spec),
        )
    except ValueError as error:
        raise ConfigError(f"schedule.name {spec.name}: {' '.join(str(error).split())}") from error
    return scheduler


def _schedule_options(spec: ScheduleSpec) -> dict[str, Any]:
    """What is set, by timm's names; what is not has the defaults of the published script."""
    defaults = {"step": 100, "wsd": 0.2}
    decay_epochs = defaults.get(spec.name) if spec.decay_epochs is None else spec.decay_epochs
    given = {
        "decay_rate": spec.power if spec.name == "poly" else spec.decay_rate,  # timm's overloaded name
        "k_decay": spec.k_decay,
        "cycle_limit": spec.cycles,
        "cycle_mul": spec.cycle_mul,
        "cycle_decay": 0.5 if spec.cycle_decay is None and spec.cycles else spec.cycle_decay,
        "decay_epochs": decay_epochs,
        "decay_milestones": list(spec.milestones or ()) or None,
        "noise": list(spec.noise or ()) or None,
        "noise_pct": spec.noise_limit,
        "noise_std": spec.noise_std,
    }
    return {name: value for name, value in given.items() if value is not None}
