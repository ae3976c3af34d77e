"""The depthwise convolutions as PyTorch operators: the C kernel on the CPU, autograd, fake tensors, FLOP counts.

cuda_depthwise.py registers the CUDA side.

Shapes: N batch, C channels, H height, W width, k kernel side. Maps are (N, C, H, W) in any layout; results lie in
channels_last memory. float32; float64 exists for checking gradients.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..errors import ConfigError
from . import reference
from .c_library import library
from .reference import Conv
from .tensors import require_fitting

# Images are summed in this many groups at most, whatever the number of threads: gradients do not depend on it.
GROUPS = 16


@torch.library.custom_op("van::depthwise", mutates_args=(), device_types="cpu")
def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, gelu: bool) -> Tensor:
    """Depthwise convolution that keeps the size, then GELU where asked."""
    return _forward(x, [(weight, bias, dilation)], gelu=gelu)


@torch.library.custom_op("van::depthwise_backward", mutates_args=(), device_types="cpu")
def depthwise_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, gelu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    grad_x, grad_weight, grad_bias = _backward(grad, x, [(weight, bias, dilation)], gelu=gelu)
    return grad_x, grad_weight, grad_bias


@torch.library.custom_op("van::depthwise_pair", mutates_args=(), device_types="cpu")
def depthwise_pair(
    x: Tensor,
    near: Tensor,
    near_bias: Tensor | None,
    near_dilation: int,
    far: Tensor,
    far_bias: Tensor | None,
    far_dilation: int,
) -> Tensor:
    """Two depthwise convolutions in a row; the map between them never leaves the cache."""
    return _forward(x, [(near, near_bias, near_dilation), (far, far_bias, far_dilation)])


@torch.library.custom_op("van::depthwise_pair_backward", mutates_args=(), device_types="cpu")
def depthwise_pair_backward(
    grad: Tensor,
    x: Tensor,
    near: Tensor,
    near_bias: Tensor | None,
    near_dilation: int,
    far: Tensor,
    far_bias: Tensor | None,
    far_dilation: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, and of weight and bias of both convolutions."""
    one, two, three, four, five = _backward(grad, x, [(near, near_bias, near_dilation), (far, far_bias, far_dilation)])
    return one, two, three, four, five


@torch.library.custom_op("van::depthwise_gelu_again", mutates_args=(), device_types="cpu")
def depthwise_gelu_again(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """GELU of the convolution once more, and, from its gradient, those of x, weight and bias."""
    convs = [(weight, bias, dilation)]
    grad_x, grad_weight, grad_bias = _backward(grad, x, convs, gelu=True)
    return _forward(x, convs, gelu=True), grad_x, grad_weight, grad_bias


# --- calling C


def _forward(x: Tensor, convs: Sequence[Conv], *, gelu: bool = False) -> Tensor:
    x, y = x.contiguous(memory_format=torch.channels_last), _like(x)
    if y.numel():
        shape, options, parameters, _kept = _described(x, convs, gelu)
        handle = library(x.dtype).handle
        _check(handle.van_depthwise(x.data_ptr(), shape, options, parameters, y.data_ptr(), torch.get_num_threads()), x)
    return y


def _backward(grad: Tensor, x: Tensor, convs: Sequence[Conv], *, gelu: bool = False) -> list[Tensor]:
    """The gradient of x, then of each weight and bias."""
    if grad.shape != x.shape or grad.dtype != x.dtype:
        raise ConfigError(f"the gradient is {tuple(grad.shape)}, {grad.dtype}; the map {tuple(x.shape)}, {x.dtype}")
    x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    batch, channels = x.shape[:2]
    groups, padded = max(1, min(GROUPS, batch)), _padded(channels, x)
    grads = [_like(x)]
    for weight, _, _ in convs:
        grads += [x.new_zeros((groups, weight.shape[-1] ** 2, padded)), x.new_zeros((groups, padded))]
    if x.numel():
        shape, options, parameters, _kept = _described(x, convs, gelu)
        outputs, data, threads = _pointers(grads), (x.data_ptr(), grad.data_ptr()), torch.get_num_threads()
        handle = library(x.dtype).handle
        _check(handle.van_depthwise_backward(*data, shape, options, parameters, outputs, groups, threads), x)
    for i, (weight, _, _) in enumerate(convs):
        taps, bias = grads[1 + 2 * i].sum(0)[:, :channels], grads[2 + 2 * i].sum(0)[:channels]
        grads[1 + 2 * i], grads[2 + 2 * i] = taps.t().reshape(weight.shape).contiguous(), bias.clone()
    return grads


def _described(x: Tensor, convs: Sequence[Conv], gelu: bool) -> tuple[Any, Any, Any, list[Tensor]]:
    """shape, options and parameters of the C interface, and the tensors that must live as long as they do."""
    if x.dtype not in (torch.float32, torch.float64):
        raise ConfigError(f"the map is {x.dtype}; expected float32, or float64 to check gradients")
    require_fitting(x, convs, mixed=False)
    batch, channels, height, width = x.shape
    options = [int(gelu), len(convs)]
    for weight, _, dilation in convs:
        options += [weight.shape[-1], dilation]
    parameters, kept = _laid_out([tensor for weight, bias, _ in convs for tensor in (weight, bias)])
    shape = (ctypes.c_long * 4)(batch, height, width, channels)
    return shape, (ctypes.c_long * len(options))(*options), parameters, kept


def _laid_out(tensors: Sequence[Tensor | None]) -> tuple[Any, list[Tensor]]:
    """Pointers to the tensors, contiguous, null where there is none; and what must live as long as the pointers."""
    kept = [None if t is None else t.contiguous() for t in tensors]
    return _pointers(kept), [t for t in kept if t is not None]


def _pointers(tensors: Sequence[Tensor | None]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*(None if t is None else t.data_ptr() for t in tensors))


def _padded(channels: int, x: Tensor) -> int:
    """That many channels of x in whole vectors."""
    lanes = library(x.dtype).handle.van_lanes()
    return -(-channels // lanes) * lanes


def _check(status: int, x: Tensor) -> None:
    if status:
        raise MemoryError(f"no memory for the kernel's maps of {tuple(x.shape)}; use smaller images, or VAN_OPS=plain")


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


# --- what PyTorch wants to know


@depthwise.register_fake
@depthwise_pair.register_fake
def _(x: Tensor, *_parameters: Any) -> Tensor:
    return _like(x)


@depthwise_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, *_parameters: Any) -> tuple[Tensor, ...]:
    return _like(x), _flat(weight), weight.new_empty(weight.shape[0])


@depthwise_pair_backward.register_fake
def _(
    grad: Tensor, x: Tensor, near: Tensor, _bias: Any, _dilation: Any, far: Tensor, *_parameters: Any
) -> tuple[Tensor, ...]:
    bias = near.shape[0]
    return _like(x), _flat(near), near.new_empty(bias), _flat(far), far.new_empty(bias)


@depthwise_gelu_again.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, *_parameters: Any) -> tuple[Tensor, ...]:
    return _like(x), _like(x), _flat(weight), weight.new_empty(weight.shape[0])


def _flat(weight: Tensor) -> Tensor:
    return torch.empty_like(weight, memory_format=torch.contiguous_format)


def _differentiable(operator: Any, backward_operator: Any, slots: tuple[int, ...], plainly: Any) -> None:
    """Give an operator its gradients.

    slots: the inputs that are tensors, in the order of its backward operator; plainly: the same function of all inputs,
    differentiable as often as one likes.
    """

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*(inputs[slot] for slot in slots))
        ctx.inputs = [None if i in slots else value for i, value in enumerate(inputs)]

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = list(ctx.inputs)
        grads: list[Tensor | None] = [None] * len(inputs)
        for slot, tensor in zip(slots, ctx.saved_tensors, strict=True):
            inputs[slot] = tensor
        wanted = [slot for slot in slots if ctx.needs_input_grad[slot]]
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # The gradient will be differentiated itself, which the plain path can be.
            found = torch.autograd.grad(plainly(inputs), [inputs[i] for i in wanted], grad, create_graph=True)
            for slot, value in zip(wanted, found, strict=True):
                grads[slot] = value
        else:
            for slot, value in zip(slots, backward_operator(grad, *inputs), strict=True):
                grads[slot] = value if slot in wanted else None
        return tuple(grads)

    operator.register_autograd(backward, setup_context=setup_context)


def _plainly(inputs: Sequence[Any]) -> Tensor:
    """What the operator of these inputs computes, differentiable as often as one likes."""
    x, *parameters = inputs
    # under autocast the operator has taken float32 parameters of a smaller map
    parameters = [p.to(x.dtype) if isinstance(p, Tensor) else p for p in parameters]
    if len(parameters) == 4:
        return reference.chain(x, [tuple(parameters[:3])], gelu=parameters[3])
    return reference.chain(x, [tuple(parameters[:3]), tuple(parameters[3:])])


_differentiable(depthwise, depthwise_backward, (0, 1, 2), _plainly)
_differentiable(depthwise_pair, depthwise_pair_backward, (0, 1, 2, 4, 5), _plainly)


@register_flop_formula(torch.ops.van.depthwise)
def _(x: Any, weight: Any, *_parameters: Any, **_options: Any) -> int:
    return _flops(x, weight)


@register_flop_formula(torch.ops.van.depthwise_backward)
def _(grad: Any, x: Any, weight: Any, *_parameters: Any, **_options: Any) -> int:
    return 2 * _flops(x, weight)


@register_flop_formula(torch.ops.van.depthwise_gelu_again)
def _(grad: Any, x: Any, weight: Any, *_parameters: Any, **_options: Any) -> int:
    return 2 * _flops(x, weight)  # as of the gradients alone: nothing that a plain step would not do


@register_flop_formula(torch.ops.van.depthwise_pair)
def _(x: Any, near: Any, _bias: Any, _dilation: Any, far: Any, *_parameters: Any, **_options: Any) -> int:
    return _flops(x, near) + _flops(x, far)


@register_flop_formula(torch.ops.van.depthwise_pair_backward)
def _(grad: Any, x: Any, near: Any, _bias: Any, _dilation: Any, far: Any, *_parameters: Any, **_options: Any) -> int:
    return 2 * (_flops(x, near) + _flops(x, far))


def _flops(x: Sequence[int], weight: Sequence[int]) -> int:
    """Two per tap and element, padding included: PyTorch's count of the convolution."""
    return 2 * math.prod(x) * math.prod(weight[1:])
