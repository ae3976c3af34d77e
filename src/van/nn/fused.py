"""Where the network's modules are swapped for kernels: one table, and the conditions under which it applies.

The forwards of backbone.py, layers.py and heads/ are written as figures of the network. FUSED gives some of those
classes other forwards with the same values, computed by `ops` faster or in less memory. A call takes the first whose
condition holds, else the forward as it is written, which calls the modules inside.

Whatever is asked about a module is asked here and in fusable.py: hooks, replaced forwards, other classes, dropout, the
memory policy, what traces the call. What is asked about a tensor (type, device, layout, size) is asked by `ops`, which
falls back to PyTorch's operators by itself. In training the way never depends on whether gradients are recorded:
reentrant checkpointing first computes without them what it computes again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import ops
from .backbone import Attention, Backbone, Block, FeedForward, LargeKernelAttention, Stage
from .checkpointing import checkpoint
from .fusable import (
    can_fuse,
    computes_as_written,
    depthwise_weights,
    has_hooks,
    is_exported,
    is_idle,
    is_pointwise,
    is_square,
    is_symbolic,
    is_traced,
    is_unpatched,
    is_untouched,
    keeps_size,
    pointwise_weights,
    register_methods,
    wants_gradients,
    why_called,
)
from .hamburger import NMF, Hamburger
from .head_forwards import (
    classes_of_pixels,
    factorised_in_place,
    hamburger_of_factors,
    joined_conv,
    sum_of_convolutions,
)
from .heads.layers import ConvNormReLU, PixelClassifier
from .heads.upernet import CellMeans, cell_shares
from .layers import DepthwiseConv2d, DropPath, LayerNorm2d, PointwiseConv2d, per_channel

# --- layers


def _is_depthwise_on_tensor(conv: DepthwiseConv2d, x: Tensor) -> bool:
    return isinstance(x, Tensor) and keeps_size(conv) and is_unpatched(conv)


def _depthwise(conv: DepthwiseConv2d, x: Tensor) -> Tensor:
    return ops.depthwise_conv2d(x, conv.weight, conv.bias, dilation=conv.dilation[0], training=conv.training)


def _is_pointwise_on_tensor(conv: PointwiseConv2d, x: Tensor) -> bool:
    return isinstance(x, Tensor) and is_pointwise(conv) and is_unpatched(conv)


def _pointwise(conv: PointwiseConv2d, x: Tensor) -> Tensor:
    return ops.pointwise_conv2d(x, conv.weight, conv.bias)


def _exports(*_inputs: Any, **_options: Any) -> bool:
    return is_exported()


def _layer_norm_from_means(norm: LayerNorm2d, x: Tensor) -> Tensor:
    """Runtimes copy the map to move its channels, but take means where they are."""
    y = x - x.mean(1, keepdim=True)
    y = y * torch.rsqrt((y * y).mean(1, keepdim=True) + norm.eps)
    return y * per_channel(norm.weight) + per_channel(norm.bias)


def _cell_means_as_products(pool: CellMeans, x: Tensor) -> Tensor:
    """The library's own has no faithful ONNX form for free sizes."""
    if pool.cells == 1:
        return x.mean((2, 3), keepdim=True)
    rows, columns = (cell_shares(pool.cells, side, x) for side in x.shape[2:])
    return rows @ x @ columns.mT


# --- the network


def _saves_memory(module: Any, *_inputs: Any, **_options: Any) -> bool:
    return bool(module.memory_efficient and module.training)


def _near_and_far_fuse(attention: LargeKernelAttention, x: Tensor) -> bool:
    return can_fuse(x, depthwise=(attention.near, attention.far))


def _near_and_far_at_once(attention: LargeKernelAttention, x: Tensor) -> Tensor:
    """The map between the two convolutions need not exist as a whole."""
    pair = depthwise_weights(attention.near), depthwise_weights(attention.far)
    far = ops.depthwise_pair(x, *pair, training=attention.training)
    return attention.gated(x, attention.mix(far))


def _all_layers_fuse(layer: FeedForward, x: Tensor) -> bool:
    return is_idle(layer.dropout) and can_fuse(x, depthwise=(layer.depthwise,), pointwise=(layer.expand, layer.project))


def _feed_forward_at_once(layer: FeedForward, x: Tensor) -> Tensor:
    """The expanded map, the largest of all, need not exist as a whole."""
    ends = pointwise_weights(layer.expand), pointwise_weights(layer.project)
    conv, saving = depthwise_weights(layer.depthwise), _saves_memory(layer)
    return ops.chunked_feed_forward(x, ends[0], conv, ends[1], memory_efficient=saving, training=layer.training)


def _gelu_is_computed_again(layer: FeedForward, x: Tensor) -> bool:
    return (
        _saves_memory(layer)
        and is_idle(layer.dropout)
        and can_fuse(x, depthwise=(layer.depthwise,), pointwise=(layer.project,))
    )


def _keeping_no_gelu(layer: FeedForward, x: Tensor) -> Tensor:
    """GELU's result is computed again in the backward pass."""
    x = layer.expand(x)
    conv, last = depthwise_weights(layer.depthwise), pointwise_weights(layer.project)
    return ops.depthwise_gelu_project(x, conv, *last, training=layer.training)


def _gelu_fuses(layer: FeedForward, x: Tensor) -> bool:
    return can_fuse(x, depthwise=(layer.depthwise,))


def _depthwise_with_gelu(layer: FeedForward, x: Tensor) -> Tensor:
    x = layer.expand(x)
    x = layer.dropout(ops.depthwise_gelu(x, depthwise_weights(layer.depthwise), training=layer.training))
    return layer.dropout(layer.project(x))


def _halves_fuse(block: Block, x: Tensor) -> bool:
    """Whether both halves are what is written, and a kernel trains the first; what the second takes it asks itself.

    Also without gradients, as checkpointing may compute a block first.
    """
    if not block.training:
        return False
    attention, layer = block.attention, block.feed_forward
    if type(attention) is not Attention or type(attention.spatial) is not LargeKernelAttention:
        return False
    written = ((attention, Attention), (attention.spatial, LargeKernelAttention), (layer, FeedForward))
    if not all(computes_as_written(module, kind) and not why_called(module) for module, kind in written):
        return False
    if attention.spatial.gate != "multiply" or not is_idle(layer.dropout):
        return False
    pair, ends = _attention_convolutions(attention), (layer.expand, layer.project)
    if not can_fuse(x, depthwise=(*pair[:2], layer.depthwise), pointwise=(*pair[2:], *ends)):
        return False
    return ops.can_attend(x, _attention_weights(attention), scale=block.scale1, shortcut=x)


def _halves_at_once(block: Block, x: Tensor) -> Tensor:
    """Layer scale and shortcut are parts of the attention's and the feed-forward's last products."""
    layer = block.feed_forward
    once = _keeps_all_paths(block.drop_path)
    n = block.norm1(x)
    y = ops.attention(n, _attention_weights(block.attention), scale=block.scale1, shortcut=x if once else None)
    x = y if once else _onto(block, x, y)
    ends = pointwise_weights(layer.expand), pointwise_weights(layer.project)
    n, conv, shortcut = block.norm2(x), depthwise_weights(layer.depthwise), x if once else None
    y = ops.chunked_feed_forward(n, ends[0], conv, ends[1], training=True, scale=block.scale2, shortcut=shortcut)
    return y if once else _onto(block, x, y)


def _attention_convolutions(attention: Attention) -> tuple[nn.Module, ...]:
    """near, far, proj_in, mix, proj_out."""
    spatial = attention.spatial
    return spatial.near, spatial.far, attention.proj_in, spatial.mix, attention.proj_out


def _attention_weights(attention: Attention) -> tuple[ops.Pointwise, ops.Conv, ops.Conv, ops.Pointwise, ops.Pointwise]:
    near, far, enter, mix, leave = _attention_convolutions(attention)
    pair = depthwise_weights(near), depthwise_weights(far)
    return pointwise_weights(enter), *pair, pointwise_weights(mix), pointwise_weights(leave)


def _keeps_all_paths(drop: nn.Module) -> bool:
    idle = type(drop) is nn.Identity or (type(drop) is DropPath and not drop.training)
    return idle and not has_hooks(drop)


def _onto(block: Block, x: Tensor, branch: Tensor) -> Tensor:
    """x + drop_path(branch), in one pass where the drop path is what is written."""
    drop = block.drop_path
    if type(drop) is DropPath and drop.training and not has_hooks(drop):
        return torch.addcmul(x, branch, drop.factors(branch))
    return x + drop(branch)


def _block_with_bfloat16_stream(block: Block, x: Tensor) -> Tensor:
    """Under autocast the scales, float32, make the shortcut float32 too; here bfloat16 branches keep it bfloat16."""
    branch = block.attention(block.norm1(x))
    x = x + block.drop_path(_scale_for(branch, block.scale1) * branch)
    branch = block.feed_forward(block.norm2(x))
    return x + block.drop_path(_scale_for(branch, block.scale2) * branch)


def _scale_for(branch: Tensor, scale: Tensor) -> Tensor:
    # float16 has too small a range for shortcuts
    return per_channel(scale.to(branch.dtype) if branch.dtype == torch.bfloat16 else scale)


def _recomputes_blocks(stage: Stage, *_inputs: Any, **_options: Any) -> bool:
    return stage.grad_checkpointing and stage.training


def _recomputing_blocks(stage: Stage, x: Tensor) -> Tensor:
    x = stage.patch_embed(x)
    for block in stage.blocks:
        x = checkpoint(block, x)
    return stage.norm(x)


def _is_stand_in(_backbone: Backbone, images: Any, last: Any = False) -> bool:
    return is_symbolic(images)


def _of_a_stand_in(backbone: Backbone, images: Any, last: bool = False) -> Any:
    """What torch.fx traces with has no shape that could be wrong."""
    return backbone.pyramid(images, last)


def _is_tensor(_backbone: Backbone, images: Any, last: Any = False) -> bool:
    return isinstance(images, Tensor)


def _in_fast_layout(backbone: Backbone, images: Tensor, last: bool = False) -> Any:
    """The device's fast layout stays that of every map behind."""
    backbone.require_images(images)
    return backbone.pyramid(ops.fast_layout(images), last)


# --- heads


def _keeps_any_size(conv: Any) -> bool:
    """Whether it is an untouched nn.Conv2d over all channels whose kernel is odd and whose zeros keep H and W."""
    if not is_untouched(conv, nn.Conv2d):
        return False
    side = conv.kernel_size[0]
    return is_square(conv) and side % 2 == 1 and conv.stride == (1, 1) and conv.padding == (side // 2, side // 2)


def _head_conv_fuses(conv: Any, *parts: Tensor) -> bool:
    return _keeps_any_size(conv) and ops.can_join(parts, conv.weight, conv.bias)


def _conv_norm_fuse(module: ConvNormReLU, *parts: Tensor) -> bool:
    if module.training:
        return False
    norm = module.norm  # of these nobody else can hold the result, which ReLU overwrites
    return any(is_untouched(norm, kind) for kind in _NORMS) and _head_conv_fuses(module.conv, *parts)


def _joined_conv_fuses(module: ConvNormReLU, x: Tensor, *more: Tensor) -> bool:
    conv = module.conv
    return bool(more) and type(conv) is nn.Conv2d and not has_hooks(conv) and ops.ordinary(x, conv.weight)


def _classifier_fuses(classifier: PixelClassifier, x: Tensor) -> bool:
    dropout = classifier.dropout
    idle = is_untouched(dropout, nn.Dropout2d) and not (dropout.training and dropout.p)
    return idle and not classifier.training and _head_conv_fuses(classifier.conv, x)


def _factorisation_fuses(ham: NMF, x: Tensor) -> bool:
    return not (ham.training or is_traced() or wants_gradients([x])) and ops.can_factorise(x)


def _hamburger_fuses(burger: Hamburger, x: Tensor) -> bool:
    ham, norm, upper = burger.ham, burger.norm, burger.upper
    return (
        _head_conv_fuses(burger.lower, x)
        and _head_conv_fuses(upper, x)
        and is_pointwise(upper)
        and upper.bias is None
        and is_untouched(ham, NMF)
        and not ham.training
        and is_untouched(norm, nn.GroupNorm)
        and norm.affine
    )


_NORMS = (nn.Identity, nn.GroupNorm, nn.BatchNorm2d, nn.SyncBatchNorm)


# --- the table


class Fused(NamedTuple):
    """Another forward of a class, and when it applies; both take the module and what `forward` takes."""

    condition: Callable[..., bool]
    forward: Callable[..., Any]


FUSED: Mapping[type[nn.Module], tuple[Fused, ...]] = {
    DepthwiseConv2d: (Fused(_is_depthwise_on_tensor, _depthwise),),
    PointwiseConv2d: (Fused(_is_pointwise_on_tensor, _pointwise),),
    LayerNorm2d: (Fused(_exports, _layer_norm_from_means),),
    LargeKernelAttention: (Fused(_near_and_far_fuse, _near_and_far_at_once),),
    FeedForward: (
        Fused(_all_layers_fuse, _feed_forward_at_once),
        Fused(_gelu_is_computed_again, _keeping_no_gelu),
        Fused(_gelu_fuses, _depthwise_with_gelu),
    ),
    Block: (Fused(_halves_fuse, _halves_at_once), Fused(_saves_memory, _block_with_bfloat16_stream)),
    Stage: (Fused(_recomputes_blocks, _recomputing_blocks),),
    Backbone: (Fused(_is_stand_in, _of_a_stand_in), Fused(_is_tensor, _in_fast_layout)),
    ConvNormReLU: (Fused(_conv_norm_fuse, joined_conv), Fused(_joined_conv_fuses, sum_of_convolutions)),
    NMF: (Fused(_factorisation_fuses, factorised_in_place),),
    Hamburger: (Fused(_hamburger_fuses, hamburger_of_factors),),
    PixelClassifier: (Fused(_classifier_fuses, classes_of_pixels),),
    CellMeans: (Fused(_exports, _cell_means_as_products),),
}


def _swapped(written: Callable[..., Any], ways: tuple[Fused, ...]) -> Callable[..., Any]:
    """A forward that takes the first way whose condition holds, else the one that is written in the class."""

    @functools.wraps(written)
    def forward(module: nn.Module, *inputs: Any, **options: Any) -> Any:
        for condition, fused in ways:
            if condition(module, *inputs, **options):
                return fused(module, *inputs, **options)
        return written(module, *inputs, **options)

    return forward


def written_forward(kind: type[nn.Module]) -> Callable[..., Any]:
    """The forward as it is written in a class of FUSED, without its swap."""
    written: Callable[..., Any] = kind.forward.__wrapped__  # type: ignore[attr-defined]
    return written


for _kind, _ways in FUSED.items():
    _kind.forward = _swapped(_kind.forward, _ways)
register_methods(
    DepthwiseConv2d,
    PointwiseConv2d,
    LargeKernelAttention,
    Attention,
    FeedForward,
    nn.Conv2d,
    nn.Dropout2d,
    NMF,
    *_NORMS,
)
