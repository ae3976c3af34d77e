"""The network's depthwise convolutions, all keeping the map's size: one, one and GELU, the pair of the attention.

Shapes: N batch, C channels, H height, W width, k kernel side.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from . import cpu_depthwise as kernel
from . import reference
from .c_library import library
from .cuda_depthwise import DTYPES, gpu
from .operators import constant_in_graphs
from .reference import Conv
from .selection import in_mode, path_taken
from .tensors import fits, ordinary

_kernels_wanted = ContextVar("van_kernels_wanted", default=True)


def depthwise_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, dilation: int = 1, training: bool = False
) -> Tensor:
    """Depthwise convolution with stride 1 and the zero padding that keeps H and W.

    x: (N, C, H, W), weight: (C, 1, k, k), bias: (C,) or None; returns (N, C, H, W).
    An odd span is padded one more at the bottom and right. training: as while training, without gradients too.
    """
    x, conv = _as_autocast(x), (weight, bias, dilation)
    ours = has_kernel(x, conv, path=in_mode("depthwise_conv2d", x, weight, bias, training=training))
    return kernel.depthwise(x, *conv, False) if ours else reference.convolve(x, *conv)


def depthwise_gelu(x: Tensor, conv: Conv, *, training: bool = False) -> Tensor:
    """Exact GELU of a depthwise convolution (weight, bias, dilation): (N, C, H, W) -> (N, C, H, W).

    training: as while training, without gradients too.
    """
    x = _as_autocast(x)
    ours = has_kernel(x, conv, path=in_mode("depthwise_gelu", x, *conv[:2], training=training))
    return kernel.depthwise(x, *conv, True) if ours else reference.chain(x, [conv], gelu=True)


def depthwise_pair(x: Tensor, near: Conv, far: Conv, *, training: bool = False) -> Tensor:
    """Two depthwise convolutions, first near, then far, each (weight, bias, dilation): (N, C, H, W) -> (N, C, H, W).

    training: as while training, without gradients too.
    """
    x = _as_autocast(x)
    if not has_kernel(x, near, far):  # where it cannot compute both, it may still compute one
        for weight, bias, dilation in (near, far):
            x = depthwise_conv2d(x, weight, bias, dilation=dilation, training=training)
        return x
    ours = _takes(x, in_mode("depthwise_pair", x, *near[:2], *far[:2], training=training))
    return kernel.depthwise_pair(x, *near, *far) if ours else reference.chain(x, [near, far])


@contextmanager
def without_kernels() -> Iterator[None]:
    """Within it every primitive is the library's: what a kernel is checked against. For graphs not yet compiled."""
    token = _kernels_wanted.set(False)
    try:
        yield
    finally:
        _kernels_wanted.reset(token)


def has_kernel(x: Tensor, *convs: Conv, path: str | None = None) -> bool:
    """Whether a kernel computes these convolutions of x: the C kernel float32 on the CPU, Triton's on a GPU.

    Both take square kernels and ordinary tensors; neither is exported. path: the C kernel's, which its family of
    processors must gain by; None: whether it can.
    """
    if is_recorded() or not ordinary(x, *(tensor for weight, bias, _ in convs for tensor in (weight, bias))):
        return False
    x = _as_autocast(x)
    ours = has_c_kernel(x, path) if x.device.type == "cpu" else has_gpu_kernel(x)
    return ours and all(fits(x, weight, bias, mixed=x.is_cuda) for weight, bias, _ in convs)


def is_recorded() -> bool:
    """Whether a graph is recorded for other runtimes, which have no kernels."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def has_c_kernel(x: Tensor, path: str | None = None) -> bool:
    """Whether the C kernel computes maps of this type, and takes this path here."""
    ours = x.device.type == "cpu" and x.dtype == torch.float32 and kernel_available()
    return ours and (path is None or _taken(path))


def _takes(x: Tensor, path: str) -> bool:
    """Whether this path is taken for a map that the kernels can compute; on a GPU all are."""
    return x.device.type != "cpu" or _taken(path)


def has_gpu_kernel(x: Tensor) -> bool:
    """Whether the Triton kernels compute maps of this type, where they are."""
    return x.device.type == "cuda" and x.dtype in DTYPES and _ready(x.device)


@constant_in_graphs
def kernel_available() -> bool:
    """Whether there is a C kernel, and it is wanted."""
    return _kernels_wanted.get() and library().handle is not None


@constant_in_graphs
def _taken(path: str) -> bool:
    return path_taken(path)


@constant_in_graphs
def _ready(device: torch.device) -> bool:
    return _kernels_wanted.get() and gpu(device).ready


def _as_autocast(x: Tensor) -> Tensor:
    """What autocast makes of a convolution's input on a GPU; the kernels take its float32 parameters as they are."""
    if x.device.type == "cuda" and x.dtype == torch.float32 and torch.is_autocast_enabled("cuda"):
        return x.to(torch.get_autocast_dtype("cuda"))
    return x
