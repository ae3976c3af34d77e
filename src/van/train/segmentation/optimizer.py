"""The optimizer of a segmentation recipe: which parameters decay, and timm's optimizer over them."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2
from torch import nn

from ...errors import ConfigError
from ...recipes import SegmentationRecipe
from ..optimizer import optimizer_options


def decays(name: str, parameter: torch.Tensor, rule: str) -> bool:
    """Whether weight decay acts on a parameter of a Segmenter, by a rule of SegmentationOptimSpec.

    The published rule spares names with `norm`; the heads' norms are called bn and gn there, so only the backbone's
    are spared, and biases and layer scales decay.
    """
    if rule == "everything":
        return True
    if rule == "matrices":
        return parameter.ndim > 1
    return not (name.startswith("backbone.") and "norm" in name)


def build_pixel_optimizer(model: nn.Module, recipe: SegmentationRecipe) -> torch.optim.Optimizer:
    """timm's optimizer over the trainable parameters in two groups, decayed and spared.

    Raises UnknownNameError for a name timm does not have, ConfigError for options the optimizer does not have.
    """
    spec = recipe.optim
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[decays(name, parameter, spec.decayed)].append(parameter)
    params: Any = [
        {"params": members, "weight_decay": spec.weight_decay if decayed else 0.0}
        for decayed, members in groups.items()
        if members
    ]
    lr = spec.scaled_lr(recipe.global_batch)
    options = optimizer_options(spec)
    try:
        return create_optimizer_v2(params, spec.name, lr=lr, weight_decay=spec.weight_decay, **options)
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        raise ConfigError(f"optimizer {spec.name!r} cannot be built: {' '.join(str(error).split())}") from error


def build_poly(optimizer: torch.optim.Optimizer, recipe: SegmentationRecipe) -> torch.optim.lr_scheduler.LambdaLR:
    """The poly schedule with its warm-up, advanced once per iteration."""
    steps = recipe.trainer.steps
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: recipe.schedule.factor(step, steps))
