"""The Visual Attention Network as timm expects a model: the trunk is van.nn's, the manners are timm's.

Paper: Visual Attention Network, arXiv 2202.09741. Licence of this file: Apache-2.0.

Shape legend: N batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import SelectAdaptivePool2d
from timm.models import build_model_with_cfg, register_model, register_notrace_function, register_notrace_module
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from ... import checkpoints
from ...configs.backbone import VARIANTS, VanConfig
from ...errors import ConfigError, VanNotice
from ...nn import Backbone
from ...nn.backbone import Stage
from . import weights

# Stride of the last map -> strides of the four stages; as in HamNet, a stage stops shrinking and nothing is dilated.
OUTPUT_STRIDES = {32: (4, 2, 2, 2), 16: (4, 2, 2, 1), 8: (4, 2, 1, 1)}

register_notrace_module(Stage)  # a stage is one node for torch.fx: what is inside depends on shapes and devices


@register_notrace_function  # which passes over names that begin with an underscore
def checked(images: Tensor, in_chans: int) -> Tensor:
    """The images as they are; raises ConfigError unless they are (N, in_chans, H, W)."""
    if images.ndim != 4 or images.shape[1] != in_chans:
        raise ConfigError(f"images have shape {tuple(images.shape)}; this network expects (N, {in_chans}, H, W)")
    return images


class VisualAttentionNetwork(nn.Module):
    """Backbone, pooling of timm's choice, dropout, linear head: (N, in_chans, H, W) -> (N, K) logits.

    Its state keys are those of `van.nn.Classifier`; `load_state_dict` also takes every published format's keys.

    cfg: the variant; architecture: fields of VanConfig that differ from it (`embed_dims`, `layer_norm_eps`, …).
    num_classes: 0 for features. global_pool: of timm's SelectAdaptivePool2d ("avg", "max", "avgmax", "catavgmax",
    "fast…"), or "" for the map itself. drop_rate: before the head; proj_drop_rate: inside the feed-forward layers;
    drop_path_rate: of the last block, growing linearly over all blocks. output_stride: 32, 16 or 8.
    Raises ConfigError for impossible values, UnknownNameError for an option that does not exist.
    """

    def __init__(
        self,
        cfg: VanConfig = VARIANTS["van_b0"],
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        output_stride: int = 32,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **architecture: Any,
    ) -> None:
        super().__init__()
        if output_stride not in OUTPUT_STRIDES:
            raise ConfigError(f"output_stride is {output_stride}; expected one of {list(OUTPUT_STRIDES)}")
        self.epsilon_was_given = "layer_norm_eps" in architecture
        if output_stride != 32:
            architecture.setdefault("strides", OUTPUT_STRIDES[output_stride])
        config = cfg.with_options(
            **architecture,
            num_classes=num_classes,
            in_chans=in_chans,
            head_drop_rate=drop_rate,
            drop_rate=proj_drop_rate,
            drop_path_rate=drop_path_rate,
        )
        with nullcontext() if device is None else torch.device(device):
            self.backbone = Backbone(config)
            if dtype is not None:
                self.backbone.to(dtype)
            self.feature_info = [
                {"num_chs": width, "reduction": reduction, "module": f"backbone.stages.{i}"}
                for i, (width, reduction) in enumerate(zip(config.embed_dims, config.reductions, strict=True))
            ]
            self.in_chans = in_chans
            self.num_features = config.embed_dims[-1]
            self.head_drop = nn.Dropout(drop_rate)
            self.reset_classifier(num_classes, global_pool)
        self.register_load_state_dict_pre_hook(weights.translate_hook)

    @property
    def config(self) -> VanConfig:
        """The configuration, with the present number of classes."""
        return self.backbone.config.with_options(num_classes=self.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> the last stage's map after its LayerNorm, (N, C, H / 32, W / 32) rounded up."""
        x = checked(images, self.in_chans)
        for stage in self.backbone.stages:
            x = stage(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, C, H, W) -> (N, K) logits, or with `pre_logits` what the head would get."""
        x = self.head_drop(self.global_pool(x))
        if self.num_classes and not pre_logits and not self.global_pool.pool_type:
            raise ConfigError("the head needs pooled features; pass global_pool to reset_classifier")
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of the stages in `indices` (None: all; a number: the last so many), and the last map computed.

        norm: accepted and without effect, every stage of this network ends in its norm.
        stop_early: skip the stages after the last one asked for. intermediates_only: without the last map.
        Raises ConfigError for an `output_fmt` other than "NCHW".
        """
        if output_fmt != "NCHW":
            raise ConfigError(f"output_fmt is {output_fmt!r}; the maps of this network are 'NCHW'")
        taken, last = feature_take_indices(len(self.backbone.stages), indices)
        x = checked(x, self.in_chans)
        maps = []
        for i, stage in enumerate(self.backbone.stages[: last + 1 if stop_early else None]):
            x = stage(x)
            if i in taken:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last one in `indices`, and the head; returns the indices counted from the front.

        prune_norm: accepted and without effect, a stage's norm is part of its map.
        """
        taken, last = feature_take_indices(len(self.backbone.stages), indices)
        cut = last + 1 < len(self.backbone.stages)
        self.backbone.stages = self.backbone.stages[: last + 1]
        if cut:
            self.num_features = self.feature_info[last]["num_chs"]
        if cut or prune_head:
            self.reset_classifier(0, "")
        return taken

    def get_classifier(self) -> nn.Module:
        """The head: a linear layer, or an identity."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh head for `num_classes` (0: none) and, unless None, another pooling."""
        if num_classes < 0:
            raise ConfigError(f"num_classes is {num_classes}; use 0 for features, else the number of classes")
        if global_pool is not None:
            if num_classes and not global_pool:
                raise ConfigError(f"a head of {num_classes} classes needs pooling; give global_pool, or num_classes=0")
            self.global_pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=bool(global_pool))
        self.num_classes = num_classes
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.head: nn.Module = nn.Identity()
        if num_classes:
            like = next(self.backbone.parameters())
            self.head = nn.Linear(self.head_hidden_size, num_classes, device=like.device, dtype=like.dtype)
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)
        self.head.train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See Backbone.set_grad_checkpointing."""
        self.backbone.set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """Nothing by name: timm exempts vectors (norms, biases, layer scales) by their shape."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that order the parameters from the image to the head, for layer-wise decay.

        The first patch embedding is the stem; then every block is a layer (with `coarse`, every stage): a later
        stage's patch embedding goes with its first block, a stage's norm with its last.
        """
        stage = r"^backbone\.stages\.(\d+)"
        blocks = [(rf"{stage}\.patch_embed", (0,)), (rf"{stage}\.blocks\.(\d+)", None), (rf"{stage}\.norm", (99999,))]
        return {"stem": r"^backbone\.stages\.0\.patch_embed", "blocks": stage if coarse else blocks}

    def load_pretrained(self, checkpoint_path: str | Path, prefix: str = "") -> None:
        """Weights from a file or folder of any published format, its epsilon included; timm calls it for `custom_load`.

        As timm does, a first convolution for other channels is adapted and a head of another size left as it is.
        Raises CheckpointError when the file is not a checkpoint, or holds another variant.
        """
        weights.load_compatible_state_dict(self, checkpoints.read(checkpoint_path))


def register() -> None:
    """Add every variant to timm's registry; names that timm has already stay timm's."""
    for name in VARIANTS:
        if timm.is_model(name):
            if timm.model_entrypoint(name).__module__ != __name__:
                warnings.warn(f"timm has a {name} of its own, which is kept", VanNotice, stacklevel=2)
            continue
        register_model(_entrypoint(name))


def _entrypoint(name: str) -> Any:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        out_indices = kwargs.pop("out_indices", (0, 1, 2, 3))
        if kwargs.get("features_only"):
            kwargs["num_classes"] = 0  # there is no head to fill
        return build_model_with_cfg(
            VisualAttentionNetwork,
            name,
            pretrained,
            model_cfg=VARIANTS[name],
            pretrained_filter_fn=partial(weights.checkpoint_filter_fn, cache_dir=kwargs.get("cache_dir")),
            feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
            **kwargs,
        )

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"The Visual Attention Network {name}: (N, in_chans, H, W) -> (N, num_classes)."
    return create


default_cfgs = weights.default_cfgs()
