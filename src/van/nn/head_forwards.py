"""Other forwards of the segmentation heads, for the table of fused.py, which says when each may be taken.

Shape legend: N batch, D, K channels, H height, W width, R rank.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops
from .hamburger import EPSILON, NMF, Hamburger
from .heads.layers import ConvNormReLU, PixelClassifier, resize


def joined_conv(module: ConvNormReLU, *parts: Tensor) -> Tensor:
    """With fewer products, those of resized maps at their own sizes; for inference."""
    y = module.norm(ops.joined_conv2d(parts, module.conv.weight, module.conv.bias))
    return F.relu(y, inplace=True)


def sum_of_convolutions(module: ConvNormReLU, *parts: Tensor) -> Tensor:
    """A convolution of joined channels is the sum of its parts' convolutions; the maps are never joined."""
    conv = module.conv
    weights = conv.weight.split([part.shape[1] for part in parts], dim=1)
    total = conv._conv_forward(parts[0], weights[0], conv.bias)
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        total += conv._conv_forward(resize(part, like=parts[0]), weight, None)
    return F.relu(module.norm(total))


def classes_of_pixels(classifier: PixelClassifier, x: Tensor) -> Tensor:
    """The classifier without its dropout."""
    return ops.joined_conv2d([x], classifier.conv.weight, classifier.conv.bias)


def factorised_in_place(ham: NMF, x: Tensor) -> Tensor:
    """On channels_last memory, where a position's channels are a row, without new maps for every step."""
    with torch.autocast("cpu", enabled=False):
        bases, coefficients = _factors(ham, x if x.dtype == torch.float64 else x.float())
        return _as_map(coefficients @ bases.mT, x).to(x.dtype)


def hamburger_of_factors(burger: Hamburger, x: Tensor) -> Tensor:
    """upper · (bases · coefficients) is (upper · bases) · coefficients, also normalised: no map is made for it."""
    lower, norm = burger.lower, burger.norm
    bases, coefficients = _factors(burger.ham, ops.joined_conv2d([x], lower.weight, lower.bias).relu_())
    bases = burger.upper.weight.flatten(1) @ bases  # (N, K, R)
    bases, shift = ops.normalised_bases(bases, coefficients, norm.num_groups, norm.weight, norm.bias, norm.eps)
    return _as_map((_as_rows(x) + shift[:, None]).baddbmm_(coefficients, bases.mT).relu_(), x)


def _factors(ham: NMF, x: Tensor) -> tuple[Tensor, Tensor]:
    """Bases (N, D, R) and coefficients (N, H·W, R) of a map (N, D, H, W)."""
    pixels = _as_rows(x)
    return ops.factorise(pixels, ham.first_bases(pixels.mT).contiguous(), ham.eval_steps, EPSILON)


def _as_rows(x: Tensor) -> Tensor:
    """(N, D, H, W) -> (N, H·W, D), in the same memory where that is channels_last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _as_map(rows: Tensor, like: Tensor) -> Tensor:
    return rows.unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)
