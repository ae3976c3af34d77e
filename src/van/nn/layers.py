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
