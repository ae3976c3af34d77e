"""The Visual Attention Network: four stages of patch embedding, blocks of large kernel attention, LayerNorm.

Every forward is the paper's figure. Where a kernel computes the same faster, fused.py calls it instead.

Paper: Visual Attention Network, arXiv 2202.09741, figures 2 and 3. Licence of this file: Apache-2.0.

Shape legend: N batch, C channels of the stage, H height, W width of the stage's map, E expanded channels.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..configs.backbone import VanConfig
from ..errors import ConfigError
from .layers import LayerNorm2d, depthwise_conv, drop_path, per_channel, pointwise_conv


class PatchEmbed(nn.Module):
    """Overlapping strided convolution and BatchNorm: (N, C_in, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)).

    That size is for odd patches, as in every published network; even ones give floor(H / stride) + 1.
    """

    def __init__(self, in_channels: int, channels: int, patch_size: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, patch_size, stride, padding=patch_size // 2)
        self.norm: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class LargeKernelAttention(nn.Module):
    """A large kernel decomposed into near, far and 1x1 convolutions, whose output gates the input."""

    def __init__(self, channels: int, config: VanConfig) -> None:
        super().__init__()
        kind = config.attention
        near, far = (config.near_kernel, 1), (config.far_kernel, config.dilation)  # kernel side, dilation
        self.near = nn.Identity() if kind == "no_dw" else depthwise_conv(channels, *near)
        self.far = nn.Identity() if kind == "no_dw_d" else depthwise_conv(channels, *far)
        self.mix = nn.Identity() if kind == "no_1x1" else pointwise_conv(channels, channels)
        self.gate = kind if kind in ("add", "sigmoid", "none") else "multiply"

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        near = self.near(x)  # as published: 5x5
        far = self.far(near)  # 7x7 with dilation 3
        return self.gated(x, self.mix(far))

    def gated(self, x: Tensor, attention: Tensor) -> Tensor:
        """x gated by the attention; as published their product: two of (N, C, H, W) -> (N, C, H, W)."""
        if self.gate == "multiply":
            return x * attention
        if self.gate == "sigmoid":
            return x * torch.sigmoid(attention)
        return x + attention if self.gate == "add" else attention


class Attention(nn.Module):
    """1x1, GELU, large kernel attention, 1x1, around an inner shortcut."""

    def __init__(self, channels: int, config: VanConfig) -> None:
        super().__init__()
        self.proj_in = pointwise_conv(channels, channels)
        self.spatial = LargeKernelAttention(channels, config)
        self.proj_out = pointwise_conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        return x + self.proj_out(self.spatial(F.gelu(self.proj_in(x))))


class FeedForward(nn.Module):
    """1x1 expansion, depthwise 3x3, GELU, 1x1 projection."""

    def __init__(self, channels: int, hidden: int, drop_rate: float) -> None:
        super().__init__()
        self.expand = pointwise_conv(channels, hidden)
        self.depthwise = depthwise_conv(hidden, 3)
        self.project = pointwise_conv(hidden, channels)
        self.dropout = nn.Dropout(drop_rate)
        self.memory_efficient = False

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        x = self.expand(x)  # (N, E, H, W)
        x = self.dropout(F.gelu(self.depthwise(x)))
        return self.dropout(self.project(x))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(_with_present_names(state))


class Block(nn.Module):
    """Attention, then feed-forward, each on the normalised input, scaled per channel, around a shortcut.

    A subclass that computes the same in inference says so with `computes_like = Block`, and is folded like one.
    """

    def __init__(self, channels: int, hidden: int, drop_path_rate: float, config: VanConfig) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.attention = Attention(channels, config)
        self.norm2 = nn.BatchNorm2d(channels)
        self.feed_forward = FeedForward(channels, hidden, config.drop_rate)
        self.scale1 = nn.Parameter(torch.empty(channels))
        self.scale2 = nn.Parameter(torch.empty(channels))
        self.drop_path = drop_path(drop_path_rate)
        self.memory_efficient = False

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        x = x + self.drop_path(per_channel(self.scale1) * self.attention(self.norm1(x)))
        return x + self.drop_path(per_channel(self.scale2) * self.feed_forward(self.norm2(x)))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(_with_present_names(state))


def _with_present_names(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a pickled module, whose `memory_efficient` was called `lean` in earlier versions."""
    if "memory_efficient" in state:
        return state
    state = dict(state)
    return state | {"memory_efficient": state.pop("lean", False)}


class Stage(nn.Module):
    """Patch embedding, blocks, LayerNorm: (N, C_in, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, index: int, config: VanConfig) -> None:
        super().__init__()
        channels = config.embed_dims[index]
        in_channels = config.embed_dims[index - 1] if index else config.in_chans
        self.patch_embed = PatchEmbed(in_channels, channels, config.patch_sizes[index], config.strides[index])
        rates = config.drop_path_rates[index]
        self.blocks = nn.ModuleList(Block(channels, config.hidden_dim(index), rate, config) for rate in rates)
        self.norm = LayerNorm2d(channels, eps=config.layer_norm_eps)
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Backbone(nn.Module):
    """The pyramid of a Visual Attention Network.

    Source: arXiv 2202.09741; initialisation and epsilons as in the official classification code.
    """

    def __init__(self, config: VanConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(Stage(i, config) for i in range(config.num_stages))
        self.frozen_stages = -1
        self.reset_parameters()
        if config.frozen_stages >= 0:
            self.freeze(config.frozen_stages)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the maps that `forward` returns."""
        return tuple(self.config.embed_dims[i] for i in self.config.out_indices)

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the maps that `forward` returns, with respect to the image."""
        return tuple(self.config.reductions[i] for i in self.config.out_indices)

    def forward(self, images: Tensor, last: bool = False) -> tuple[Tensor, ...] | Tensor:
        """(N, in_chans, H, W) -> one (N, C_i, ceil(H / s_i), ceil(W / s_i)) per out index, each after its stage norm.

        Stages after the last out index are not run. last: run all, and return the last stage's map alone.
        Raises ConfigError when the images do not have `in_chans` channels.
        """
        self.require_images(images)
        return self.pyramid(images, last)

    def pyramid(self, x: Tensor, last: bool = False) -> tuple[Tensor, ...] | Tensor:
        """`forward` of images whose shape is known to be right."""
        if last is True:  # "is", because torch.fx has a stand-in here, which is neither
            return self.stage_maps(x, len(self.stages))[-1]
        wanted = self.config.out_indices
        maps = self.stage_maps(x, max(wanted) + 1)
        return tuple(maps[i] for i in range(len(maps)) if i in wanted)

    def stage_maps(self, x: Tensor, stages: int) -> list[Tensor]:
        """The maps of the first stages, (N, in_chans, H, W) -> (N, C_i, H_i, W_i) each."""
        maps = []
        for _, stage in zip(range(stages), self.stages, strict=False):
            x = stage(x)
            maps.append(x)
        return maps

    def last(self, images: Tensor) -> Tensor:
        """The last stage's map alone: (N, in_chans, H, W) -> (N, C, H / 32, W / 32) rounded up."""
        return cast(Tensor, self(images, last=True))  # a call, for whoever hooks or wraps this module

    def require_images(self, images: Tensor) -> None:
        """Raise ConfigError unless the images are (N, in_chans, H, W)."""
        channels, shape = self.config.in_chans, tuple(images.shape)
        if len(shape) == 4 and shape[1] == channels:
            return
        remedy = f"convert the images, or build the network with in_chans={shape[1] if len(shape) == 4 else '…'}"
        if len(shape) == 3:
            remedy = "images[None] makes a batch of one image"
        raise ConfigError(f"images have shape {shape}; this network expects (N, {channels}, H, W): {remedy}")

    def freeze(self, last_stage: int | None = None) -> None:
        """Stop training stages 0 … last_stage (None: all): no gradients, norms in eval mode, also after `train()`.

        Raises ConfigError for a stage that does not exist.
        """
        last_stage = self.config.num_stages - 1 if last_stage is None else last_stage
        if not 0 <= last_stage < self.config.num_stages:
            raise ConfigError(f"cannot freeze up to stage {last_stage}; expected 0 to {self.config.num_stages - 1}")
        self.frozen_stages = max(self.frozen_stages, last_stage)
        self.stages[: last_stage + 1].requires_grad_(False)
        self.train(self.training)

    def unfreeze(self) -> None:
        """Undo `freeze`."""
        self.frozen_stages = -1
        self.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """Training mode, except for frozen stages and, with `norm_eval`, every BatchNorm."""
        super().train(mode)
        self.stages[: self.frozen_stages + 1].eval()
        if mode and self.config.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only block inputs in training and recompute the rest in the backward pass."""
        for module in self.modules():
            if isinstance(module, Stage):
                module.grad_checkpointing = enable

    def set_memory_efficient(self, enable: bool = True) -> None:
        """Keep less for the backward pass of a mixed-precision training; values differ by rounding alone.

        Under bfloat16 autocast the residual stream is bfloat16, and where the GPU kernels run, GELU's result in the
        feed-forward, the largest map, is computed again instead of kept. Evaluation does not change.
        """
        for module in self.modules():
            if isinstance(module, Block | FeedForward):
                module.memory_efficient = enable

    def set_lean(self, enable: bool = True) -> None:
        """The earlier name of `set_memory_efficient`."""
        self.set_memory_efficient(enable)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Published initialisation: convolutions N(0, 2 / fan_out), biases 0, norms 1 and 0, layer scales 0.01."""
        if any(parameter.is_meta for parameter in self.parameters()):
            return  # there is nothing to draw, and drawing it would import PyTorch's compiler
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out), generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm):
                module.reset_parameters()
            elif isinstance(module, Block):
                nn.init.constant_(module.scale1, self.config.layer_scale_init)
                nn.init.constant_(module.scale2, self.config.layer_scale_init)
