"""Depthwise convolution that keeps the map's size: both depthwise kernels of large kernel attention, and the 3x3.

Shapes: N batch, C channels, H height, W width, k kernel side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# oneDNN's depthwise kernel accepts at most this much padding; beyond it the library falls back to a slow path.
ONEDNN_MAX_PADDING = 6


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, *, dilation: int = 1) -> Tensor:
    """Depthwise convolution with stride 1 and the zero padding that keeps H and W.

    x: (N, C, H, W), weight: (C, 1, k, k), bias: (C,) or None; returns (N, C, H, W).
    An odd span is padded one more at the bottom and right.
    """
    channels, kernel = weight.shape[0], weight.shape[-1]
    span = dilation * (kernel - 1)
    before, after = span // 2, span - span // 2
    slow = x.device.type == "cpu" and after > ONEDNN_MAX_PADDING and not torch.compiler.is_exporting()
    if slow or before != after:
        x = F.pad(x, (before, after, before, after))
        return F.conv2d(x, weight, bias, dilation=dilation, groups=channels)
    return F.conv2d(x, weight, bias, padding=before, dilation=dilation, groups=channels)
