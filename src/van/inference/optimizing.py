"""When a network is run optimised: `optimize` of everything that opens a model."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import torch
from torch import nn

from .. import models, ops
from ..errors import ConfigError
from ..nn.backbone import Backbone
from ..nn.fusable import has_hooks

AUTO: Final = "auto"
Optimize: TypeAlias = bool | Literal["auto"]

FEW = 6  # images: optimising and its check take as long as some six images gain by it (B0 and B1 at 224 x 224)
TRIAL = 96  # the largest side of the random image that both networks are compared on


def wanted(optimize: Optimize) -> Optimize:
    """The option itself; raises ConfigError for what is none of its values."""
    if not isinstance(optimize, bool) and optimize != AUTO:
        raise ConfigError(f"optimize is {optimize!r:.40}; expected True, False or {AUTO!r}")
    return optimize


def optimized(model: nn.Module, optimize: Optimize, *, device: str, images: int | None = None) -> nn.Module | None:
    """An optimised copy of a float32 model; None where it is to be run as it is.

    True: always, whatever it costs. "auto": where the C kernel computes folded networks, unless so few images are known
    to come that it does not pay (`images`; None: unknown), the network is one that cannot be folded, or the copy gave
    other outputs.
    Raises ConfigError and VanError as `van.optimize` does, if True.
    """
    if optimize is True:
        return models.optimize(model)
    if optimize is False or (images is not None and images < FEW) or not _pays(model, device):
        return None
    try:
        return models.optimize(model.to("cpu").eval(), example=_trial(model))
    except Exception:  # of whatever network it is, which may run all the same; `van.optimize` says why
        return None


def _pays(model: nn.Module, device: str) -> bool:
    """Whether the kernel would compute the folded blocks, and nothing else was prepared that folding would undo."""
    on_cpu = str(device).partition(":")[0] == "cpu"
    if not on_cpu or not ops.path_taken("folded_blocks"):
        return False
    return not any(each._compiled_call_impl is not None or has_hooks(each) for each in model.modules())


def _trial(model: nn.Module) -> torch.Tensor:
    """A small image: what folding makes of weights shows on any, and kernels are tested on all sizes of maps."""
    size = getattr(getattr(model, "preprocess", None), "size", (TRIAL, TRIAL))
    backbone = next((each for each in model.modules() if isinstance(each, Backbone)), None)
    if backbone is None:
        raise ConfigError(f"nothing to optimise in {type(model).__name__}; expected a model with a van.nn.Backbone")
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.randn((1, backbone.config.in_chans, *(min(side, TRIAL) for side in size)), generator=generator)
