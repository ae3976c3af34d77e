"""UperNet: pyramid pooling on the last stage, a feature pyramid below it, all levels joined at stride 4.

Source: Unified Perceptual Parsing for Scene Understanding (ECCV 2018), as configured by the VAN segmentation code.

Shape legend: N batch, H height, W width, K classes, C channels of the head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from .layers import ConvNormReLU, PixelClassifier, resize


class CellMeans(nn.AdaptiveAvgPool2d):
    """The means of s x s cells, which share rows and columns where they do not divide the map: (N, C, s, s)."""

    def __init__(self, cells: int) -> None:
        super().__init__(cells)
        self.cells = cells

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def cell_shares(cells: int, side: int, like: Tensor) -> Tensor:
    """(cells, side): each pixel's part in each cell's mean; of s cells on n pixels, i has ⌊i·n/s⌋ to ⌈(i + 1)·n/s⌉."""
    cell = torch.arange(cells, device=like.device)[:, None]
    pixel = torch.arange(side, device=like.device)
    inside = ((pixel + 1) * cells > cell * side) & (pixel * cells < (cell + 1) * side)
    return inside.to(like.dtype) / inside.sum(1, keepdim=True)


class PyramidPooling(nn.Module):
    """The map and its average over 1, 2², 3² and 6² cells, joined by a 3x3 convolution: (N, C_in, H, W) -> C.

    Raises ConfigError for a single image in training: BatchNorm cannot normalise the one pooled value per channel.
    """

    def __init__(self, in_channels: int, channels: int, scales: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.pools = nn.ModuleList(CellMeans(scale) for scale in scales)
        self.convs = nn.ModuleList(ConvNormReLU(in_channels, channels, 1, norm="batch") for _ in scales)
        self.join = ConvNormReLU(in_channels + len(scales) * channels, channels, 3, norm="batch")

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        return self.join(x, *(conv(pool(x)) for pool, conv in zip(self.pools, self.convs, strict=True)))

    def _check(self, x: Tensor) -> None:
        norm = self.convs[0].norm
        if isinstance(norm, nn.BatchNorm2d) and norm.training and x.shape[0] == 1:
            raise ConfigError(
                "UperNet got 1 image in training; its pooled branch needs 2 or more per device, or SyncBatchNorm"
            )


class UperNetHead(nn.Module):
    """Four maps at strides 4 to 32 -> (N, K, H / 4, W / 4)."""

    def __init__(self, in_channels: Sequence[int], *, channels: int, num_classes: int, drop_rate: float) -> None:
        super().__init__()
        self.pooling = PyramidPooling(in_channels[-1], channels)
        self.laterals = nn.ModuleList(ConvNormReLU(c, channels, 1, norm="batch") for c in in_channels[:-1])
        self.outputs = nn.ModuleList(ConvNormReLU(channels, channels, 3, norm="batch") for _ in in_channels[:-1])
        self.join = ConvNormReLU(len(in_channels) * channels, channels, 3, norm="batch")
        self.classify = PixelClassifier(channels, num_classes, drop_rate)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        return self.classify(self.join(*self._levels(pyramid)))

    def _levels(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """All levels, (N, C, H_i, W_i), the finest first."""
        levels = [lateral(x) for lateral, x in zip(self.laterals, pyramid, strict=False)]
        levels.append(self.pooling(pyramid[-1]))
        for i in reversed(range(len(levels) - 1)):
            levels[i] = levels[i] + resize(levels[i + 1], like=levels[i])
        for i, conv in enumerate(self.outputs):
            levels[i] = conv(levels[i])
        return levels
