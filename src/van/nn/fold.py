"""Exact folding for inference: BatchNorm, layer scale and the inner shortcut disappear into convolutions.

Published block, with n = a·x + b the first BatchNorm, s1 and s2 the layer scales:

    x + s1·(n + out(gate(gelu(in(n)))))  =  (1 + s1·a)·x + out'(gate(gelu(in'(x))))
    x + s2·project(gelu(depthwise(expand(BN2(x)))))  =  x + project'(gelu(depthwise(expand'(x))))

A primed convolution has the affine map before or after it multiplied in; out' also carries s1·b in its bias.
The products are formed in float64 and rounded once.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .backbone import Backbone, Block


class FoldedBlock(nn.Module):
    """An inference-only Block: four convolutions fewer affine maps; (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        attention, feed_forward = block.attention, block.feed_forward
        a, b = _affine(block.norm1)
        scale1, scale2 = block.scale1.double(), block.scale2.double()
        self.proj_in = _after_affine(attention.proj_in, a, b)
        self.spatial = attention.spatial
        self.proj_out = _before_scale(attention.proj_out, scale1, shift=scale1 * b)
        self.expand = _after_affine(feed_forward.expand, *_affine(block.norm2))
        self.depthwise = feed_forward.depthwise
        self.project = _before_scale(feed_forward.project, scale2)
        self.shortcut: Tensor
        self.register_buffer("shortcut", (1 + scale1 * a).to(block.scale1.dtype)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        x = torch.addcmul(self.proj_out(self.spatial(F.gelu(self.proj_in(x)))), x, self.shortcut)
        return x + self.project(F.gelu(self.depthwise(self.expand(x))))


def fold(model: nn.Module) -> nn.Module:
    """A copy of `model` in eval mode whose backbones are folded; the original is untouched.

    Raises ConfigError when the model holds no Backbone or is folded already.
    """
    backbones = [m for m in model.modules() if isinstance(m, Backbone)]
    if not backbones:
        raise ConfigError(f"nothing to fold in {type(model).__name__}; expected a model with a van.nn.Backbone")
    if any(isinstance(m, FoldedBlock) for m in model.modules()):
        raise ConfigError("the model is folded already; fold the original")
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    with torch.no_grad():
        for backbone in (m for m in folded.modules() if isinstance(m, Backbone)):
            for stage in backbone.stages:
                stage.patch_embed.conv = _conv_then_affine(stage.patch_embed.conv, *_affine(stage.patch_embed.norm))
                stage.patch_embed.norm = nn.Identity()
                stage.blocks = nn.ModuleList(FoldedBlock(block) for block in stage.blocks)
    return folded


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """(a, b) in float64 with norm(x) = a·x + b in eval mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    a = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return a, norm.bias.double() - a * norm.running_mean.double()


def _after_affine(conv: nn.Conv2d, a: Tensor, b: Tensor) -> nn.Conv2d:
    """conv(a·x + b) as one 1x1 convolution."""
    weight = conv.weight.double()
    return _with(conv, weight * a[:, None, None], _bias(conv) + weight.flatten(1) @ b)


def _before_scale(conv: nn.Conv2d, scale: Tensor, shift: Tensor | float = 0.0) -> nn.Conv2d:
    """scale·conv(x) + shift as one convolution."""
    return _with(conv, conv.weight.double() * scale[:, None, None, None], _bias(conv) * scale + shift)


def _conv_then_affine(conv: nn.Conv2d, a: Tensor, b: Tensor) -> nn.Conv2d:
    """a·conv(x) + b as one convolution."""
    return _before_scale(conv, a, shift=b)


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias.double()


def _with(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    new = copy.deepcopy(conv)
    new.weight.copy_(weight)
    assert new.bias is not None
    new.bias.copy_(bias)
    return new
