"""Folded stages, and a folded patch embedding, as one operator of the C kernel each; inference only.

Maps and weights are float32, bfloat16 or float16. What is multiplied in the matrix products is float32, or bfloat16
where the processor has instructions for it (`product_type`); everything else is computed in float32.

Shapes: N batch, C channels, E expanded channels, H height, W width.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..errors import ConfigError
from .c_library import library, multiplies_bfloat16
from .cpu_depthwise import _check, _like
from .depthwise import is_recorded, kernel_available
from .operators import constant_in_graphs
from .pointwise import Pointwise
from .reference import Conv
from .tensors import ordinary

HALVES = (torch.bfloat16, torch.float16)
# Numbers that describe a patch embedding, and a stage.
OPTIONS, NUMBERS = 4, 4 + 7
# Fewer channels than this make the rows of a patch too short to gather.
NARROW = 8


@dataclass(frozen=True)
class PackedPatch:
    """A strided convolution of `channels` as the operators below read it.

    dtype: of the module's weights, and so of maps. products: the type that the matrices are packed for.
    """

    panels: Tensor
    bias: Tensor
    options: list[int]
    channels: int
    dtype: torch.dtype
    products: torch.dtype


@dataclass(frozen=True)
class PackedBlocks:
    """Folded blocks of one shape as the operator below reads them: weights (blocks, size), numbers of a block.

    dtype, products: as of PackedPatch.
    patch: the patch embedding before the first block, None without one.
    norm: weight and bias, (2, C), of a LayerNorm after the last block, None without one; epsilon is its own.
    """

    weights: Tensor
    numbers: list[int]
    channels: int
    dtype: torch.dtype
    products: torch.dtype
    patch: PackedPatch | None = None
    norm: Tensor | None = None
    epsilon: float = 0.0

    def after(self, patch: PackedPatch | None) -> PackedBlocks:
        """These blocks with a patch embedding before the first, if there is one that gives maps like theirs."""
        ours = patch is not None and patch.options[0] == self.channels and patch.dtype == self.dtype
        return replace(self, patch=patch) if ours else self

    def then(self, weight: Tensor | None, bias: Tensor | None, epsilon: float) -> PackedBlocks:
        """These blocks with a LayerNorm over their channels after the last, where the kernel has one like it."""
        ours = weight is not None and weight.dtype == self.dtype and len(weight) == self.channels
        packed = pack_norm(weight, bias) if ours else None
        return self if packed is None else replace(self, norm=packed, epsilon=epsilon)


@dataclass(frozen=True)
class PackedStages:
    """Stages for the same products, one after another."""

    stages: tuple[PackedBlocks, ...]

    @property
    def dtype(self) -> torch.dtype:
        """As of PackedPatch."""
        return self.stages[0].dtype


def pack_norm(weight: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """Weight and bias, (C,), of a LayerNorm over channels, (2, C) float32; None where the kernel has none like it."""
    if weight is None or bias is None or weight.ndim != 1 or not _readable(torch.float32, weight, bias):
        return None
    return torch.stack([weight.detach().float(), bias.detach().float()])


def product_type(x: Tensor) -> torch.dtype:
    """What the matrix products of a folded network multiply for this map: its own type, or that of autocast.

    float32 where the processor has no instructions for that.
    """
    wanted = x.dtype
    if x.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
        wanted = torch.get_autocast_dtype("cpu")
    return torch.bfloat16 if wanted == torch.bfloat16 and _multiplies_bfloat16() else torch.float32


@constant_in_graphs
def _multiplies_bfloat16() -> bool:
    return multiplies_bfloat16()


def pack_block(
    products: Sequence[Pointwise], depthwise: Sequence[Conv], shortcut: Tensor, *, of: torch.dtype = torch.float32
) -> PackedBlocks | None:
    """The weights of a folded block in the kernel's layout; None where they are no tensors on the CPU that it reads.

    products: in, mix, out, expand, project, multiplied in type `of`. depthwise: near, far, depthwise.
    shortcut: (C, 1, 1).
    """
    pairs = [*products, *((weight, bias) for weight, bias, _ in depthwise)]
    if not _readable(of, shortcut, *(parameter for pair in pairs for parameter in pair)):
        return None
    parts: list[Tensor] = []
    for i, (weight, bias) in enumerate(products):
        parts += _panels(weight.detach().float(), _bias_of(weight, bias), of, whole_inputs=i == 4)
    for weight, bias, _ in depthwise:
        parts += [weight.detach().float(), _bias_of(weight, bias)]
    lanes = library(of).handle.van_lanes()
    parts = [F.pad(part.flatten(), (0, -part.numel() % lanes)) for part in (*parts, shortcut.detach().float())]
    numbers = [number for weight, _, dilation in depthwise for number in (weight.shape[-1], dilation)]
    return PackedBlocks(torch.cat(parts)[None], [len(products[3][0]), *numbers], shortcut.shape[0], shortcut.dtype, of)


def pack_patch(
    weight: Tensor, bias: Tensor | None, *, stride: int, padding: int, of: torch.dtype = torch.float32
) -> PackedPatch | None:
    """A patch embedding's convolution in the kernel's layout; None where the kernel has none like it, or reads images.

    weight: (K, C, k, k), bias: (K,) or None; stride and padding, which is of zeros, are those of both sides;
    products are of type `of`.
    For the three channels of an image the library's convolution is faster: 0.25 against 0.41 ms at 224 x 224.
    """
    outputs, channels, side, width = weight.shape
    if channels < NARROW or side != width or not _readable(of, weight, bias):
        return None
    rows = weight.detach().float().permute(2, 0, 3, 1)  # the kernel takes its rows one after another
    packed = [_panels(row, _bias_of(weight, bias), of, whole_inputs=False) for row in rows]
    panels, padded_bias = torch.cat([panels for panels, _ in packed]), packed[0][1]
    return PackedPatch(panels, padded_bias, [outputs, side, stride, padding], channels, weight.dtype, of)


def _readable(of: torch.dtype, *parameters: Tensor | None) -> bool:
    given = [p for p in parameters if p is not None]
    dtype = given[0].dtype
    here = all(p.device.type == "cpu" and p.dtype == dtype for p in given) and dtype in (torch.float32, *HALVES)
    return here and ordinary(*given) and library(of).handle is not None


def _panels(weight: Tensor, bias: Tensor, of: torch.dtype, *, whole_inputs: bool) -> tuple[Tensor, Tensor]:
    """(outputs, inputs, …) in the kernel's layout, and the bias as long; zeros at the ends.

    whole_inputs: the inputs are rounded up to whole panels too, because the kernel makes them panel by panel.
    """
    weight, handle = weight.flatten(1).contiguous(), library(of).handle
    panel = handle.van_panel()
    if whole_inputs:
        weight = F.pad(weight, (0, -weight.shape[1] % panel))
    outputs, inputs = weight.shape
    panels = weight.new_empty(handle.van_packed_size(outputs, inputs))
    handle.van_pack(weight.data_ptr(), outputs, inputs, inputs, 1, panels.data_ptr())
    return panels, F.pad(bias, (0, -outputs % panel))


def _bias_of(weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.zeros(len(weight)) if bias is None else bias.detach().float().contiguous()


@torch.library.custom_op("van::folded_stages", mutates_args=(), device_types="cpu")
def operator(
    x: Tensor, tensors: Sequence[Tensor], numbers: Sequence[int], epsilons: Sequence[float], products: torch.dtype
) -> list[Tensor]:
    """Folded stages, one after another; the maps of all, (N, C, H, W), of the type of x, (N, C_in, H_in, W_in).

    products: the type that weights are packed for. Of each stage:
    tensors: panels and bias of its patch embedding, weights of its blocks, weight and bias of its norm, (2, C); without
    patch embedding or norm, tensors without elements. Weights: (blocks, size), each panels and bias of in, mix, out,
    expand, project; weight and bias of near, far, depthwise; shortcut; all of whole vectors.
    numbers: as of `patch_operator`; expanded channels; kernel side and dilation of near, far, depthwise.
    epsilons: of the norm.
    """
    dtype, x = x.dtype, x.to(torch.float32, memory_format=torch.channels_last)
    maps = []
    for (panels, bias, weights, norm), stage, epsilon in _stages(tensors, numbers, epsilons):
        if panels.numel():
            x = _convolved(x, panels, bias, stage[:OPTIONS], products)
        x = _through_blocks(x, weights, stage[OPTIONS:], products)
        if norm.numel():
            _normalise(x, norm, epsilon)
        maps.append(x.to(dtype))
    return maps


def _stages(
    tensors: Sequence[Any], numbers: Sequence[int], epsilons: Sequence[float]
) -> Iterator[tuple[Sequence[Any], Sequence[int], float]]:
    """What the operator takes, stage by stage."""
    for i, epsilon in enumerate(epsilons):
        yield tensors[4 * i : 4 * i + 4], numbers[NUMBERS * i : NUMBERS * (i + 1)], epsilon


def _through_blocks(x: Tensor, weights: Tensor, numbers: Sequence[int], products: torch.dtype) -> Tensor:
    y = _like(x)
    if y.numel():
        batch, channels, height, width = x.shape
        handle, (hidden, *sides) = library(products).handle, numbers
        scratch = x.new_empty((2 + handle.van_block_groups(height * width, hidden), x.numel()))
        shape = (ctypes.c_long * 5)(batch, height, width, channels, hidden)
        sizes, data = (ctypes.c_long * 6)(*sides), (weights.data_ptr(), weights.shape[0], weights.shape[1])
        maps, threads = (scratch.data_ptr(), y.data_ptr()), torch.get_num_threads()
        _check(handle.van_blocks(x.data_ptr(), shape, sizes, *data, *maps, _terms(products), threads), x)
    return y


def _normalise(x: Tensor, norm: Tensor, epsilon: float) -> None:
    """LayerNorm over the channels of a float32 map in channels_last memory, in place."""
    if x.numel():
        pixels, threads = x.numel() // x.shape[1], torch.get_num_threads()
        _check(library().handle.van_norm(x.data_ptr(), pixels, x.shape[1], norm.data_ptr(), epsilon, threads), x)


def _convolved(x: Tensor, panels: Tensor, bias: Tensor, options: Sequence[int], products: torch.dtype) -> Tensor:
    """The strided convolution of `patch_operator` of a float32 map in channels_last memory."""
    y = _patches(x, options)
    if y.numel():
        batch, channels, height, width = x.shape
        shape = (ctypes.c_long * 4)(batch, height, width, channels)
        numbers = (ctypes.c_long * 6)(*options, *y.shape[2:])
        handle, threads = library(products).handle, torch.get_num_threads()
        data = panels.data_ptr(), bias.data_ptr(), y.data_ptr()
        _check(handle.van_patch(x.data_ptr(), shape, numbers, *data, _terms(products), threads), x)
    return y


def _terms(products: torch.dtype = torch.float32) -> int:
    """Numbers of 8 bits that stand for a float32 on AMX: all of its 24 bits, or 16 where PyTorch is set to accept that.

    One for products of bfloat16. Other instructions compute in float32 whatever PyTorch is set to.
    """
    if products == torch.bfloat16:
        return 1
    return 3 if torch.get_float32_matmul_precision() == "highest" else 2


@operator.register_fake
def _(
    x: Tensor, tensors: Sequence[Tensor], numbers: Sequence[int], epsilons: Sequence[float], products: torch.dtype
) -> list[Tensor]:
    maps = []
    for (panels, *_), stage, _ in _stages(tensors, numbers, epsilons):
        x = _patches(x, stage[:OPTIONS]) if panels.numel() else _like(x)
        maps.append(x)
    return maps


@torch.library.custom_op("van::channel_norm", mutates_args=(), device_types="cpu")
def norm_operator(x: Tensor, norm: Tensor, epsilon: float) -> Tensor:
    """LayerNorm over the channels: (N, C, H, W) -> (N, C, H, W) of the same type; norm: weight and bias, (2, C)."""
    y = torch.empty_like(x, dtype=torch.float32, memory_format=torch.channels_last).copy_(x)
    _normalise(y, norm, epsilon)
    return y.to(x.dtype)


@norm_operator.register_fake
def _(x: Tensor, norm: Tensor, epsilon: float) -> Tensor:
    return _like(x)


@register_flop_formula(torch.ops.van.folded_stages)
def _(
    x: Sequence[int],
    tensors: Sequence[Sequence[int]],
    numbers: Sequence[int],
    epsilons: Sequence[float],
    *_more: Any,
    out_shape: Sequence[Sequence[int]] = (),
    **_named: Any,
) -> int:
    total, inputs = 0, x[1]
    stages = _stages(tensors, numbers, epsilons)
    for ((panels, _, weights, _), stage, _), (batch, channels, height, width) in zip(stages, out_shape, strict=True):
        (_, side, *_), (hidden, near, _, far, _, depthwise, _) = stage[:OPTIONS], stage[OPTIONS:]
        taps = channels * (near**2 + far**2) + hidden * depthwise**2
        of_a_pixel = weights[0] * (3 * channels * channels + 2 * channels * hidden + taps)
        if math.prod(panels):
            of_a_pixel += channels * inputs * side**2
        total += 2 * batch * height * width * of_a_pixel
        inputs = channels
    return total


@torch.library.custom_op("van::folded_patch", mutates_args=(), device_types="cpu")
def patch_operator(x: Tensor, panels: Tensor, bias: Tensor, options: Sequence[int], products: torch.dtype) -> Tensor:
    """A strided convolution: (N, C, H, W) -> (N, K, H', W') of the same type.

    options: K, kernel side, stride, padding. products: the type that panels are packed for.
    """
    x, dtype = x.to(torch.float32, memory_format=torch.channels_last), x.dtype
    return _convolved(x, panels, bias, options, products).to(dtype)


@patch_operator.register_fake
def _(x: Tensor, panels: Tensor, bias: Tensor, options: Sequence[int], products: torch.dtype) -> Tensor:
    return _patches(x, options)


@register_flop_formula(torch.ops.van.folded_patch)
def _(
    x: Sequence[int],
    panels: Any,
    bias: Any,
    options: Sequence[int],
    *_more: Any,
    out_shape: Sequence[int] | None = None,
    **_named: Any,
) -> int:
    return 2 * math.prod(out_shape or ()) * x[1] * options[1] ** 2


def _patches(x: Tensor, options: Sequence[int]) -> Tensor:
    """The result's memory."""
    outputs, kernel, stride, padding = options
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in x.shape[2:])
    return torch.empty(
        (x.shape[0], outputs, height, width), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )


def folded_patch(x: Tensor, packed: PackedPatch) -> Tensor:
    """The strided convolution whose weights were packed; (N, C, H, W) on the CPU, no gradients."""
    _require_channels(x, packed.channels)
    return patch_operator(x.to(packed.dtype), packed.panels, packed.bias, packed.options, packed.products)


def folded_blocks(x: Tensor, packed: PackedBlocks) -> Tensor:
    """The blocks whose weights were packed, and what is before and after; (N, C, H, W) on the CPU, no gradients."""
    return folded_stages(x, [packed])[0]


def folded_stages(x: Tensor, packed: Sequence[PackedBlocks]) -> list[Tensor]:
    """Stages whose weights were packed for the same products, one after another; (N, C, H, W) on the CPU, no gradients.

    Returns the maps of all.
    """
    first = packed[0]
    _require_channels(x, first.channels if first.patch is None else first.patch.channels)
    return operator(x.to(first.dtype), *arguments_of(packed))


def arguments_of(packed: Sequence[PackedBlocks]) -> tuple[list[Tensor], list[int], list[float], torch.dtype]:
    """What the operator takes after the map."""
    nothing = packed[0].weights.new_empty(0)
    tensors, numbers = [], []
    for stage in packed:
        patch, norm = stage.patch, nothing if stage.norm is None else stage.norm
        tensors += [*((nothing, nothing) if patch is None else (patch.panels, patch.bias)), stage.weights, norm]
        numbers += [*([0] * OPTIONS if patch is None else patch.options), *stage.numbers]
    return tensors, numbers, [stage.epsilon for stage in packed], packed[0].products


def channel_norm(x: Tensor, norm: Tensor, epsilon: float) -> Tensor:
    """LayerNorm over the channels, weight and bias as of `pack_norm`; (N, C, H, W) on the CPU, no gradients."""
    _require_channels(x, norm.shape[1])
    return norm_operator(x, norm, epsilon)


def accepts(packed: PackedStages | PackedBlocks | PackedPatch, x: Tensor) -> bool:
    """Whether the modules whose weights were packed take maps of this type: their own, or any under autocast."""
    return x.dtype == packed.dtype or torch.is_autocast_enabled("cpu")


def _require_channels(x: Tensor, channels: int) -> None:
    if x.ndim != 4 or x.shape[1] != channels:
        raise ConfigError(f"the map has shape {tuple(x.shape)}; these weights take (N, {channels}, H, W)")


def has_block_kernel(x: Tensor) -> bool:
    """Whether the C kernel computes folded blocks of x: a map on the CPU of which nobody wants gradients."""
    if is_recorded() or not ordinary(x):  # first: torch.fx has stand-ins for tensors
        return False
    if x.device.type != "cpu" or x.dtype not in (torch.float32, *HALVES):
        return False
    return kernel_available() and not (torch.is_grad_enabled() and x.requires_grad)
