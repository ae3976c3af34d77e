"""The convolutions of the segmentation heads on a CPU, without gradients: of one map, or of several joined ones.

| kernel | at the first map's size | for the maps that are resized to it |
|---|---|---|
| 3x3, large maps | Winograd's products (winograd.py) | products at their own size (resized.py) |
| 1x1 | a matrix product, the C kernel's where it gains | a product at their own size, then resized |
| otherwise | the library's convolution | the same |

Shapes: N batch, C and K channels, k kernel side, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import resized, winograd
from .c_library import _wish
from .depthwise import _kernels_wanted, has_c_kernel, is_recorded
from .folded_block import NARROW, folded_patch, pack_patch
from .operators import constant_in_graphs
from .tensors import ordinary

# From here on Winograd's algorithm gains what the kernels' transform costs: channels on either side, pixels.
CHANNELS, PIXELS = 64, 1024


def can_join(parts: Sequence[Tensor], weight: Tensor, bias: Tensor | None) -> bool:
    """Whether `joined_conv2d` computes this: float32 or float64 on the CPU, no gradient wanted, nothing exported."""
    tensors = [*parts, weight, *([] if bias is None else [bias])]
    if is_recorded() or not ordinary(*tensors) or not _wanted():
        return False
    if torch.is_autocast_enabled("cpu") or (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
        return False
    kinds = {(t.device.type, t.dtype) for t in tensors}
    if kinds not in ({("cpu", torch.float32)}, {("cpu", torch.float64)}):
        return False
    maps = all(part.ndim == 4 and part.numel() and len(part) == len(parts[0]) for part in parts)
    return maps and weight.ndim == 4 and sum(part.shape[1] for part in parts) == weight.shape[1]


def can_factorise(x: Tensor) -> bool:
    """Whether `factorise` is to compute a map's factorisation: on the CPU, where kernels are wanted."""
    return x.device.type == "cpu" and x.is_floating_point() and ordinary(x) and _wanted()


@constant_in_graphs
def _wanted() -> bool:
    return _kernels_wanted.get() and _wish() != "plain"


def joined_conv2d(parts: Sequence[Tensor], weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution with stride 1 and zero padding k // 2, k odd, of maps joined at the size of the first, no gradients.

    parts: (N, C_i, H_i, W_i), each resized bilinearly, corners not aligned, to the first; weight: (K, sum of the C_i,
    k, k); bias: (K,) or None; what `can_join` approves. Returns (N, K, H, W) in channels_last memory of its own.
    """
    return operator(parts, weight, bias)


@torch.library.custom_op("van::joined_conv2d", mutates_args=(), device_types="cpu")
def operator(parts: Sequence[Tensor], weight: Tensor, bias: Tensor | None) -> Tensor:
    """See `joined_conv2d`."""
    size, weights = parts[0].shape[2:], weight.split([part.shape[1] for part in parts], dim=1)
    total = _convolve(parts[0], weights[0], bias)
    for part, own in zip(parts[1:], weights[1:], strict=True):
        if part.shape[2:].numel() < size.numel():
            resized.add_convolved(total, part, own)
        else:
            total += _convolve(F.interpolate(part, size, mode="bilinear", align_corners=False), own, None)
    return total.permute(0, 3, 1, 2)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(N, C, H, W) -> (N, H, W, K), contiguous."""
    outputs, channels, side, _ = weight.shape
    pixels = x.permute(0, 2, 3, 1).contiguous()
    if side == 1:
        return _product(pixels, weight, bias)
    if side == winograd.KERNEL and min(outputs, channels) >= CHANNELS and pixels.shape[:3].numel() >= PIXELS:
        return winograd.convolve(pixels, weight, bias)
    y = F.conv2d(pixels.permute(0, 3, 1, 2), weight, bias, padding=side // 2)
    return y.permute(0, 2, 3, 1).contiguous()


def _product(pixels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(N, H, W, C) -> (N, H, W, K)."""
    packed = None
    if weight.shape[1] >= NARROW and has_c_kernel(pixels, "folded_patch"):
        packed = pack_patch(weight.contiguous(), bias, stride=1, padding=0)
    if packed is None:
        return F.linear(pixels, weight.flatten(1), bias)
    y = folded_patch(pixels.permute(0, 3, 1, 2), packed)
    return y.permute(0, 2, 3, 1).contiguous()


@operator.register_fake
def _(parts: Sequence[Tensor], weight: Tensor, bias: Tensor | None) -> Tensor:
    batch, _, height, width = parts[0].shape
    return parts[0].new_empty((batch, height, width, len(weight))).permute(0, 3, 1, 2)


@register_flop_formula(torch.ops.van.joined_conv2d)
def _(parts: Sequence[Sequence[int]], weight: Sequence[int], *_rest: Any, **_named: Any) -> int:
    """Those of the convolution that it stands for."""
    batch, _, height, width = parts[0]
    outputs, channels, side, _ = weight
    return 2 * batch * height * width * outputs * channels * side**2
