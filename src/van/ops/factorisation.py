"""Non-negative matrix factorisation by multiplicative updates, and GroupNorm of a product of two factors.

The factorisation is the C kernel's in float32 on the CPU where that gains (path "factorisation" of measured.py), else
PyTorch's products, in place.

Shapes: N batch, P positions, D channels, R rank, K channels.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..errors import ConfigError
from .c_library import library
from .cpu_depthwise import _check
from .depthwise import has_c_kernel, is_recorded
from .tensors import ordinary


def factorise(pixels: Tensor, bases: Tensor, steps: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """pixels (N, P, D) ≈ coefficients · basesᵀ after `steps` updates of both, and a last one of the coefficients.

    bases: the first ones, (N, D, R). epsilon: added to denominators. Returns bases (N, D, R), coefficients (N, P, R).
    Nobody may want gradients.
    """
    if _has_kernel(pixels, bases):
        return operator(pixels, bases, steps, epsilon)
    products = pixels @ bases
    coefficients = F.softmax(products, dim=-1)
    for _ in range(steps):
        _update(coefficients, products, bases, epsilon)
        scale = bases @ (coefficients.mT @ coefficients)
        bases = (pixels.mT @ coefficients).mul_(bases).div_(scale.add_(epsilon))
        products = torch.bmm(pixels, bases, out=products)
    _update(coefficients, products, bases, epsilon)
    return bases, coefficients


def _update(coefficients: Tensor, products: Tensor, bases: Tensor, epsilon: float) -> None:
    scale = coefficients @ (bases.mT @ bases)
    coefficients.mul_(products).div_(scale.add_(epsilon))


def _has_kernel(pixels: Tensor, bases: Tensor) -> bool:
    if is_recorded() or not ordinary(pixels, bases) or not has_c_kernel(pixels, "factorisation"):
        return False
    if torch.is_grad_enabled() and (pixels.requires_grad or bases.requires_grad):
        return False
    return _fit(pixels, bases) and pixels.numel() > 0 and bases.numel() > 0


def _fit(pixels: Tensor, bases: Tensor) -> bool:
    """Whether these are (N, P, D) and (N, D, R) of one type on one device."""
    alike = (pixels.dtype, pixels.device) == (bases.dtype, bases.device)
    return alike and pixels.ndim == bases.ndim == 3 and (len(pixels), pixels.shape[2]) == bases.shape[:2]


@torch.library.custom_op("van::factorise", mutates_args=(), device_types="cpu")
def operator(pixels: Tensor, bases: Tensor, steps: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """See `factorise`; the C kernel, in float32, or in float64 to check it with. Neither tensor is empty."""
    if not _fit(pixels, bases):  # the last check before memory is read by its address
        given = [(tuple(t.shape), t.dtype, str(t.device)) for t in (pixels, bases)]
        raise ConfigError(f"pixels and bases are {given}; expected (N, P, D) and (N, D, R) of one type on one device")
    (batch, positions, channels), rank = pixels.shape, bases.shape[2]
    handle, pixels = library(pixels.dtype).handle, pixels.contiguous()
    wide = rank + -rank % handle.van_panel()
    factors, coefficients = bases.new_zeros((batch, channels, wide)), pixels.new_empty((batch, positions, wide))
    factors[..., :rank] = bases
    shape = (ctypes.c_long * 5)(batch, positions, channels, rank, wide)
    memory = pixels.new_empty(handle.van_factorise_memory(shape))
    data = factors.data_ptr(), coefficients.data_ptr(), memory.data_ptr()
    _check(handle.van_factorise(pixels.data_ptr(), shape, steps, epsilon, *data, torch.get_num_threads()), pixels)
    return factors[..., :rank].contiguous(), coefficients[..., :rank].contiguous()


@operator.register_fake
def _(pixels: Tensor, bases: Tensor, steps: int, epsilon: float) -> tuple[Tensor, Tensor]:
    return bases.new_empty(bases.shape), pixels.new_empty((*pixels.shape[:2], bases.shape[2]))


@register_flop_formula(torch.ops.van.factorise)
def _(pixels: Sequence[int], bases: Sequence[int], steps: int, *_rest: Any, **_named: Any) -> int:
    """Those of the products that it stands for."""
    (batch, positions, channels), rank = pixels, bases[2]
    return 2 * batch * (2 * steps + 1) * rank * (positions * channels + (positions + channels) * rank)


def normalised_bases(
    bases: Tensor, coefficients: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """GroupNorm of coefficients · basesᵀ: bases (N, K, R) and a shift (N, K) with which the product is normalised.

    The statistics of a product follow from those of its factors; coefficients: (N, P, R), weight and bias: (K,).
    """
    count, channels, _ = bases.shape
    centre = coefficients.mean(1, keepdim=True)  # (N, 1, R)
    around = coefficients - centre
    spread = around.mT @ around / around.shape[1]  # (N, R, R)
    means = (bases @ centre.mT).view(count, groups, -1)
    variances = ((bases @ spread) * bases).sum(-1).view(count, groups, -1)  # of each channel
    mean = means.mean(-1, keepdim=True)
    variance = (variances + (means - mean).square()).mean(-1, keepdim=True)
    scale = (weight.view(groups, -1) * torch.rsqrt(variance + eps)).view(count, channels)
    shift = bias - mean.expand(means.shape).reshape(count, channels) * scale
    return bases * scale[..., None], shift
