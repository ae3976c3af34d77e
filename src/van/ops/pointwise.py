"""The 1x1 convolution, which is a matrix product wherever the channels of a pixel lie side by side."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pointwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """1x1 convolution with stride 1: x (N, C, H, W), weight (K, C, 1, 1), bias (K,) or None; returns (N, K, H, W)."""
    tracing = torch.compiler.is_exporting() or torch.jit.is_tracing()
    if x.device.type == "cpu" and not tracing and x.is_contiguous(memory_format=torch.channels_last):
        return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias)
