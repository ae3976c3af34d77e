"""The auxiliary head: one 3x3 convolution and a classifier on an intermediate stage.

Source: Fully Convolutional Networks (CVPR 2015), as configured by the VAN segmentation code.
"""

from __future__ import annotations

from torch import Tensor, nn

from .layers import ConvNormReLU, PixelClassifier


class FCNHead(nn.Module):
    """(N, C_in, H, W) -> (N, K, H, W)."""

    def __init__(self, in_channels: int, *, channels: int, num_classes: int, drop_rate: float, norm: str) -> None:
        super().__init__()
        self.conv = ConvNormReLU(in_channels, channels, 3, norm=norm)
        self.classify = PixelClassifier(channels, num_classes, drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.conv(x))
