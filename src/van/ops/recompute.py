"""The end of the feed-forward in training: depthwise convolution, GELU, projection; only the first one's input is kept.

By themselves the three keep two expanded maps, the largest of the network: that input, and GELU's result for the
gradient of the projection's weight. Here the second is computed again, in the pass that GELU's slope needs anyway.

Shapes: N batch, E expanded channels, K channels of the result, H height, W width, k kernel side.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cpu_depthwise as kernel
from .depthwise import depthwise_gelu, has_kernel
from .pointwise import pointwise_conv2d
from .reference import Conv
from .tensors import ordinary


class _Project(torch.autograd.Function):
    """The projection's gradient needs GELU's result, whose own gradient it gives: both in one backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        near: Tensor,
        near_bias: Tensor | None,
        dilation: int,
        weight: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        hidden = kernel.depthwise(x, near, near_bias, dilation, True)
        ctx.save_for_backward(x, near, near_bias, weight, bias)
        ctx.dilation = dilation
        shift = None if bias is None else bias.to(x.dtype)
        return F.linear(hidden.permute(0, 2, 3, 1), weight.flatten(1).to(x.dtype), shift).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, near, near_bias, weight, bias = ctx.saved_tensors
        rows = grad.to(x.dtype).permute(0, 2, 3, 1)  # (N, H, W, K)
        hidden_grad = (rows @ weight.flatten(1).to(x.dtype)).permute(0, 3, 1, 2)
        hidden, *grads = kernel.depthwise_gelu_again(hidden_grad, x, near, near_bias, ctx.dilation)
        grad_x, grad_near, grad_near_bias = grads
        rows = rows.flatten(0, 2)  # (N H W, K)
        grad_weight = (rows.t() @ hidden.permute(0, 2, 3, 1).flatten(0, 2)).to(weight.dtype).view_as(weight)
        grad_bias = None if bias is None else rows.sum(0, dtype=bias.dtype)
        return grad_x, grad_near, None if near_bias is None else grad_near_bias, None, grad_weight, grad_bias


def should_recompute(x: Tensor) -> bool:
    """Whether training on x is bound by memory, so that computing GELU twice costs less than keeping it."""
    return ordinary(x) and x.is_cuda and x.dtype in (torch.bfloat16, torch.float16)


def depthwise_gelu_project(
    x: Tensor, conv: Conv, weight: Tensor, bias: Tensor | None, *, training: bool = False
) -> Tensor:
    """1x1 projection (K, E, 1, 1) of GELU of a depthwise convolution: (N, E, H, W) -> (N, K, H, W), in x's type.

    Where GELU is computed again, the gradient cannot be differentiated again. training: as while training, without
    gradients too.
    """
    near, near_bias, dilation = conv
    again = should_recompute(x) and has_kernel(x, conv) and ordinary(weight, bias) and weight.device == x.device
    if not again:
        return pointwise_conv2d(depthwise_gelu(x, conv, training=training), weight, bias)
    return _Project.apply(x, near, near_bias, dilation, weight, bias)
