"""The feed-forward on the CPU, a few images at a time: the expanded map, the largest of all, never exists as a whole.

The backward pass computes it again, with GELU's result, from the input, which alone is kept: that costs less than the
fresh pages of whole maps do. The expansion's bias is added where the depthwise convolution reads.

Shapes: N batch, C channels, E expanded channels, K channels of the result, H height, W width, k kernel side, P pixels
of the images in hand.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import cpu_depthwise as kernel
from . import reference, sliced
from .c_library import library
from .depthwise import depthwise_gelu, has_c_kernel, has_kernel
from .pointwise import Pointwise, pointwise_conv2d
from .recompute import depthwise_gelu_project
from .reference import Conv
from .selection import in_mode, path_taken
from .tensors import LARGEST_KERNEL, ordinary

# Images are taken together while their expanded map is no larger than this, so that it stays in the caches.
CHUNK_BYTES = 8 * 1024 * 1024
_thread = threading.local()


@torch.library.custom_op("van::feed_forward", mutates_args=(), device_types="cpu")
def feed_forward(
    x: Tensor,
    expand: Tensor,
    expand_bias: Tensor | None,
    near: Tensor,
    near_bias: Tensor | None,
    dilation: int,
    project: Tensor,
    project_bias: Tensor | None,
) -> Tensor:
    """project(gelu(depthwise(expand(x)))): (N, C, H, W) -> (N, K, H, W)."""
    return _forward(x, (expand, expand_bias, (near, near_bias, dilation), project, project_bias), None)


@torch.library.custom_op("van::feed_forward_onto", mutates_args=(), device_types="cpu")
def feed_forward_onto(
    shortcut: Tensor,
    x: Tensor,
    expand: Tensor,
    expand_bias: Tensor | None,
    near: Tensor,
    near_bias: Tensor | None,
    dilation: int,
    project: Tensor,
    project_bias: Tensor | None,
) -> Tensor:
    """shortcut + project(gelu(depthwise(expand(x)))): (N, K, H, W), (N, C, H, W) -> (N, K, H, W)."""
    return _forward(x, (expand, expand_bias, (near, near_bias, dilation), project, project_bias), shortcut)


def _forward(x: Tensor, parameters: sliced.Parameters, shortcut: Tensor | None) -> Tensor:
    expand, expand_bias, conv, project, project_bias = parameters
    y, begin = _result(x, project.shape[0]), None if shortcut is None else _nhwc(shortcut)
    inputs, outputs = _nhwc(x), _nhwc(y)
    if path_taken("sliced_feed_forward") and y.numel():
        sliced.forward(inputs, outputs, parameters, begin)
        return y
    for some, (hidden,) in _chunks(inputs, conv[0], maps=1):
        _product(inputs[some], expand.flatten(1).t(), hidden)
        _activate(hidden, expand_bias, conv)
        _product(hidden, project.flatten(1).t(), outputs[some])
        if project_bias is not None:
            outputs[some] += project_bias
        if begin is not None:
            outputs[some] += begin[some]
    return y


@torch.library.custom_op("van::feed_forward_backward", mutates_args=(), device_types="cpu")
def feed_forward_backward(
    grad: Tensor,
    x: Tensor,
    expand: Tensor,
    expand_bias: Tensor | None,
    near: Tensor,
    near_bias: Tensor | None,
    dilation: int,
    project: Tensor,
    project_bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, and of weight and bias of the three convolutions."""
    grad_x, conv = _result(x, x.shape[1]), (near, near_bias, dilation)
    inputs, changes, results = _nhwc(x), _nhwc(grad_x), _nhwc(grad)
    taps = near[0].numel()
    if path_taken("sliced_feed_forward_training") and x.numel() and grad.numel():
        parameters = expand, expand_bias, conv, project, project_bias
        grad_expand, grad_project, sums = sliced.backward(results, inputs, changes, parameters)
        return _gradients(grad_x, grad_expand, grad_project, sums, results, (expand, near, project))
    sums = x.new_zeros((taps + 2, near.shape[0]))  # of the taps, of the convolution's bias, of the expansion's
    # the short side first: so these products are fastest
    grad_expand, grad_project = x.new_zeros(expand.shape[1::-1]), x.new_zeros(project.shape[:2])
    for some, (hidden, change) in _chunks(inputs, near, maps=2):
        _product(inputs[some], expand.flatten(1).t(), hidden)
        _product(results[some], project.flatten(1), change)
        sums += _activate_backward(hidden, expand_bias, conv, change)
        grad_project.addmm_(results[some].flatten(0, 2).t(), hidden.flatten(0, 2))
        grad_expand.addmm_(inputs[some].flatten(0, 2).t(), change.flatten(0, 2))
        _product(change, expand.flatten(1), changes[some])
    return _gradients(grad_x, grad_expand, grad_project, sums, results, (expand, near, project))


def _gradients(
    grad_x: Tensor,
    grad_expand: Tensor,
    grad_project: Tensor,
    sums: Tensor,
    results: Tensor,
    weights: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As the operator returns them, of those of expand (C, E), project (K, E), and of `sums`."""
    expand, near, project = weights
    taps = near[0].numel()
    return (
        grad_x,
        grad_expand.t().reshape(expand.shape).contiguous(),
        sums[taps + 1].clone(),
        sums[:taps].t().reshape(near.shape).contiguous(),
        sums[taps].clone(),
        grad_project.reshape(project.shape).contiguous(),
        results.sum((0, 1, 2)),
    )


# --- the maps in between: (n, H, W, E) of n images


def _chunks(inputs: Tensor, near: Tensor, *, maps: int) -> Iterator[tuple[slice, Sequence[Tensor]]]:
    """Some images at a time, and memory for `maps` of their expanded maps; the shape alone decides, as sums need."""
    batch, height, width, _ = inputs.shape
    image = height * width * near.shape[0]
    fitting = max(1, CHUNK_BYTES // max(1, image * inputs.element_size()))
    together = -(-batch // max(1, -(-batch // fitting)))
    if batch * image:
        memory = _scratch(maps * together * image, inputs).view(maps, together, height, width, near.shape[0])
        for first in range(0, batch, together):
            yield slice(first, first + together), memory[:, : batch - first].unbind()


def _scratch(count: int, like: Tensor) -> Tensor:
    """Memory for numbers, which the thread keeps from call to call: fresh pages would cost more than a product."""
    size, kept = count * like.element_size(), getattr(_thread, "memory", None)
    if kept is None or kept.numel() < size:
        with torch.inference_mode(False):
            kept = _thread.memory = torch.empty(size, dtype=torch.uint8)
    return kept[:size].view(like.dtype)


def _product(rows: Tensor, weight: Tensor, out: Tensor) -> None:
    torch.mm(rows.flatten(0, 2), weight, out=out.flatten(0, 2))


def _activate(hidden: Tensor, shift: Tensor | None, conv: Conv) -> None:
    """hidden = gelu(depthwise(hidden + shift))."""
    arguments, _kept = _arguments(hidden, shift, conv)
    kernel._check(library(hidden.dtype).handle.van_hidden(*arguments, torch.get_num_threads()), hidden)


def _activate_backward(hidden: Tensor, shift: Tensor | None, conv: Conv, change: Tensor) -> Tensor:
    """The same, while change, the result's gradient, becomes that of `hidden`.

    Returns the gradients of the taps, of the convolution's bias, of the shift: (k² + 2, E).
    """
    images, channels, taps = len(hidden), hidden.shape[-1], conv[0][0].numel()
    groups, padded = min(kernel.GROUPS, images), kernel._padded(channels, hidden)
    sums = [hidden.new_empty((groups, rows, padded)) for rows in (taps, 1, 1)]
    arguments, _kept = _arguments(hidden, shift, conv)
    outputs, handle, threads = kernel._pointers(sums), library(hidden.dtype).handle, torch.get_num_threads()
    kernel._check(handle.van_hidden_backward(*arguments, change.data_ptr(), outputs, groups, threads), hidden)
    return torch.cat([t.sum(0) for t in sums])[:, :channels]


def _arguments(hidden: Tensor, shift: Tensor | None, conv: Conv) -> tuple[list[Any], list[Tensor]]:
    """What both take first, and the tensors that must live as long."""
    shape, options, parameters, kept = kernel._described(hidden.permute(0, 3, 1, 2), [conv], True)
    if shift is not None:
        kept.append(shift.contiguous())
    return [hidden.data_ptr(), None if shift is None else kept[-1].data_ptr(), shape, options, parameters], kept


def _nhwc(x: Tensor) -> Tensor:
    """(N, C, H, W) -> contiguous (N, H, W, C); the same memory where it lies so."""
    return x.permute(0, 2, 3, 1).contiguous()


def _result(x: Tensor, channels: int) -> Tensor:
    """Memory for (N, channels, H, W) that _nhwc does not copy."""
    batch, _, height, width = x.shape
    return x.new_empty((batch, height, width, channels)).permute(0, 3, 1, 2)


# --- what PyTorch wants to know


@feed_forward.register_fake
def _(x: Tensor, *parameters: Any) -> Tensor:
    return _result(x, len(_weights(parameters)[-1]))


@feed_forward_onto.register_fake
def _(shortcut: Tensor, x: Tensor, *_parameters: Any) -> Tensor:
    return _result(x, shortcut.shape[1])


@feed_forward_backward.register_fake
def _(grad: Tensor, x: Tensor, *parameters: Any) -> tuple[Tensor, ...]:
    pairs = [(kernel._flat(weight), weight.new_empty(weight.shape[0])) for weight in _weights(parameters)]
    return _result(x, x.shape[1]), *(tensor for pair in pairs for tensor in pair)


def _weights(parameters: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Of expand, near and project, among what the operators take after x; for FLOP counts their shapes."""
    return parameters[0], parameters[2], parameters[5]


def _plainly(inputs: Sequence[Any]) -> Tensor:
    x, expand, expand_bias, near, near_bias, dilation, project, project_bias = inputs
    x = reference.chain(F.conv2d(x, expand, expand_bias), [(near, near_bias, dilation)], gelu=True)
    return F.conv2d(x, project, project_bias)


def _backward_of_sum(grad: Tensor, _shortcut: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return grad, *feed_forward_backward(grad, *inputs)


def _sum_plainly(inputs: Sequence[Any]) -> Tensor:
    return inputs[0] + _plainly(inputs[1:])


kernel._differentiable(feed_forward, feed_forward_backward, (0, 1, 2, 3, 4, 6, 7), _plainly)
kernel._differentiable(feed_forward_onto, _backward_of_sum, (0, 1, 2, 3, 4, 5, 7, 8), _sum_plainly)


@register_flop_formula(torch.ops.van.feed_forward)
def _(x: Any, *parameters: Any, **_options: Any) -> int:
    return _flops(x, *_weights(parameters))


@register_flop_formula(torch.ops.van.feed_forward_onto)
def _(_shortcut: Any, x: Any, *parameters: Any, **_options: Any) -> int:
    return _flops(x, *_weights(parameters))


@register_flop_formula(torch.ops.van.feed_forward_backward)
def _(grad: Any, x: Any, *parameters: Any, **_options: Any) -> int:
    return 2 * _flops(x, *_weights(parameters))  # what is computed again is not counted


def _flops(x: Sequence[int], *weights: Sequence[int]) -> int:
    return 2 * x[0] * math.prod(x[2:]) * sum(math.prod(weight) for weight in weights)


# --- for the network


def can_chunk(x: Tensor, expand: Pointwise, conv: Conv, project: Pointwise, *, training: bool = False) -> bool:
    """Whether the C kernel computes a feed-forward of x with these weights and biases; not under autocast.

    training: while training, without gradients too.
    """
    parameters = *expand, *conv[:2], *project
    if not (ordinary(x, *parameters) and has_kernel(x)):
        return False
    if not has_c_kernel(x, in_mode("streamed_feed_forward", x, *parameters, training=training)):
        return False
    same = all(p is None or (p.dtype, p.device) == (x.dtype, x.device) for p in parameters)
    return same and not torch.is_autocast_enabled("cpu") and _joined(x, expand[0], conv, project[0])


def _joined(x: Tensor, expand: Tensor, conv: Conv, project: Tensor) -> bool:
    """Whether each of the three takes the channels that the one before it gives."""
    hidden, side = conv[0].shape[0], conv[0].shape[-1]
    shapes = conv[0].shape, expand.shape[:1], expand.shape[1:], project.shape[1:]
    if shapes != ((hidden, 1, side, side), (hidden,), (x.shape[1], 1, 1), (hidden, 1, 1)):
        return False
    return side <= LARGEST_KERNEL and (conv[1] is None or conv[1].shape == (hidden,))


def chunked_feed_forward(
    x: Tensor,
    expand: Pointwise,
    conv: Conv,
    project: Pointwise,
    *,
    memory_efficient: bool = False,
    training: bool = False,
    scale: Tensor | None = None,
    shortcut: Tensor | None = None,
) -> Tensor:
    """1x1, depthwise, GELU, 1x1: (N, C, H, W) -> (N, K, H, W); in float32 on the CPU the expanded map is never whole.

    scale (K,) multiplies the result, to which then shortcut (N, K, H, W) is added.
    memory_efficient: elsewhere keep no result of GELU for the backward pass, where that pays (recompute.py).
    training: as while training, without gradients too.
    """
    if can_chunk(x, expand, conv, project, training=training):
        if scale is not None:
            weight, bias = project
            project = scale[:, None, None, None] * weight, None if bias is None else scale * bias
        if shortcut is not None and ordinary(shortcut) and shortcut.dtype == x.dtype:
            return feed_forward_onto(shortcut, x, *expand, *conv, *project)
        y = feed_forward(x, *expand, *conv, *project)
        return y if shortcut is None else shortcut + y
    x = pointwise_conv2d(x, *expand)
    if memory_efficient:
        x = depthwise_gelu_project(x, conv, *project, training=training)
    else:
        x = pointwise_conv2d(depthwise_gelu(x, conv, training=training), *project)
    x = x if scale is None else scale[:, None, None] * x
    return x if shortcut is None else shortcut + x
