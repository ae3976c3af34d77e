"""A network made ready for speed, and checked against the original before anyone gets it."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .. import ops
from ..errors import ConfigError, VanError
from .backbone import Backbone
from .fold import fold
from .foldable import refuse_replaced_forwards

_turn = threading.RLock()
# The largest difference between two outputs that is still rounding, as a part of the largest output.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def optimize(
    model: nn.Module,
    *,
    example: Tensor | None = None,
    training: bool = False,
    compile: bool = False,  # noqa: A002
) -> nn.Module:
    """A faster copy of a network, checked against the original on the library's convolutions; that is untouched.

    For inference the copy is in eval mode, folded (see van.nn.fold) and its weights lie in channels_last memory; it
    takes images in any layout. Layout and kernels are those of `van.ops` for the device that the model is on.
    Attributes such as `classes` and `preprocess` come along.
    example: (N, in_chans, H, W), None for a random image of the size in the model's `preprocess`, else 224 x 224.
    training: only change the layout, and on CUDA what is kept for the backward pass (Backbone.set_memory_efficient);
    parameters, names and train/eval modes stay, so make the optimizer from the copy.
    compile: also torch.compile it, which takes a minute or more for every new kind of input.
    Raises ConfigError when the model holds no Backbone or has what a copy would lose (see `van.nn.fold`), VanError when
    the original's output is not finite or one of the copy differs from it by more than TOLERANCE times the largest
    output.
    """
    backbone = next((m for m in model.modules() if isinstance(m, Backbone)), None)
    if backbone is None:
        raise ConfigError(f"nothing to optimise in {type(model).__name__}; expected a model with a van.nn.Backbone")
    if training:
        refuse_replaced_forwards(model)
    if example is None:
        example = _random_image(model, backbone)
    fast = (copy.deepcopy(model).eval() if training else fold(model)).to(memory_format=torch.channels_last)
    with _full_precision():
        with ops.without_kernels():
            expected = _outputs(_evaluating(model), example)
        _compare(_outputs(fast, example), expected, "optimised")
    if compile:
        uncompiled = [] if training else _outputs(fast, example)
        fast.compile()
        if not training:
            _compare(_outputs(fast, example), uncompiled, "compiled")
    if training:
        for module in fast.modules():
            if isinstance(module, Backbone) and next(module.parameters()).is_cuda:
                module.set_memory_efficient()
        for copied, original in zip(fast.modules(), model.modules(), strict=True):
            copied.training = original.training
    return fast


@contextmanager
def _full_precision() -> Iterator[None]:
    """Without TF32, in which a GPU may compute a convolution but not the product that replaces it.

    The settings are the process's, so threads take turns: each puts back what it found.
    """
    settings: tuple[Any, Any] = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    with _turn:
        before = [setting.fp32_precision for setting in settings]
        try:
            for setting in settings:
                setting.fp32_precision = "ieee"
            yield
        finally:
            for setting, value in zip(settings, before, strict=True):
                setting.fp32_precision = value


def _random_image(model: nn.Module, backbone: Backbone) -> Tensor:
    size = getattr(getattr(model, "preprocess", None), "size", (224, 224))
    image = torch.randn((1, backbone.config.in_chans, *size), generator=torch.Generator("cpu").manual_seed(0))
    return image.to(next(backbone.parameters()))  # device and precision


def _evaluating(model: nn.Module) -> nn.Module:
    """The model in eval mode, a copy when a part of it is in training."""
    return copy.deepcopy(model).eval() if any(module.training for module in model.modules()) else model


@torch.inference_mode()
def _outputs(model: nn.Module, example: Tensor) -> list[Tensor]:
    return list(_tensors(getattr(model, "compared", model)(example)))


def _tensors(output: Any) -> Iterator[Tensor]:
    """Every tensor in a tensor, or in tuples, lists and dicts of them."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict | tuple | list):
        for part in output.values() if isinstance(output, dict) else output:
            yield from _tensors(part)


def _compare(outputs: list[Tensor], expected: list[Tensor], what: str) -> None:
    for got, want in zip(outputs, expected, strict=True):
        if not want.isfinite().all():
            raise VanError("the network's own output is not finite on the example; give another with example=")
        worst = ((got - want).abs().max() / want.abs().max().clamp(min=1e-30)).item()
        allowed = TOLERANCE.get(want.dtype, TOLERANCE[torch.float32])
        if not worst <= allowed:  # also when it is not a number
            raise VanError(
                f"the {what} network differs from the original by {worst:.2g} of the largest output, more than the"
                f" {allowed:g} that rounding explains; use the original, and report this"
            )
