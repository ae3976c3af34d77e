"""What the heads share: convolution-norm-ReLU, bilinear resize, dropout and classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.tensors import ordinary
from ..layers import is_observed


class ConvNormReLU(nn.Module):
    """Convolution without bias, norm, ReLU; size kept. norm: "group" (32 groups) or "batch".

    Several maps stand for their concatenation at the size of the first. It is formed only for a convolution that must
    be called as a module; otherwise the memory of the heads that join a pyramid is halved, because a convolution of
    joined channels is the sum of the convolutions of its parts.
    """

    def __init__(self, in_channels: int, channels: int, kernel_size: int, *, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm: nn.Module = nn.GroupNorm(32, channels) if norm == "group" else nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, *more: Tensor) -> Tensor:  # (N, C_in, H, W) -> (N, C, H, W)
        conv = self.conv
        if more and type(conv) is nn.Conv2d and not is_observed(conv) and ordinary(x, conv.weight):
            return F.relu(self.norm(self._join(x, *more)))
        if more:
            x = torch.cat([x, *(resize(part, like=x) for part in more)], dim=1)
        return F.relu(self.norm(conv(x)))

    def _join(self, *parts: Tensor) -> Tensor:
        conv = self.conv
        weights = conv.weight.split([part.shape[1] for part in parts], dim=1)
        total = conv._conv_forward(parts[0], weights[0], conv.bias)
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            total += conv._conv_forward(resize(part, like=parts[0]), weight, None)
        return total


class PixelClassifier(nn.Module):
    """Dropout of whole channels, then a 1x1 convolution to the classes."""

    def __init__(self, channels: int, num_classes: int, drop_rate: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(drop_rate)
        self.conv = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K, H, W)
        return self.conv(self.dropout(x))

    def resize(self, num_classes: int) -> None:
        """An uninitialised classifier for another number of classes, on the same device, in the same precision."""
        like = self.conv.weight
        self.conv = nn.Conv2d(self.conv.in_channels, num_classes, 1, device=like.device, dtype=like.dtype)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Published initialisation: N(0, 0.01²), bias 0."""
        nn.init.normal_(self.conv.weight, std=0.01, generator=generator)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear (corners not aligned) to the height and width of `like`."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
