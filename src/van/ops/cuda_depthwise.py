"""The Triton kernels as the CUDA side of the operators: what they serve, in which blocks, and why not where not.

Shapes: N batch, C channels, H height, W width, k kernel side. Maps are (N, C, H, W) in any layout; results lie in
channels_last memory. float32, bfloat16, float16; parameters in the map's type or float32, as under autocast.
Triton is imported when a kernel is first needed. TRITON_INTERPRET=1 runs the same kernels on CPU tensors, for tests.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from ..errors import VanError
from . import cpu_depthwise as kernel
from . import reference
from .c_library import _wish
from .cpu_depthwise import _like
from .reference import Conv
from .tensors import require_fitting
from .triton_tiles import Blocks, blocks_for

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Of the GPU's generation; older ones lack bfloat16.
OLDEST_CAPABILITY = (8, 0)
# Largest difference of the check below, as a part of the largest value.
CHECK_TOLERANCE = 1e-4


# --- the operators


@kernel.depthwise.register_kernel("cuda")
def _(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, gelu: bool) -> Tensor:
    return forward(x, [(weight, bias, dilation)], gelu=gelu)


@kernel.depthwise_backward.register_kernel("cuda")
def _(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, gelu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    one, two, three = backward(grad, x, [(weight, bias, dilation)], gelu=gelu)
    return one, two, three


@kernel.depthwise_pair.register_kernel("cuda")
def _(x: Tensor, *parameters: Any) -> Tensor:
    return forward(x, [parameters[:3], parameters[3:]])


@kernel.depthwise_pair_backward.register_kernel("cuda")
def _(grad: Tensor, x: Tensor, *parameters: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    one, two, three, four, five = backward(grad, x, [parameters[:3], parameters[3:]])
    return one, two, three, four, five


@kernel.depthwise_gelu_again.register_kernel("cuda")
def _(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return gelu_again(grad, x, (weight, bias, dilation))


def forward(x: Tensor, convs: Sequence[Conv], *, gelu: bool = False) -> Tensor:
    """Depthwise convolutions in a row, GELU after a single one where asked: (N, C, H, W) -> (N, C, H, W)."""
    x = x.contiguous(memory_format=torch.channels_last)
    for conv in convs:
        x = convolve(x, conv, gelu=gelu)
    return x


def backward(grad: Tensor, x: Tensor, convs: Sequence[Conv], *, gelu: bool = False) -> list[Tensor]:
    """The gradient of x, then of each weight and bias; maps between the convolutions are computed again."""
    grad, x = (t.contiguous(memory_format=torch.channels_last) for t in (grad, x))
    inputs = [x]
    for conv in convs[:-1]:
        inputs.append(convolve(inputs[-1], conv))
    if gelu:
        grad = convolve(x, convs[0], slope_of=grad)
    grads: list[Tensor] = []
    for conv, given in zip(reversed(convs), reversed(inputs), strict=True):
        grads = [*parameter_gradients(grad, given, conv), *grads]
        grad = convolve(grad, conv, flip=True)
    return [grad, *grads]


def gelu_again(grad: Tensor, x: Tensor, conv: Conv) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """GELU of a depthwise convolution, computed again in the pass that its gradient needs; gradients as `backward`."""
    grad, x = (t.contiguous(memory_format=torch.channels_last) for t in (grad, x))
    result = _like(x)
    grad = convolve(x, conv, slope_of=grad, gelu_to=result)
    return result, convolve(grad, conv, flip=True), *parameter_gradients(grad, x, conv)


# --- launching


def convolve(
    x: Tensor,
    conv: Conv,
    *,
    gelu: bool = False,
    slope_of: Tensor | None = None,
    gelu_to: Tensor | None = None,
    flip: bool = False,
    blocks: Blocks | None = None,
) -> Tensor:
    """One depthwise convolution of a channels_last map: (N, C, H, W) -> (N, C, H, W).

    gelu: then GELU. slope_of: instead, that gradient (N, C, H, W) of GELU's result times GELU's slope; gelu_to: with
    it, a map to put GELU's result into.
    flip: x is a gradient of the result, the return value that of the input; no bias. blocks: None for the table's.
    """
    require_fitting(x, [conv], mixed=True)
    weight, bias, dilation = conv
    y, (batch, channels, height, width) = _like(x), x.shape
    if not y.numel():
        return y
    kernels, side, before = _kernels(), weight.shape[-1], _padding(conv)
    blocks = blocks or blocks_for("map", side, dilation, x)
    whole, rest = divmod(height, blocks.rows * dilation)
    row_blocks = whole * dilation + min(rest, dilation)
    groups = (row_blocks, -(-width // blocks.columns), -(-channels // blocks.channels))
    bias = None if flip else bias
    epilogue = kernels.GELU if gelu else kernels.NOTHING
    if slope_of is not None:
        epilogue = kernels.TIMES_GELU_SLOPE if gelu_to is None else kernels.SLOPE_AND_GELU
    with _on(x):
        kernels.convolve[(batch * math.prod(groups),)](
            x,
            weight.detach().reshape(channels, -1).t().to(x.dtype).contiguous(),
            x if bias is None else bias.contiguous(),
            x if slope_of is None else slope_of,
            y,
            y if gelu_to is None else gelu_to,
            *(height, width, channels),
            *groups,
            K=side,
            D=dilation,
            BEFORE=dilation * (side - 1) - before if flip else before,
            FLIP=flip,
            HAS_BIAS=bias is not None,
            EPILOGUE=epilogue,
            **_options(blocks),
        )
    return y


def parameter_gradients(grad: Tensor, x: Tensor, conv: Conv, *, blocks: Blocks | None = None) -> tuple[Tensor, Tensor]:
    """Gradients of weight and bias from channels_last maps: (C, 1, k, k) and (C,) in the weight's type."""
    require_fitting(x, [conv], mixed=True)
    weight, _, dilation = conv
    batch, channels, height, width = x.shape
    side, kernels = weight.shape[-1], _kernels()
    blocks = blocks or blocks_for("weight", side, dilation, x)
    chunks, channel_blocks = -(-batch * height // blocks.rows), -(-channels // blocks.channels)
    taps = torch.zeros((chunks, side * side, channels), dtype=torch.float32, device=x.device)
    biases = torch.zeros((chunks, channels), dtype=torch.float32, device=x.device)
    if x.numel():
        with _on(x):
            kernels.weight_gradient[(side * channel_blocks * chunks,)](
                x,
                grad,
                taps,
                biases,
                *(height, width, channels),
                *(batch * height, channel_blocks),
                K=side,
                D=dilation,
                BEFORE=_padding(conv),
                **_options(blocks),
            )
    total = taps.sum(0).t().reshape(weight.shape).to(weight.dtype, memory_format=torch.contiguous_format)
    return total.contiguous(), biases.sum(0).to(weight.dtype)


def _padding(conv: Conv) -> int:
    """Rows above and columns left of the map; an odd span has one more below and right."""
    return conv[2] * (conv[0].shape[-1] - 1) // 2


def _options(blocks: Blocks) -> dict[str, Any]:
    sizes = {"ROWS": blocks.rows, "COLUMNS": blocks.columns, "CHANNELS": blocks.channels}
    return sizes | {"num_warps": blocks.warps, "enable_fp_fusion": True}


def _on(x: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


@functools.cache
def _kernels() -> Any:
    from . import triton_kernels

    return triton_kernels


# --- whether they can be used


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Whether the kernels compute on a GPU, and why not, or on which."""

    ready: bool
    reason: str


def gpu(device: torch.device | None = None) -> Gpu:
    """The state of a CUDA device, None for the current one; found once, by a small computation that is checked.

    Raises VanError while a CUDA graph is captured and nothing is known yet: the check needs the host.
    """
    index = None if device is None else device.index
    if index is None:
        if not torch.cuda.is_available():
            return Gpu(ready=False, reason="no CUDA device")
        index = torch.cuda.current_device()
    return _found(index, _wish())


@functools.cache
def _found(index: int, wish: str) -> Gpu:
    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    if wish == "plain":
        return Gpu(ready=False, reason="VAN_OPS=plain")
    if torch.version.hip is not None:
        return Gpu(ready=False, reason=f"{name}: the kernels were never tried on ROCm")
    if capability < OLDEST_CAPABILITY:
        return Gpu(ready=False, reason=f"{name}: compute capability {capability[0]}.{capability[1]} is below 8.0")
    if torch.cuda.is_current_stream_capturing():
        raise VanError("a CUDA graph is captured before the kernels were checked here; run the network once before it")
    try:
        worst = check(torch.device("cuda", index))
    except ImportError:
        return Gpu(ready=False, reason="Triton is not installed")
    except Exception as error:  # whatever a compiler or a driver may raise: the plain path still computes
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Gpu(ready=False, reason=f"{name}: the kernels failed: {first}")
    if not worst < CHECK_TOLERANCE:
        return Gpu(ready=False, reason=f"{name}: the kernels differ from float64 by {worst:.2g}")
    return Gpu(ready=True, reason=f"Triton kernels, checked on {name}")


def check(device: torch.device) -> float:
    """The largest difference of values and gradients from float64, on small maps, as a part of the largest value."""
    with _disable_current_modes(), torch.inference_mode(False), torch.enable_grad():
        draw = torch.Generator().manual_seed(0)
        x, weight, bias, grad = (
            torch.randn(shape, generator=draw) for shape in ((2, 20, 5, 9), (20, 1, 3, 3), (20,), (2, 20, 5, 9))
        )
        leaves = [t.double().requires_grad_() for t in (x, weight, bias)]
        y = reference.chain(leaves[0], [(leaves[1], leaves[2], 2)], gelu=True)
        wanted = [y, *torch.autograd.grad(y, leaves, grad.double())]
        x, weight, bias, grad = (t.to(device) for t in (x, weight, bias, grad))
        convs = [(weight, bias, 2)]
        found = [forward(x, convs, gelu=True), *backward(grad, x, convs, gelu=True), *gelu_again(grad, x, convs[0])]
        gaps = [((a.cpu() - b).abs().max() / b.abs().max()).item() for a, b in zip(found, 2 * wanted, strict=True)]
    return max(gaps) if all(map(math.isfinite, gaps)) else math.inf
