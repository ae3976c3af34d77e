"""Exact folding for inference: BatchNorm, layer scale and the inner shortcut disappear into convolutions.

Published block, with n = a·x + b the first BatchNorm, s1 and s2 the layer scales:

    x + s1·(n + out(gate(gelu(in(n)))))  =  (1 + s1·a)·x + out'(gate(gelu(in'(x))))
    x + s2·project(gelu(depthwise(expand(BN2(x)))))  =  x + project'(gelu(depthwise(expand'(x))))

A primed convolution has the affine map before or after it multiplied in; out' also carries s1·b in its bias.
The products are formed in float64 and rounded once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from ..errors import ConfigError
from .backbone import Backbone, Block, LargeKernelAttention, PatchEmbed, Stage
from .foldable import evaluate_parametrizations, refuse_what_folding_loses
from .fusable import (
    can_fuse,
    computes_as_written,
    depthwise_weights,
    has_hooks,
    is_square,
    pointwise_weights,
    register_methods,
    wants_gradients,
    why_not_fused,
)
from .heads.layers import ConvNormReLU
from .layers import LayerNorm2d
from .packed import Packed


class FoldedPatchEmbed(Packed):
    """An inference-only PatchEmbed, its BatchNorm in its convolution: (N, C_in, H, W) -> (N, C, H', W')."""

    def __init__(self, patch_embed: PatchEmbed) -> None:
        super().__init__()
        self.conv = _conv_then_affine(patch_embed.conv, *_affine(patch_embed.norm))
        self.pack_again()
        self.register_load_state_dict_post_hook(Packed.pack_again)

    def forward(self, x: Tensor) -> Tensor:
        packed = self.ready(x)
        return self.conv(x) if packed is None else ops.folded_patch(x, packed)

    def inside(self) -> Iterable[nn.Module]:
        """See Packed."""
        return [self.conv]

    def pack(self, products: torch.dtype) -> ops.PackedPatch | None:
        """See Packed."""
        conv = self.conv
        if not ops.path_taken("folded_patch") or not computes_as_written(conv, nn.Conv2d) or not is_square(conv):
            return None
        stride, padding = conv.stride[0], int(conv.padding[0])
        return ops.pack_patch(conv.weight, conv.bias, stride=stride, padding=padding, of=products)


class FoldedBlock(Packed):
    """An inference-only Block: its affine maps live in its convolutions; (N, C, H, W) -> (N, C, H, W).

    Where the C kernel serves it, the whole block is one call and the modules inside are not called.
    """

    packs_at_once = False  # its stage does

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
        self.pack_again()
        self.register_load_state_dict_post_hook(Packed.pack_again)

    def forward(self, x: Tensor) -> Tensor:
        packed = self.ready(x)
        if packed is not None:
            return ops.folded_blocks(x, packed)
        hidden = self.proj_in(x)
        # in x's own memory, which spares fresh pages for a map, only where nobody else can hold it
        hidden = torch.ops.aten.gelu_(hidden) if can_fuse(x, pointwise=(self.proj_in,)) else F.gelu(hidden)
        x = torch.addcmul(self.proj_out(self.spatial(hidden)), x, self.shortcut)
        return x + self._feed_forward(x)

    def _feed_forward(self, x: Tensor) -> Tensor:
        if can_fuse(x, depthwise=(self.depthwise,), pointwise=(self.expand, self.project)):
            ends = pointwise_weights(self.expand), pointwise_weights(self.project)
            return ops.chunked_feed_forward(x, ends[0], depthwise_weights(self.depthwise), ends[1])
        if can_fuse(x, depthwise=(self.depthwise,)):
            return self.project(ops.depthwise_gelu(self.expand(x), depthwise_weights(self.depthwise)))
        return self.project(F.gelu(self.depthwise(self.expand(x))))

    def inside(self) -> Iterable[nn.Module]:
        """See Packed."""
        return list(self.modules())[1:]

    def pack(self, products: torch.dtype) -> ops.PackedBlocks | None:
        """See Packed."""
        spatial = self.spatial
        if not ops.path_taken("folded_blocks"):
            return None
        if not computes_as_written(spatial, LargeKernelAttention) or spatial.gate != "multiply":
            return None
        pointwise: list[Any] = [self.proj_in, spatial.mix, self.proj_out, self.expand, self.project]
        depthwise: list[Any] = [spatial.near, spatial.far, self.depthwise]
        if any(map(why_not_fused, [*pointwise, *depthwise])):
            return None
        pairs, triples = map(pointwise_weights, pointwise), map(depthwise_weights, depthwise)
        return ops.pack_block(list(pairs), list(triples), self.shortcut, of=products)


class FoldedStage(Packed):
    """An inference-only Stage; where the C kernel serves patch embedding, blocks and norm, they are one operator.

    (N, C_in, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)).
    """

    grad_checkpointing = False  # of a Stage: nothing is kept here

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.patch_embed = FoldedPatchEmbed(stage.patch_embed)
        self.blocks = nn.ModuleList(FoldedBlock(cast(Block, block)) for block in stage.blocks)
        self.norm = stage.norm
        self.pack_again()
        self.register_load_state_dict_post_hook(Packed.pack_again)

    def forward(self, x: Tensor) -> Tensor:
        packed = self.ready(x)
        if packed is not None:
            x = ops.folded_blocks(x if packed.patch is not None else self.patch_embed(x), packed)
            return x if packed.norm is not None else self.norm(x)
        x = self.patch_embed(x)
        for block in self.blocks:
            x = block(x)
        return self._normalised(x)

    def _normalised(self, x: Tensor) -> Tensor:
        """As the kernel does it after all blocks, so that a block that is called as a module changes no figure."""
        norm, here = self.norm, ops.path_taken("folded_blocks") and ops.has_block_kernel(x)
        here = here and not torch.compiler.is_compiling()
        if here and computes_as_written(norm, LayerNorm2d) and not has_hooks(norm):
            packed = ops.pack_norm(norm.weight, norm.bias)
            if packed is not None and not wants_gradients(norm.parameters()):
                return ops.channel_norm(x, packed, norm.eps)
        return norm(x)

    def inside(self) -> Iterable[nn.Module]:
        """See Packed."""
        return [*self.patch_embed.modules(), *self.blocks.modules(), *self.norm.modules()]

    def pack(self, products: torch.dtype) -> ops.PackedBlocks | None:
        """The blocks' packed weights in one tensor, of which theirs become views."""
        blocks = [cast(FoldedBlock, block) for block in self.blocks if computes_as_written(block, FoldedBlock)]
        packed: list[Any] = [block.pack(products) for block in blocks]
        alike = {(*one.numbers, one.channels) for one in packed if one is not None}
        if len(blocks) < len(self.blocks) or None in packed or len(alike) != 1:
            return None
        whole: ops.PackedBlocks = replace(packed[0], weights=torch.cat([one.weights for one in packed]))
        for i, block in enumerate(blocks):
            block.pack_again()
            if block.packs is not None:
                block.packs[products] = replace(whole, weights=whole.weights[i : i + 1])
        norm, patch_embed = self.norm, self.patch_embed
        if computes_as_written(patch_embed, FoldedPatchEmbed):
            whole = whole.after(patch_embed.packed_now(products))
        return whole.then(norm.weight, norm.bias, norm.eps) if computes_as_written(norm, LayerNorm2d) else whole


class FoldedBackbone(Packed, Backbone):
    """An inference-only Backbone; where the C kernel serves all its stages, they are one operator.

    The patch embedding of images comes before it, which the kernel leaves to the library.
    """

    @staticmethod
    def of(backbone: Backbone) -> None:
        """Make a backbone one, in its place; a subclass keeps its own methods, and has folded stages."""
        backbone.stages = nn.ModuleList(FoldedStage(cast(Stage, stage)) for stage in backbone.stages)
        if type(backbone) is Backbone:
            backbone.__class__ = FoldedBackbone
            cast(FoldedBackbone, backbone).pack_again()
            backbone.register_load_state_dict_post_hook(Packed.pack_again)

    def stage_maps(self, x: Tensor, stages: int) -> list[Tensor]:
        """See Backbone."""
        packed = self.ready(x)
        if packed is None:
            return super().stage_maps(x, stages)
        x = x if packed.stages[0].patch is not None else self.stages[0].get_submodule("patch_embed")(x)
        return ops.folded_stages(x, packed.stages[:stages])

    def inside(self) -> Iterable[nn.Module]:
        """See Packed."""
        return self.stages.modules()

    def pack(self, products: torch.dtype) -> ops.PackedStages | None:
        """See Packed."""
        stages = [cast(FoldedStage, stage) for stage in self.stages if computes_as_written(stage, FoldedStage)]
        packed = [stage.packed_now(products) for stage in stages]
        if len(stages) < len(self.stages) or None in packed:
            return None
        whole = all(each.patch is not None for each in packed[1:]) and all(each.norm is not None for each in packed)
        return ops.PackedStages(tuple(packed)) if whole else None


register_methods(FoldedPatchEmbed, FoldedBlock, FoldedStage, LayerNorm2d)


def fold(model: nn.Module) -> nn.Module:
    """A copy of `model` in eval mode, its backbones and its heads' BatchNorms folded; the original is untouched.

    Parametrizations are evaluated.
    Raises ConfigError when the model holds no Backbone, is folded already, or has what folding would lose: replaced
    forwards, adapters, hooks on modules that disappear, weights that are offloaded.
    """
    if not any(isinstance(m, Backbone) for m in model.modules()):
        raise ConfigError(f"nothing to fold in {type(model).__name__}; expected a model with a van.nn.Backbone")
    if is_folded(model):
        raise ConfigError("the model is folded already; fold the original")
    refuse_what_folding_loses(model)
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    with torch.no_grad():
        evaluate_parametrizations(folded)
        for module in list(folded.modules()):
            if isinstance(module, Backbone):
                FoldedBackbone.of(module)
            elif isinstance(module, ConvNormReLU) and isinstance(module.norm, nn.modules.batchnorm._BatchNorm):
                _fold_norm(module)
    return folded


def is_folded(model: nn.Module) -> bool:
    """Whether `fold` made this model, or a part of it."""
    return any(isinstance(m, FoldedBlock) for m in model.modules())


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
    """A convolution like this one with another weight and bias; nothing else is copied, its own weight least of all."""
    new = copy.copy(conv)
    vars(new).update({name: value.copy() for name, value in vars(conv).items() if isinstance(value, dict)})
    new.weight, new.bias = (nn.Parameter(each.to(conv.weight.dtype), requires_grad=False) for each in (weight, bias))
    return new
