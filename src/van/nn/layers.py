"""The few layers that torch.nn lacks or computes slowly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution, stride 1, size-keeping padding; a plain nn.Conv2d to tools, `ops` to the machine."""

    def __init__(self, channels: int, kernel_size: int, dilation: int = 1) -> None:
        padding = dilation * (kernel_size - 1) // 2
        super().__init__(channels, channels, kernel_size, padding=padding, dilation=dilation, groups=channels)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        return ops.depthwise_conv2d(x, self.weight, self.bias, dilation=self.dilation[0])

    @property
    def conv(self) -> ops.Conv:
        """Weight, bias, dilation."""
        return self.weight, self.bias, self.dilation[0]


class PointwiseConv2d(nn.Conv2d):
    """1x1 convolution; a plain nn.Conv2d to tools, `ops` to the machine."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # (N, C_in, H, W) -> (N, C, H, W)
        return ops.pointwise_conv2d(x, self.weight, self.bias)


def served(x: Tensor, *modules: nn.Module) -> list[ops.Conv]:
    """The convolutions of depthwise modules where the C kernel may compute them together; else none.

    Modules with hooks are called as modules.
    """
    fit = [m for m in modules if isinstance(m, DepthwiseConv2d) and not watched(m)]
    convs = [m.conv for m in fit]
    return convs if len(convs) == len(modules) and ops.kernel_serves(x, *convs) else []


def watched(module: nn.Module) -> bool:
    """Whether somebody listens to the calls of this module."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def depthwise_gelu(depthwise: nn.Module, x: Tensor) -> Tensor:
    """gelu(depthwise(x)), in one go where the C kernel does that: (N, C, H, W) -> (N, C, H, W)."""
    convs = served(x, depthwise)
    return ops.depthwise_gelu(x, *convs) if convs else F.gelu(depthwise(x))


def depthwise_gelu_project(depthwise: nn.Module, project: nn.Module, x: Tensor) -> Tensor:
    """project(gelu(depthwise(x))), in training keeping x alone where that pays: (N, E, H, W) -> (N, K, H, W)."""
    if isinstance(project, PointwiseConv2d) and not watched(project):
        convs = served(x, depthwise) if ops.recomputing_pays(x) else []
        if convs:
            return ops.depthwise_gelu_project(x, convs[0], project.weight, project.bias)
    return project(depthwise_gelu(depthwise, x))


def streamed_feed_forward(expand: nn.Module, depthwise: nn.Module, project: nn.Module, x: Tensor) -> Tensor | None:
    """project(gelu(depthwise(expand(x)))) where the C kernel does that in one go, else None."""
    ends = [m for m in (expand, project) if isinstance(m, PointwiseConv2d) and not watched(m)]
    if len(ends) < 2 or not isinstance(depthwise, DepthwiseConv2d) or watched(depthwise):
        return None
    first, last = ((m.weight, m.bias) for m in ends)
    if not ops.streaming_serves(x, *first, *depthwise.conv[:2], *last):
        return None
    return ops.streamed_feed_forward(x, first, depthwise.conv, last)


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
        mask = torch.empty((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.4f}"


def drop_path(rate: float) -> nn.Module:
    """DropPath, or nothing at all for rate 0."""
    return DropPath(rate) if rate else nn.Identity()
