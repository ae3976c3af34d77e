"""Semantic FPN: a feature pyramid network as neck, a head that brings every level to stride 4 and adds.

Source: Panoptic Feature Pyramid Networks (CVPR 2019), as configured by the VAN segmentation code.

Shape legend: N batch, H height, W width, K classes, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .layers import ConvNormReLU, PixelClassifier, resize


class FPN(nn.Module):
    """Feature pyramid network: one 3x3-smoothed map of `channels` per level, sizes as given."""

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.outputs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)

    def forward(self, pyramid: Sequence[Tensor]) -> tuple[Tensor, ...]:
        levels = [lateral(x) for lateral, x in zip(self.laterals, pyramid, strict=True)]
        for i in reversed(range(len(levels) - 1)):
            levels[i] = levels[i] + F.interpolate(levels[i + 1], levels[i].shape[-2:], mode="nearest")
        return tuple(conv(x) for conv, x in zip(self.outputs, levels, strict=True))


class UpsampleBranch(nn.Module):
    """3x3 convolutions, each but at stride 4 followed by doubling: stride 4·2^k after k doublings is stride 4."""

    def __init__(self, in_channels: int, channels: int, doublings: int) -> None:
        super().__init__()
        self.doublings = doublings
        widths = [in_channels, *[channels] * (max(doublings, 1) - 1)]
        self.convs = nn.ModuleList(ConvNormReLU(width, channels, 3, norm="batch") for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x)
            if self.doublings:
                size = (x.shape[-2] * 2, x.shape[-1] * 2)
                x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        return x


class SemanticFPNHead(nn.Module):
    """Four maps of the neck at strides 4, 8, 16, 32 -> (N, K, H / 4, W / 4)."""

    def __init__(self, in_channels: Sequence[int], *, channels: int, num_classes: int, drop_rate: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList(UpsampleBranch(c, channels, i) for i, c in enumerate(in_channels))
        self.classify = PixelClassifier(channels, num_classes, drop_rate)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        total = self.branches[0](pyramid[0])
        for branch, x in zip(self.branches[1:], pyramid[1:], strict=True):
            total = total + resize(branch(x), like=total)
        return self.classify(total)
