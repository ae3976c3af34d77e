"""The attention of training as one operator of the C kernel (csrc/attend.h), around both shortcuts.

    u = gelu(enter(n))    y = shortcut + scale · n + leave(u · mix(far(near(u))))

What lies between products is computed where their results are, in the backward pass too. Kept for it: n, the maps
before and after GELU, that after the two depthwise convolutions, and the gate.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import cpu_depthwise as kernel
from . import reference
from .c_library import library
from .depthwise import depthwise_pair, has_c_kernel, has_kernel
from .folded_block import _terms
from .pointwise import Pointwise, pointwise_conv2d
from .reference import Conv
from .tensors import ordinary, require_fitting

# Gradients of the 1x1 weights are summed in so many sets of pixels at most, of at least so many, or as there are
# channels.
SETS, SET_PIXELS = 16, 196
# Of the operator's inputs, those that are tensors, in the order of its gradients; the shortcut is the last.
SLOTS = (0, 1, 2, 3, 4, 6, 7, 9, 10, 11, 12, 13, 14)

# enter, near, far, mix, leave
Weights: TypeAlias = tuple[Pointwise, Conv, Conv, Pointwise, Pointwise]


@torch.library.custom_op("van::attention", mutates_args=(), device_types="cpu")
def operator(
    n: Tensor,
    enter: Tensor,
    enter_bias: Tensor | None,
    near: Tensor,
    near_bias: Tensor | None,
    near_dilation: int,
    far: Tensor,
    far_bias: Tensor | None,
    far_dilation: int,
    mix: Tensor,
    mix_bias: Tensor | None,
    leave: Tensor,
    leave_bias: Tensor | None,
    scale: Tensor,
    shortcut: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The result, and what the backward pass needs: before and after GELU, after the convolutions, the gate."""
    n = n.contiguous(memory_format=torch.channels_last)
    y, *maps = (kernel._like(n) for _ in range(5))
    if n.numel():
        products = (enter, enter_bias), (mix, mix_bias), (leave, leave_bias)
        pair = (near, near_bias, near_dilation), (far, far_bias, far_dilation)
        numbers, parameters, panels, _kept = _described(n, products, pair, scale)
        begin = None if shortcut is None else shortcut.contiguous(memory_format=torch.channels_last)
        x, handle = None if begin is None else begin.data_ptr(), library(n.dtype).handle
        data = kernel._pointers(maps), panels.data_ptr(), y.data_ptr()
        threads = torch.get_num_threads()
        kernel._check(handle.van_attention(n.data_ptr(), x, *numbers, parameters, *data, _terms(n.dtype), threads), n)
    one, two, three, four = maps
    return y, one, two, three, four


@torch.library.custom_op("van::attention_backward", mutates_args=(), device_types="cpu")
def backward_operator(
    grad: Tensor,
    n: Tensor,
    maps: Sequence[Tensor],
    enter: Tensor,
    near: Tensor,
    near_bias: Tensor | None,
    near_dilation: int,
    far: Tensor,
    far_bias: Tensor | None,
    far_dilation: int,
    mix: Tensor,
    leave: Tensor,
    scale: Tensor,
) -> list[Tensor]:
    """Gradients of n; of weight and bias of enter, near, far, mix, leave; of scale."""
    n, grad = (t.contiguous(memory_format=torch.channels_last) for t in (n, grad))
    batch, channels = n.shape[:2]
    handle, sets, groups = library(n.dtype).handle, _sets(n), max(1, min(kernel.GROUPS, batch))
    wide, padded = -(-channels // handle.van_panel()) * handle.van_panel(), kernel._padded(channels, n)
    results = [kernel._like(n) for _ in range(3)]
    results += [n.new_zeros((sets, channels, wide)) for _ in range(3)] + [n.new_zeros((sets, 4, wide))]
    for weight in (near, far):
        results += [n.new_zeros((groups, weight.shape[-1] ** 2, padded)), n.new_zeros((groups, padded))]
    if n.numel():
        pair = (near, near_bias, near_dilation), (far, far_bias, far_dilation)
        products = (enter, None), (mix, None), (leave, None)
        numbers, parameters, panels, _kept = _described(n, products, pair, scale)
        data = kernel._pointers(maps), panels.data_ptr(), kernel._pointers(results), groups
        given, threads = (n.data_ptr(), grad.data_ptr()), torch.get_num_threads()
        kernel._check(handle.van_attention_backward(*given, *numbers, parameters, *data, _terms(n.dtype), threads), n)
    entered, mixed, left, sums = (t.sum(0)[..., :channels] for t in results[3:7])
    taps = [t.sum(0)[..., :channels] for t in results[7:]]
    weights = entered.t(), taps[0].t(), taps[2].t(), mixed.t(), left
    biases = sums[3], taps[1], taps[3], sums[2], sums[0]
    pairs = zip(weights, biases, (enter, near, far, mix, leave), strict=True)
    found = [t for weight, bias, like in pairs for t in (weight.reshape(like.shape).contiguous(), bias.clone())]
    return [results[0], *found, sums[1].clone()]


# --- calling C


def _described(
    n: Tensor, products: Sequence[Pointwise], pair: Sequence[Conv], scale: Tensor
) -> tuple[tuple[Any, Any], Any, Tensor, list[Tensor]]:
    """Shape and options, parameters, memory for panels, and the tensors that must live as long as the pointers."""
    require_fitting(n, pair, mixed=False)
    batch, channels, height, width = n.shape
    enter, mix, leave = products
    parameters, kept = kernel._laid_out([*enter, *pair[0][:2], *pair[1][:2], *mix, *leave, scale])
    sides = [number for weight, _, dilation in pair for number in (weight.shape[-1], dilation)]
    numbers = (ctypes.c_long * 4)(batch, height, width, channels), (ctypes.c_long * 5)(*sides, _sets(n))
    panels = n.new_empty(library(n.dtype).handle.van_attention_panels(channels))
    return numbers, parameters, panels, kept


def _sets(n: Tensor) -> int:
    """The shape alone decides, as sums need."""
    channels = max(1, n.shape[1])
    pixels = n.numel() // channels
    return max(1, min(SETS, max(pixels // max(SET_PIXELS, channels), min(2, pixels // 64))))


# --- what PyTorch wants to know


@operator.register_fake
def _(n: Tensor, *_parameters: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return kernel._like(n), kernel._like(n), kernel._like(n), kernel._like(n), kernel._like(n)


@backward_operator.register_fake
def _(grad: Tensor, n: Tensor, maps: Any, *parameters: Any) -> list[Tensor]:
    found = [t for w in _weights(parameters) for t in (kernel._flat(w), w.new_empty(w.shape[0]))]
    scale = parameters[-1]
    return [kernel._like(n), *found, scale.new_empty(scale.shape)]


def _weights(parameters: Sequence[Any]) -> tuple[Any, ...]:
    """Of enter, near, far, mix, leave, among what the backward operator takes after the maps; or their shapes."""
    return tuple(parameters[slot] for slot in (0, 1, 4, 7, 8))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    maps = output[1:]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*(inputs[slot] for slot in SLOTS[:-1]), *maps)
    # differentiated twice, the result is computed plainly, from a shortcut that adds nothing to its own gradient
    ctx.dilations = inputs[5], inputs[8]


def _backward(ctx: Any, grad: Tensor | None, *_maps: Any) -> tuple[Tensor | None, ...]:
    grads: list[Tensor | None] = [None] * 15
    if grad is None:
        return tuple(grads)
    saved = ctx.saved_tensors
    inputs: list[Any] = [None] * 15
    inputs[5], inputs[8] = ctx.dilations
    for slot, tensor in zip(SLOTS, saved[:-4], strict=False):
        inputs[slot] = tensor
    wanted = [slot for slot in SLOTS[:-1] if ctx.needs_input_grad[slot]]
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        found = torch.autograd.grad(_plainly(inputs), [inputs[slot] for slot in wanted], grad, create_graph=True)
        for slot, value in zip(wanted, found, strict=True):
            grads[slot] = value
    else:
        n, enter, _b, near, near_bias, near_dilation, far, far_bias, far_dilation, mix, _c, leave, _d, scale, _e = (
            inputs
        )
        pair = near, near_bias, near_dilation, far, far_bias, far_dilation
        found = backward_operator(grad, n, list(saved[-4:]), enter, *pair, mix, leave, scale)
        for slot, value in zip(SLOTS[:-1], found, strict=True):
            grads[slot] = value if slot in wanted else None
    grads[14] = grad if ctx.needs_input_grad[14] else None
    return tuple(grads)


def _plainly(inputs: Sequence[Any]) -> Tensor:
    n, enter, b1, near, b2, near_dilation, far, b3, far_dilation, mix, b4, leave, b5, scale, shortcut = inputs
    u = F.gelu(F.conv2d(n, enter, b1))
    t = reference.chain(u, [(near, b2, near_dilation), (far, b3, far_dilation)])
    y = scale[:, None, None] * n + F.conv2d(u * F.conv2d(t, mix, b4), leave, b5)
    return y if shortcut is None else shortcut + y


operator.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.van.attention)
def _(n: Any, *inputs: Any, **_options: Any) -> int:
    return _flops(n, inputs[0], inputs[2], inputs[5], inputs[8], inputs[10])


@register_flop_formula(torch.ops.van.attention_backward)
def _(grad: Any, n: Any, maps: Any, *parameters: Any, **_options: Any) -> int:
    return 2 * _flops(n, *_weights(parameters))


def _flops(n: Sequence[int], *weights: Sequence[int]) -> int:
    pixels = n[0] * n[2] * n[3]
    return sum(2 * pixels * w[0] * w[1] * w[2] * w[3] for w in weights)


# --- for the network


def attention(n: Tensor, weights: Weights, *, scale: Tensor, shortcut: Tensor | None) -> Tensor:
    """shortcut + scale · (n + leave(u · mix(far(near(u))))), u = gelu(enter(n)): (N, C, H, W) -> (N, C, H, W).

    scale: (C,); shortcut: (N, C, H, W), or None where nothing is added.
    """
    enter, near, far, mix, leave = weights
    if can_attend(n, weights, scale=scale, shortcut=shortcut):
        weight, bias = leave
        last = scale[:, None, None, None] * weight, None if bias is None else scale * bias
        return operator(n, *enter, *near, *far, *mix, *last, scale, shortcut)[0]
    u = F.gelu(pointwise_conv2d(n, *enter))
    y = scale[:, None, None] * (n + pointwise_conv2d(u * pointwise_conv2d(depthwise_pair(u, near, far), *mix), *leave))
    return y if shortcut is None else shortcut + y


def can_attend(n: Tensor, weights: Weights, *, scale: Tensor, shortcut: Tensor | None) -> bool:
    """Whether the C kernel computes this attention in training; not under autocast."""
    enter, near, far, mix, leave = weights
    parameters = *enter, *near[:2], *far[:2], *mix, *leave, scale
    given = [t for t in (*parameters, shortcut) if t is not None]
    if not (ordinary(n, *given) and has_kernel(n, near, far)) or torch.is_autocast_enabled("cpu"):
        return False
    if not has_c_kernel(n, "fused_attention_training"):
        return False
    same = all((t.dtype, t.device) == (n.dtype, n.device) for t in given)
    return same and _joined(n, (enter, mix, leave), scale, shortcut)


def _joined(n: Tensor, products: Sequence[Pointwise], scale: Tensor, shortcut: Tensor | None) -> bool:
    """Whether everything has the channels of n; with fewer pixels than channels the weights alone are the work."""
    channels = n.shape[1]
    if n.numel() < channels * channels:
        return False
    square = all(w.shape == (channels, channels, 1, 1) and (b is None or b.shape == (channels,)) for w, b in products)
    return square and scale.shape == (channels,) and (shortcut is None or shortcut.shape == n.shape)
