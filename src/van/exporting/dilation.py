"""Dilated depthwise convolutions as dense ones, for accelerators that lack dilation.

With dilation d a convolution never mixes pixels whose rows or columns differ by anything but multiples of d: the map
is d·d interleaved maps, its phases, and on each of them the convolution is a dense one with the same kernel.

Shapes: N batch, C channels, H height, W width, d dilation, k kernel side.
"""

from __future__ import annotations

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.layers import DepthwiseConv2d


class PhasedConv2d(nn.Module):
    """A dilated DepthwiseConv2d as a dense depthwise convolution of its d·d phases: (N, C, H, W) -> (N, C, H, W).

    The phases lie side by side among the channels, each channel's together, so the batch stays the batch.
    """

    def __init__(self, conv: DepthwiseConv2d) -> None:
        super().__init__()
        self.phases = conv.dilation[0]
        kernel, channels = conv.kernel_size[0], conv.out_channels * self.phases**2
        span = self.phases * (kernel - 1)
        self.padding = -(-(span // 2) // self.phases)  # per phase: ceil
        self.start = self.padding * self.phases - span // 2  # rows and columns that even kernels get too many of
        self.dense = nn.Conv2d(channels, channels, kernel, padding=self.padding, groups=channels)
        copies = self.phases**2
        self.dense.weight = nn.Parameter(conv.weight.repeat_interleave(copies, 0), requires_grad=False)
        if conv.bias is None:
            self.dense.bias = None
        else:
            self.dense.bias = nn.Parameter(conv.bias.repeat_interleave(copies), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width, d = x.shape[2], x.shape[3], self.phases
        right, bottom = ((side + self.start + d - 1) // d * d - side for side in (width, height))
        x = F.pad(x, (0, right, 0, bottom))  # to whole phases, with the zeros that the convolution adds anyway
        x = F.pixel_shuffle(self.dense(F.pixel_unshuffle(x, d)), d)
        return x[:, :, self.start : self.start + height, self.start : self.start + width]


def without_dilation(model: nn.Module) -> nn.Module:
    """A copy in which every dilated depthwise convolution is a PhasedConv2d."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, DepthwiseConv2d) and child.dilation[0] > 1:
                setattr(module, name, PhasedConv2d(child))
    return model
