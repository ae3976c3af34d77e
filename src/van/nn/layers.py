"""The few layers that torch.nn lacks, and two whose classes say what kind of convolution they are."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class DepthwiseConv2d(nn.Conv2d):
    """nn.Conv2d in every respect, meant for one filter per channel."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class PointwiseConv2d(nn.Conv2d):
    """nn.Conv2d in every respect, meant for 1x1 kernels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def depthwise_conv(channels: int, kernel_size: int, dilation: int = 1) -> DepthwiseConv2d:
    """A depthwise convolution that keeps the map's size: (N, C, H, W) -> (N, C, H, W)."""
    span = dilation * (kernel_size - 1)
    padding: Any = "same" if span % 2 else span // 2  # "same" pads an odd span one more at the bottom and right
    return DepthwiseConv2d(channels, channels, kernel_size, padding=padding, dilation=dilation, groups=channels)


def pointwise_conv(in_channels: int, channels: int) -> PointwiseConv2d:
    """A 1x1 convolution: (N, C_in, H, W) -> (N, C, H, W)."""
    return PointwiseConv2d(in_channels, channels, 1)


def per_channel(values: Tensor) -> Tensor:
    """(C,) -> (C, 1, 1), which multiplies maps of (N, C, H, W)."""
    return values[:, None, None]


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W); the result lies in channels_last memory, as it is computed."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


class DropPath(nn.Module):
    """Stochastic depth: in training a sample's branch is dropped with `rate`, else scaled by 1 / (1 - rate)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        return x * self.factors(x) if self.training else x

    def factors(self, x: Tensor) -> Tensor:
        """0 or 1 / (1 - rate) for every sample, drawn: (N, 1, 1, 1)."""
        keep = 1 - self.rate
        return x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(keep) / keep

    def extra_repr(self) -> str:
        return f"rate={self.rate:.4f}"


def drop_path(rate: float) -> nn.Module:
    """DropPath, or nothing at all for rate 0."""
    return DropPath(rate) if rate else nn.Identity()
