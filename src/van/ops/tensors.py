"""Which tensors a kernel may read: the others go to PyTorch's operators, which know them or refuse them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch._C import _functorch
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

from ..errors import ConfigError
from .operators import constant_in_graphs

# Beyond this side a kernel no longer fits what the C code keeps at hand for it.
LARGEST_KERNEL = 31
# Fake tensors reach the operators, which describe their results, and never the memory behind them.
_KINDS = {Tensor, nn.Parameter, FakeTensor}


def ordinary(*tensors: Tensor | None) -> bool:
    """Whether these are dense tensors of PyTorch's own, outside of torch.func's transforms and forward-mode gradients.

    Not those of other classes, such as quantised and distributed ones, nor what FX traces with.
    """
    for tensor in tensors:
        if tensor is not None and (type(tensor) not in _KINDS or tensor.layout != torch.strided):
            return False
    return not _transformed()


@constant_in_graphs  # traced, the stack of transforms never seems empty
def _transformed() -> bool:
    return _functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def fits(x: Tensor, weight: Tensor, bias: Tensor | None, *, mixed: bool) -> bool:
    """Whether a depthwise convolution's parameters have the map's size, device and type; mixed: or are float32."""
    types = (x.dtype, torch.float32) if mixed else (x.dtype,)
    if x.ndim != 4 or weight.ndim != 4 or weight.dtype not in types or weight.device != x.device:
        return False
    channels, one, height, width = weight.shape
    square = x.shape[1] == channels and one == 1 and height == width <= LARGEST_KERNEL
    same = bias is None or (bias.dtype, bias.device, bias.shape) == (weight.dtype, weight.device, weight.shape[:1])
    return square and same


def require_fitting(x: Tensor, convs: Iterable[tuple[Tensor, Tensor | None, int]], *, mixed: bool) -> None:
    """The last check before memory is read by its address.

    Raises ConfigError where parameters do not fit the map.
    """
    for weight, bias, dilation in convs:
        if not fits(x, weight, bias, mixed=mixed) or dilation < 1:
            given = [(tuple(t.shape), t.dtype, str(t.device)) for t in (weight, bias) if t is not None]
            raise ConfigError(
                f"weight and bias {given} with dilation {dilation} do not fit a map of {tuple(x.shape)}, {x.dtype}, on"
                f" {x.device}; expected a depthwise convolution of its channels, in its type, on its device"
            )


def require_loaded(x: Tensor, weight: Tensor) -> None:
    """Raises ConfigError for weights without values, with which PyTorch's convolutions return whatever memory holds."""
    if weight.is_meta and not x.is_meta:
        raise ConfigError(
            f"a convolution's weights lie on the meta device, without values, and its map on {x.device}; load them"
            " first, or let what moved them there (accelerate's hooks) bring them back at each call"
        )
