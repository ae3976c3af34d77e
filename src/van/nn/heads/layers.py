"""What the heads share: convolution-norm-ReLU, bilinear resize, dropout and classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNormReLU(nn.Module):
    """Convolution without bias, norm, ReLU; size kept. norm: "group" (32 groups) or "batch".

    Several maps stand for their concatenation at the size of the first.
    """

    def __init__(self, in_channels: int, channels: int, kernel_size: int, *, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm: nn.Module = nn.GroupNorm(32, channels) if norm == "group" else nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, *more: Tensor) -> Tensor:  # (N, C_in, H, W) -> (N, C, H, W)
        if more:
            x = torch.cat([x, *(resize(part, like=x) for part in more)], dim=1)
        return F.relu(self.norm(self.conv(x)))


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
