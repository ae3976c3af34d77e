"""The feed-forward in the C kernel (csrc/feed.h), products included: a panel of expanded channels at a time.

chunked.py registers the operator, and calls this where the family of processors gains by it.

Shapes: N batch, C channels, E expanded channels, K channels of the result, H height, W width.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .c_library import library
from .cpu_depthwise import _check, _laid_out, _pointers
from .folded_block import _terms
from .reference import Conv

# Images are taken together until they have so many pixels; gradients are summed in so many sets of them at most.
PIXELS = 784
SETS = 16
# Units of work that are looked for: sets of images times groups of panels.
UNITS = 8

# expand (E, C, 1, 1), its bias, depthwise weight, bias and dilation, project (K, E, 1, 1), its bias
Parameters = tuple[Tensor, Tensor | None, Conv, Tensor, Tensor | None]


def forward(x: Tensor, y: Tensor, parameters: Parameters, begin: Tensor | None = None) -> None:
    """y (N, H, W, K) becomes begin + the feed-forward of x (N, H, W, C), all contiguous."""
    call = _Call.of(x, parameters)
    panels, partial = call.memory(x, y, backward=False)
    data, handle = (panels.data_ptr(), partial.data_ptr(), y.data_ptr()), library(x.dtype).handle
    given, threads = (x.data_ptr(), None if begin is None else begin.data_ptr()), torch.get_num_threads()
    _check(handle.van_feed(*given, *call.numbers, call.pointers, *data, _terms(x.dtype), threads), x)


def backward(grad: Tensor, x: Tensor, grad_x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    """grad_x (N, H, W, C) becomes x's gradient, from that of the result, (N, H, W, K).

    Returns the gradients of expand (C, E), of project (K, E), and of the taps, of the depthwise bias and of the
    expansion's: (k² + 2, E).
    """
    call = _Call.of(x, parameters)
    panels, partial = call.memory(x, grad_x, backward=True)
    hidden, taps = len(parameters[0]), parameters[2][0][0].numel()
    wide, handle = call.wide, library(x.dtype).handle
    sums = [x.new_zeros((call.sets, rows, wide)) for rows in (x.shape[-1], grad.shape[-1], taps + 2)]
    data = panels.data_ptr(), partial.data_ptr(), _pointers([grad_x, *sums])
    maps, threads = (x.data_ptr(), grad.data_ptr()), torch.get_num_threads()
    _check(handle.van_feed_backward(*maps, *call.numbers, call.pointers, *data, _terms(x.dtype), threads), x)
    expand, project, rest = (t.sum(0)[:, :hidden] for t in sums)
    return expand, project, rest


@dataclass(frozen=True)
class _Call:
    """What both functions of the kernel take."""

    numbers: tuple[Any, Any]  # shape and options
    pointers: Any
    sets: int
    groups: int
    wide: int  # expanded channels in whole panels
    kept: list[Tensor]  # must live as long as the call

    @classmethod
    def of(cls, x: Tensor, parameters: Parameters) -> _Call:
        expand, expand_bias, (near, near_bias, dilation), project, project_bias = parameters
        batch, height, width, channels = x.shape
        panel = library(x.dtype).handle.van_panel()
        sets, groups, together = division(batch, height * width, -(-len(expand) // panel))
        pointers, kept = _laid_out([expand, expand_bias, near, near_bias, project, project_bias])
        shape = (ctypes.c_long * 6)(batch, height, width, channels, len(expand), len(project))
        options = (ctypes.c_long * 5)(near.shape[-1], dilation, sets, groups, together)
        return cls((shape, options), pointers, sets, groups, -(-len(expand) // panel) * panel, kept)

    def memory(self, x: Tensor, result: Tensor, *, backward: bool) -> tuple[Tensor, Tensor]:
        """For the panels of weights, and for what the groups give."""
        size = library(x.dtype).handle.van_feed_panels(self.numbers[0], int(backward))
        return x.new_empty(size), x.new_empty((self.groups if self.groups > 1 else 0, *result.shape))


def division(batch: int, pixels: int, panels: int) -> tuple[int, int, int]:
    """Sets of images, groups of panels, images at a time: the shape alone decides, as sums need."""
    together = max(1, min(batch, PIXELS // pixels))
    sets = max(1, min(SETS, -(-batch // together)))
    return sets, max(1, min(panels, -(-UNITS // sets))), together
