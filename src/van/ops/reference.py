"""The primitives as library convolutions: what other devices run, what exports trace, what the kernel equals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .tensors import require_loaded

# weight (C, 1, k, k), bias (C,) or None, dilation
Conv = tuple[Tensor, Tensor | None, int]

# oneDNN's depthwise kernel accepts at most this much padding; beyond it the library falls back to a slow path.
ONEDNN_MAX_PADDING = 6


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Depthwise convolution with stride 1 and the zero padding that keeps H and W: (N, C, H, W) -> (N, C, H, W)."""
    channels, kernel = weight.shape[0], weight.shape[-1]
    span = dilation * (kernel - 1)
    before, after = span // 2, span - span // 2
    require_loaded(x, weight)
    slow = x.device.type == "cpu" and after > ONEDNN_MAX_PADDING and not torch.compiler.is_exporting()
    if slow or before != after:
        x = F.pad(x, (before, after, before, after))
        return F.conv2d(x, weight, bias, dilation=dilation, groups=channels)
    return F.conv2d(x, weight, bias, padding=before, dilation=dilation, groups=channels)


def chain(x: Tensor, convs: Sequence[Conv], *, gelu: bool = False) -> Tensor:
    """Depthwise convolutions in a row, then GELU where asked: (N, C, H, W) -> (N, C, H, W)."""
    for weight, bias, dilation in convs:
        x = convolve(x, weight, bias, dilation)
    return F.gelu(x) if gelu else x
