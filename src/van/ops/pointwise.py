"""The 1x1 convolution, which is a matrix product wherever the channels of a pixel lie side by side."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .depthwise import has_gpu_kernel
from .tensors import ordinary, require_loaded

# weight (K, C, 1, 1), bias (K,) or None
Pointwise = tuple[Tensor, Tensor | None]


def pointwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """1x1 convolution with stride 1: x (N, C, H, W), weight (K, C, 1, 1), bias (K,) or None; returns (N, K, H, W)."""
    tracing = torch.compiler.is_exporting() or torch.jit.is_tracing()
    ours = not tracing and ordinary(x, weight, bias) and weight.device == x.device
    if ours and x.is_contiguous(memory_format=torch.channels_last) and _faster_as_product(x):
        return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    require_loaded(x, weight)
    return F.conv2d(x, weight, bias)


def _faster_as_product(x: Tensor) -> bool:
    """On a GPU float32 stays a convolution: PyTorch lets those use TF32 where it computes products in full."""
    if x.device.type == "cpu":
        return True
    half = x.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled("cuda")
    return x.device.type == "cuda" and half and has_gpu_kernel(x)
