"""Non-negative matrix factorisation by multiplicative updates, in place, and GroupNorm of a product of two factors.

Shapes: N batch, P positions, D channels, R rank, K channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def factorise(pixels: Tensor, bases: Tensor, steps: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """pixels (N, P, D) ≈ coefficients · basesᵀ after `steps` updates of both, and a last one of the coefficients.

    bases: the first ones, (N, D, R). epsilon: added to denominators. Returns bases (N, D, R), coefficients (N, P, R).
    """
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
