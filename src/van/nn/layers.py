"""The few layers that torch.nn lacks or computes slowly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from .. import ops

# Where PyTorch's convolutions compute; some replace it instead of `forward`, for circular padding say.
_CONV_FORWARD = nn.Conv2d._conv_forward


class DepthwiseConv2d(nn.Conv2d):
    """nn.Conv2d in every respect; `ops` computes it where it is depthwise and keeps the map's size."""

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, Tensor) and _keeps_size(self) and _is_unpatched(self):  # torch.fx traces with stand-ins
            return ops.depthwise_conv2d(x, self.weight, self.bias, dilation=self.dilation[0])
        return super().forward(x)

    @property
    def conv(self) -> ops.Conv:
        """Weight, bias, dilation."""
        return self.weight, self.bias, self.dilation[0]


class PointwiseConv2d(nn.Conv2d):
    """nn.Conv2d in every respect; `ops` computes it where it is 1x1 with stride 1."""

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, Tensor) and _is_pointwise(self) and _is_unpatched(self):
            return ops.pointwise_conv2d(x, self.weight, self.bias)
        return super().forward(x)


def depthwise_conv(channels: int, kernel_size: int, dilation: int = 1) -> DepthwiseConv2d:
    """A depthwise convolution that keeps the map's size: (N, C, H, W) -> (N, C, H, W)."""
    span = dilation * (kernel_size - 1)
    padding: Any = "same" if span % 2 else span // 2  # "same" pads an odd span one more at the bottom and right
    return DepthwiseConv2d(channels, channels, kernel_size, padding=padding, dilation=dilation, groups=channels)


def pointwise_conv(in_channels: int, channels: int) -> PointwiseConv2d:
    """A 1x1 convolution: (N, C_in, H, W) -> (N, C, H, W)."""
    return PointwiseConv2d(in_channels, channels, 1)


def _keeps_size(conv: nn.Conv2d) -> bool:
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


def _is_pointwise(conv: nn.Conv2d) -> bool:
    return (
        conv.kernel_size == (1, 1)
        and conv.stride == (1, 1)
        and (conv.padding == (0, 0) or isinstance(conv.padding, str))
        and conv.groups == 1
    )


def _is_unpatched(conv: nn.Conv2d) -> bool:
    return "_conv_forward" not in conv.__dict__ and type(conv)._conv_forward is _CONV_FORWARD


# Where a module's weights may be read instead of calling it: its class, what that computes, in which shape.
_FUSIBLE: dict[type[nn.Module], tuple[Any, Callable[[Any], bool]]] = {
    DepthwiseConv2d: (DepthwiseConv2d.forward, _keeps_size),
    PointwiseConv2d: (PointwiseConv2d.forward, _is_pointwise),
}


# What of a convolution is replaced on single instances.
REPLACEABLE = frozenset(("forward", "_conv_forward"))


def can_fuse(*modules: nn.Module) -> bool:
    """Whether convolutions may be computed together from their weights: nobody would notice that none was called."""
    return not (_has_any_global_hook() or any(map(why_not_fused, modules)))


def is_observed(module: nn.Module) -> bool:
    """Whether calling this instance does more than its class tells."""
    return _has_any_global_hook() or bool(why_called(module))


def why_not_fused(module: nn.Module) -> str:
    """Why this module must be called, in words; "" where it is an untouched convolution of this file.

    Replaced forwards are how offloaded weights arrive; parametrizations and adapters make the module another class.
    """
    kind = type(module)
    if kind not in _FUSIBLE:
        return f"is a {kind.__name__}"
    forward, has_shape = _FUSIBLE[kind]
    if kind.forward is not forward or getattr(kind, "_conv_forward", None) is not _CONV_FORWARD:
        return "has a patched class"
    if reason := why_called(module):
        return reason
    return "" if has_shape(module) else "has another stride, padding or grouping"


def why_called(module: nn.Module) -> str:
    """What of this instance its class does not tell: a replaced forward, or hooks; "" for none."""
    if not REPLACEABLE.isdisjoint(module.__dict__):
        return "has a replaced forward"
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return "has hooks" if hooks else ""


def is_idle(dropout: nn.Module) -> bool:
    """Whether nobody would notice that it was not called; dropout may be on in evaluation too, to sample."""
    return type(dropout) is nn.Dropout and not (dropout.training and dropout.p) and not is_observed(dropout)


def served(x: Tensor, *modules: nn.Module) -> list[ops.Conv]:
    """The convolutions of depthwise modules where a kernel may compute them together; else none."""
    fit = [m for m in modules if isinstance(m, DepthwiseConv2d)]
    if len(fit) < len(modules) or not can_fuse(*fit):
        return []
    convs = [m.conv for m in fit]
    return convs if ops.kernel_serves(x, *convs) else []


def depthwise_gelu(depthwise: nn.Module, x: Tensor) -> Tensor:
    """gelu(depthwise(x)), in one go where the C kernel does that: (N, C, H, W) -> (N, C, H, W)."""
    convs = served(x, depthwise)
    return ops.depthwise_gelu(x, *convs) if convs else F.gelu(depthwise(x))


def depthwise_gelu_project(depthwise: nn.Module, project: nn.Module, x: Tensor) -> Tensor:
    """project(gelu(depthwise(x))), in training keeping x alone where that pays: (N, E, H, W) -> (N, K, H, W)."""
    if isinstance(project, PointwiseConv2d) and can_fuse(project):
        convs = served(x, depthwise) if ops.recomputing_pays(x) else []
        if convs:
            return ops.depthwise_gelu_project(x, convs[0], project.weight, project.bias)
    return project(depthwise_gelu(depthwise, x))


def streamed_feed_forward(expand: nn.Module, depthwise: nn.Module, project: nn.Module, x: Tensor) -> Tensor | None:
    """project(gelu(depthwise(expand(x)))) where the C kernel does that in one go, else None."""
    ends = [m for m in (expand, project) if isinstance(m, PointwiseConv2d)]
    if len(ends) < 2 or not isinstance(depthwise, DepthwiseConv2d) or not can_fuse(*ends, depthwise):
        return None
    conv, (first, last) = depthwise.conv, ((m.weight, m.bias) for m in ends)
    return ops.streamed_feed_forward(x, first, conv, last) if ops.streaming_serves(x, first, conv, last) else None


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W); the result lies in channels_last memory, as it is computed."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        if torch.compiler.is_exporting():  # runtimes copy the map to move its channels, but take means where they are
            y = x - x.mean(1, keepdim=True)
            y = y * torch.rsqrt((y * y).mean(1, keepdim=True) + self.eps)
            return y * self.weight[:, None, None] + self.bias[:, None, None]
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


class DropPath(nn.Module):
    """Stochastic depth: in training a sample's branch is dropped with `rate`, else scaled by 1 / (1 - rate)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        if not self.training:
            return x
        keep = 1 - self.rate
        mask = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.4f}"


def drop_path(rate: float) -> nn.Module:
    """DropPath, or nothing at all for rate 0."""
    return DropPath(rate) if rate else nn.Identity()
