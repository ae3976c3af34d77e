"""The one rule on what a network computes in: float32, unless the caller says otherwise."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from ..errors import ConfigError, UnknownNameError, VanNotice

AUTO = "auto"
NAMES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def dtype_of(wanted: torch.dtype | str, stored: str = "") -> torch.dtype:
    """The type that an option `dtype` means; "auto": that of a file, the widest where it holds several.

    stored: the file's, "float16" or "float16, float32". Raises UnknownNameError for anything else.
    """
    if isinstance(wanted, torch.dtype):
        wanted = str(wanted).removeprefix("torch.")
    if wanted != AUTO:
        if wanted not in NAMES:
            raise UnknownNameError.of("dtype", str(wanted), [AUTO, *NAMES])
        return NAMES[wanted]
    found = [NAMES[name] for name in stored.split(", ") if name in NAMES] or [torch.float32]
    widest = found[0]
    for dtype in found[1:]:
        widest = torch.promote_types(widest, dtype)
    return widest


def require_values(model: nn.Module) -> None:
    """Raise ConfigError where a tensor has no values, which can be read and moved nowhere."""
    for key, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise ConfigError(
                f"{key} lies on the meta device, without values; load the weights first, or take offloading off "
                "(accelerate.hooks.remove_hook_from_submodules)"
            )


def in_float32(model: nn.Module, name: str) -> nn.Module:
    """The model itself, its weights brought to float32 where they are of another floating point type; says so.

    Raises ConfigError for weights without values.
    """
    require_values(model)
    floats = [each for each in model.parameters() if each.is_floating_point()]
    others = {str(each.dtype).removeprefix("torch.") for each in floats} - {"float32"}
    if not others:
        return model
    warnings.warn(
        f"the {' and '.join(sorted(others))} weights of {name} are brought to float32 and computed in it; precision "
        "bf16 or fp16 computes in halves",
        VanNotice,
        stacklevel=4,
    )
    return model.float()
