"""timm's optimizers and clipping from a recipe; an option that has no effect is an error."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.utils.clip_grad import dispatch_clip_grad
from torch import nn

from ..errors import ConfigError, UnknownNameError
from ..recipes import OptimSpec
from ..tasks.training import Training


def build_optimizer(network: nn.Module, training: Training[Any]) -> torch.optim.Optimizer:
    """timm's optimizer over the trainable parameters, in the groups of the task.

    With layer decay, a group's `lr_scale` is what the schedule multiplies the rate by.
    Raises UnknownNameError for a name timm does not have, ConfigError for options the optimizer does not have.
    """
    recipe, spec = training.recipe, training.recipe.optim
    options = optimizer_options(spec)
    lr = spec.scaled_lr(recipe.global_batch)
    groups: Any = training.parameter_groups(network)
    try:
        return create_optimizer_v2(groups, spec.name, lr=lr, weight_decay=spec.weight_decay, **options)
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


def clip_gradients(network: nn.Module, training: Training[Any]) -> None:
    """Clip the gradients of a network as its recipe says; adaptive clipping leaves the output layers alone."""
    spec = training.recipe.optim
    modes = {"norm": spec.clip_norm, "value": spec.clip_value, "agc": spec.clip_agc}
    for mode, limit in modes.items():
        if limit is None:
            continue
        parameters = [
            value
            for name, value in network.named_parameters()
            if not (mode == "agc" and training.is_output_layer(name))
        ]
        dispatch_clip_grad(parameters, limit, mode=mode)


def base_lr(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the schedule, before layer decay."""
    group = optimizer.param_groups[0]
    return float(group["lr"]) / float(group.get("lr_scale", 1.0))
