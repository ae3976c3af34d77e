"""Exact folding for inference: BatchNorm, layer scale and the inner shortcut disappear into convolutions.

Published block, with n = a·x + b the first BatchNorm, s1 and s2 the layer scales:

    x + s1·(n + out(gate(gelu(in(n)))))  =  (1 + s1·a)·x + out'(gate(gelu(in'(x))))
    x + s2·project(gelu(depthwise(expand(BN2(x)))))  =  x + project'(gelu(depthwise(expand'(x))))

A primed convolution has the affine map before or after it multiplied in; out' also carries s1·b in its bias.
The products are formed in float64 and rounded once.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from ..errors import ConfigError
from .backbone import Backbone, Block, PatchEmbed, Stage
from .heads.layers import ConvNormReLU
from .layers import depthwise_gelu, streamed_feed_forward, watched


class _Packed(nn.Module):
    """A module with a packed copy of its weights for the C kernel.

    The copy follows `to`, `load_state_dict` and the like, not weights that are written in place. It is made anew where
    a pickled module is read, because its layout is that of the processor.
    """

    packed: Any

    def _pack(self) -> Any:
        """The weights as the kernel reads them; None where it cannot compute this module."""
        raise NotImplementedError

    def _apply(self, fn: Any, recurse: bool = True) -> _Packed:
        super()._apply(fn, recurse)
        self.packed = self._pack()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "packed": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.packed = self._pack()


def _pack_again(module: Any, _incompatible: Any) -> None:
    module.packed = module._pack()


class FoldedPatchEmbed(_Packed):
    """An inference-only PatchEmbed, its BatchNorm in its convolution: (N, C_in, H, W) -> (N, C, H', W')."""

    def __init__(self, patch_embed: PatchEmbed) -> None:
        super().__init__()
        self.conv = _conv_then_affine(patch_embed.conv, *_affine(patch_embed.norm))
        self.packed = self._pack()
        self.register_load_state_dict_post_hook(_pack_again)

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is not None and ops.block_kernel_serves(x):
            return ops.folded_patch(x, self.packed)
        return self.conv(x)

    def _pack(self) -> ops.PackedPatch | None:
        return ops.pack_patch(self.conv) if ops.path_taken("folded_patch") else None


class FoldedBlock(_Packed):
    """An inference-only Block: its affine maps live in its convolutions; (N, C, H, W) -> (N, C, H, W).

    Where the C kernel serves it, the whole block is one call and the modules inside are not called.
    """

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
        self.packed = self._pack()
        self.register_load_state_dict_post_hook(_pack_again)

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is not None and ops.block_kernel_serves(x):
            return ops.folded_blocks(x, self.packed)
        x = torch.addcmul(self.proj_out(self.spatial(_gelu_(self.proj_in(x)))), x, self.shortcut)
        y = streamed_feed_forward(self.expand, self.depthwise, self.project, x)
        return x + (self.project(depthwise_gelu(self.depthwise, self.expand(x))) if y is None else y)

    def _pack(self) -> ops.PackedBlocks | None:
        spatial = self.spatial
        if not ops.path_taken("folded_blocks"):
            return None
        if spatial.gate != "multiply" or nn.Identity in {type(m) for m in (spatial.near, spatial.far, spatial.mix)}:
            return None
        products = [self.proj_in, spatial.mix, self.proj_out, self.expand, self.project]
        return ops.pack_block(products, [spatial.near, spatial.far, self.depthwise], self.shortcut)


class FoldedStage(_Packed):
    """An inference-only Stage; its blocks are one operator where the C kernel serves them and nobody listens to one.

    (N, C_in, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)).
    """

    grad_checkpointing = False  # of a Stage: nothing is kept here

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.patch_embed = FoldedPatchEmbed(stage.patch_embed)
        self.blocks = nn.ModuleList(FoldedBlock(cast(Block, block)) for block in stage.blocks)
        self.norm = stage.norm
        self.packed = self._pack()
        self.register_load_state_dict_post_hook(_pack_again)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        if self.packed is not None and ops.block_kernel_serves(x) and not any(map(watched, self.blocks)):
            x = ops.folded_blocks(x, self.packed)
        else:
            for block in self.blocks:
                x = block(x)
        return self.norm(x)

    def _pack(self) -> ops.PackedBlocks | None:
        """The blocks' packed weights in one tensor, of which theirs become views."""
        blocks = [cast(FoldedBlock, block) for block in self.blocks]
        packed = [block.packed for block in blocks]
        if not packed or None in packed:
            return None
        whole = ops.PackedBlocks(torch.cat([one.weights for one in packed]), packed[0].numbers)
        for i, block in enumerate(blocks):
            block.packed = ops.PackedBlocks(whole.weights[i : i + 1], whole.numbers)
        return whole


def fold(model: nn.Module) -> nn.Module:
    """A copy of `model` in eval mode, its backbones and its heads' BatchNorms folded; the original is untouched.

    Raises ConfigError when the model holds no Backbone or is folded already.
    """
    if not any(isinstance(m, Backbone) for m in model.modules()):
        raise ConfigError(f"nothing to fold in {type(model).__name__}; expected a model with a van.nn.Backbone")
    if is_folded(model):
        raise ConfigError("the model is folded already; fold the original")
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    with torch.no_grad():
        for module in list(folded.modules()):
            if isinstance(module, Backbone):
                module.stages = nn.ModuleList(FoldedStage(cast(Stage, stage)) for stage in module.stages)
            elif isinstance(module, ConvNormReLU) and isinstance(module.norm, nn.modules.batchnorm._BatchNorm):
                _fold_norm(module)
    return folded


def is_folded(model: nn.Module) -> bool:
    """Whether `fold` made this model, or a part of it."""
    return any(isinstance(m, FoldedBlock) for m in model.modules())


def _gelu_(x: Tensor) -> Tensor:
    """GELU in x's own memory, which spares fresh pages for a map; autograd keeps a copy where it needs one."""
    return F.gelu(x) if torch.compiler.is_exporting() else torch.ops.aten.gelu_(x)


def _fold_norm(module: ConvNormReLU) -> None:
    """Put the BatchNorm that follows a convolution into it."""
    module.conv = _conv_then_affine(module.conv, *_affine(module.norm))
    module.norm = nn.Identity()


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """(a, b) in float64 with norm(x) = a·x + b in eval mode."""
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_mean is None or norm.running_var is None:
        raise ConfigError(f"cannot fold {norm}; expected a BatchNorm with running statistics")
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
    if conv.bias is None:
        return conv.weight.new_zeros(conv.out_channels, dtype=torch.float64)
    return conv.bias.double()


def _with(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    new = copy.deepcopy(conv)
    new.weight.copy_(weight)
    new.bias = nn.Parameter(bias.to(new.weight.dtype), requires_grad=False)
    return new
