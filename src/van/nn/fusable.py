"""What is asked about modules before a kernel computes in their place, and their weights as `ops` takes them.

A module may be fused with others where nobody would notice that it was not called: no hooks, no replaced forward, no
other class, no graph that is recorded. What is asked about a tensor (type, device, layout, size) is asked by `ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.modules.module import _has_any_global_hook

from .. import ops
from .layers import DepthwiseConv2d, PointwiseConv2d

# What of a module is replaced on single instances.
REPLACEABLE = frozenset(("forward", "_conv_forward"))


def can_fuse(x: Tensor, *, depthwise: Sequence[nn.Module] = (), pointwise: Sequence[nn.Module] = ()) -> bool:
    """Whether x's convolutions may be computed from their weights: nobody would notice that no module was called."""
    if not isinstance(x, Tensor) or is_traced() or _has_any_global_hook():  # torch.fx has stand-ins for tensors
        return False
    for kind, modules in ((DepthwiseConv2d, depthwise), (PointwiseConv2d, pointwise)):
        for module in modules:
            if type(module) is not kind or why_not_fused(module):
                return False
    return True


def is_traced() -> bool:
    """Whether a graph is recorded for other runtimes, which get the modules one by one."""
    return is_exported() or torch.jit.is_tracing()


def is_exported() -> bool:
    """Whether a graph is recorded by torch.export."""
    return torch.compiler.is_exporting()


def is_symbolic(x: object) -> bool:
    """Whether it is what torch.fx traces with, in the place of a tensor."""
    return isinstance(x, Proxy)


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of this instance does more than its class defines: hooks, global ones too, or another forward."""
    return _has_any_global_hook() or bool(why_called(module))


def process_has_hooks() -> bool:
    """Whether there are hooks for all modules of the process."""
    return _has_any_global_hook()


def why_called(module: nn.Module) -> str:
    """Why a call of this instance does more than its class defines: a replaced forward, or hooks; "" where it does not.

    Replaced forwards are how offloaded weights arrive.
    """
    if not REPLACEABLE.isdisjoint(module.__dict__):
        return "has a replaced forward"
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return "has hooks" if hooks else ""


def why_not_fused(module: nn.Module) -> str:
    """Why this module must be called, in words; "" where it is an untouched convolution of layers.py.

    Parametrizations and adapters make a module another class.
    """
    kind = type(module)
    if kind not in _SHAPES:
        return f"is a {kind.__name__}"
    if not computes_as_written(module, kind):
        return "has a patched class"
    if reason := why_called(module):
        return reason
    return "" if _SHAPES[kind](module) else "has another stride, padding or grouping"


def computes_as_written(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module is of exactly this class, and the class computes what it did when it was registered."""
    if type(module) is not kind:
        return False
    forward, computation = _WRITTEN[kind]
    return kind.forward is forward and getattr(kind, "_conv_forward", None) is computation


def methods(kind: Any) -> tuple[Any, Any]:
    """Where a class computes; a patched class has others."""
    return kind.forward, getattr(kind, "_conv_forward", None)


def register_methods(*kinds: type[nn.Module]) -> None:
    """Note what these classes compute now, for `computes_as_written`."""
    _WRITTEN.update((kind, methods(kind)) for kind in kinds)


def is_untouched(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of it is what its registered class computes, and nobody would notice that it was not made."""
    return computes_as_written(module, kind) and not has_hooks(module)


def wants_gradients(tensors: Iterable[Tensor]) -> bool:
    """Whether a gradient of one of these will be asked for."""
    return torch.is_grad_enabled() and any(map(attrgetter("requires_grad"), tensors))


def has_plain_weights(module: nn.Module) -> bool:
    """Whether a module's own weights are tensors of PyTorch's own class: neither quantised nor distributed."""
    return ops.ordinary(*module.parameters(recurse=False))


def keeps_size(conv: nn.Conv2d) -> bool:
    """Whether it is a depthwise convolution with a square kernel, stride 1 and the zero padding that keeps H and W."""
    (side, width), (dilation, across) = conv.kernel_size, conv.dilation
    span, padding = dilation * (side - 1), conv.padding
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and side == width
        and dilation == across
        and conv.stride == (1, 1)
        and (padding == "same" or (padding == (span // 2, span // 2) and span % 2 == 0))
        and conv.padding_mode == "zeros"
    )


def is_pointwise(conv: nn.Conv2d) -> bool:
    """Whether it is a 1x1 convolution with stride 1."""
    return (
        conv.kernel_size == (1, 1)
        and conv.stride == (1, 1)
        and (conv.padding == (0, 0) or isinstance(conv.padding, str))
        and conv.groups == 1
    )


def is_square(conv: nn.Conv2d) -> bool:
    """Whether an undilated convolution over all channels treats rows as it does columns, with zeros around the map."""
    (side, width), (stride, across) = conv.kernel_size, conv.stride
    return (
        side == width
        and stride == across
        and conv.padding[0] == conv.padding[1]
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )


def is_unpatched(conv: nn.Conv2d) -> bool:
    """Whether it computes by PyTorch's own method; some replace that instead of `forward`, for circular padding say."""
    return "_conv_forward" not in conv.__dict__ and type(conv)._conv_forward is _CONV_FORWARD


def is_idle(dropout: nn.Module) -> bool:
    """Whether nobody would notice that it was not called; dropout may be on in evaluation too, to sample."""
    return type(dropout) is nn.Dropout and not (dropout.training and dropout.p) and not has_hooks(dropout)


def depthwise_weights(conv: Any) -> ops.Conv:
    """Weight, bias, dilation of a DepthwiseConv2d."""
    return conv.weight, conv.bias, conv.dilation[0]


def pointwise_weights(conv: Any) -> ops.Pointwise:
    """Weight and bias of a PointwiseConv2d."""
    return conv.weight, conv.bias


# Shape of a convolution in which `ops` computes it, by its class.
_SHAPES: dict[type[nn.Module], Callable[[Any], bool]] = {DepthwiseConv2d: keeps_size, PointwiseConv2d: is_pointwise}
_CONV_FORWARD = nn.Conv2d._conv_forward
# Class -> its methods when it was written.
_WRITTEN: dict[type[nn.Module], tuple[Any, Any]] = {}
