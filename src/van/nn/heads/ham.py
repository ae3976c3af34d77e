"""Light-Ham and HamNet: matrix factorisation as global context.

Source: arXiv 2202.09741, section 4.3; Hamburger, ICLR 2021; the VAN segmentation code of 2022-03.

Shape legend: N batch, H height, W width, K classes; p2 … p5 the pyramid at strides 4, 8, 16, 32 (HamNet: 4, 8, 8, 8).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..hamburger import Hamburger
from .layers import ConvNormReLU, PixelClassifier


class LightHamHead(nn.Module):
    """Stages 2-4 at stride 8, squeezed, through a Hamburger, aligned, classified: (N, K, H / 8, W / 8)."""

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        channels: int,
        ham_channels: int,
        ham_rank: int,
        num_classes: int,
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.squeeze = ConvNormReLU(sum(in_channels[1:]), ham_channels, 1, norm="group")
        self.hamburger = Hamburger(ham_channels, ham_rank)
        self.align = ConvNormReLU(ham_channels, channels, 1, norm="group")
        self.classify = PixelClassifier(channels, num_classes, drop_rate)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        _, p3, p4, p5 = pyramid
        return self.classify(self.align(self.hamburger(self.squeeze(p3, p4, p5))))


class HamNetHead(nn.Module):
    """The last stage at output stride 8 through a Hamburger, joined with itself: (N, K, H / 8, W / 8)."""

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        channels: int,
        ham_channels: int,
        ham_rank: int,
        num_classes: int,
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.squeeze = ConvNormReLU(in_channels[-1], ham_channels, 3, norm="group")
        self.hamburger = Hamburger(ham_channels, ham_rank)
        self.align = ConvNormReLU(ham_channels, channels, 3, norm="group")
        self.join = ConvNormReLU(in_channels[-1] + channels, channels, 3, norm="group")
        self.classify = PixelClassifier(channels, num_classes, drop_rate)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        p5 = pyramid[-1]
        context = self.align(self.hamburger(self.squeeze(p5)))
        return self.classify(self.join(torch.cat([p5, context], dim=1)))
