"""VAN as transformers expects models: van.nn's network, with transformers' signatures, outputs and file names.

Shape legend: N batch, C channels, H height, W width, K labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BackboneOutput,
    BaseModelOutputWithPoolingAndNoAttention,
    ImageClassifierOutputWithNoAttention,
)
from transformers.utils.generic import can_return_tuple

from ...nn import Backbone
from ...nn.backbone import Block
from ...nn.checkpointing import statistics_held
from ...nn.layers import drop_path
from .configuration import VanConfig
from .conversion import translate_hook


class VanBlock(Block, GradientCheckpointingLayer):
    """A block that transformers recomputes in the backward pass where `activation_checkpointing_enable` asks for it."""

    computes_like = Block

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        recomputed = not torch.compiler.is_compiling() and torch._C._current_graph_task_id() >= 0  # in a backward pass
        with statistics_held(self) if recomputed else nullcontext():
            return super().forward(x)


class VanPreTrainedModel(PreTrainedModel):
    """What the three models share: how weights start, are named in files, and are traded for time in training."""

    config: VanConfig
    config_class = VanConfig
    base_model_prefix = "van"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["VanBlock"]  # noqa: RUF012  transformers reads it so

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """The published initialisation, for whatever a file did not bring."""
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            init.normal_(module.weight, 0.0, (2.0 / fan_out) ** 0.5)
            init.zeros_(module.bias)
        elif isinstance(module, Block):
            init.constant_(module.scale1, self.config.layer_scale_init_value)
            init.constant_(module.scale2, self.config.layer_scale_init_value)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm | UnusedNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)

    def _build(self) -> Backbone:
        backbone = Backbone(self.config.to_van())
        rates = [rate for stage in backbone.config.drop_path_rates for rate in stage]
        for stage, rate in zip(backbone.stages, rates, strict=False):
            for block in stage.modules():
                if isinstance(block, Block):
                    block.__class__ = VanBlock
                    if self.config.legacy:
                        block.drop_path = drop_path(rate)
        return backbone

    def _features(self, pixel_values: Tensor | None) -> tuple[Tensor, ...]:
        if pixel_values is None:
            raise ValueError("pixel_values is missing; give a batch of images (N, C, H, W)")
        return self.backbone(pixel_values)


class UnusedNorm(nn.Module):
    """Two vectors (C,) that are in every published file and in no computation, kept so that files stay complete.

    Buffers, where the original has parameters: nobody waits for their gradients.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))


class VanModel(VanPreTrainedModel):
    """Feature network: last map (N, C, H / 32, W / 32), its mean over positions (N, C), and the maps of all stages."""

    def __init__(self, config: VanConfig) -> None:
        super().__init__(config)
        self.backbone = self._build()
        self.layernorm = UnusedNorm(config.hidden_sizes[-1])
        self.register_load_state_dict_pre_hook(translate_hook)
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values: Tensor | None = None, output_hidden_states: bool | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPoolingAndNoAttention:
        """(N, C, H, W) -> last_hidden_state, pooler_output and, on request, the four stages' maps as hidden_states."""
        maps = self._features(pixel_values)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=maps[-1],
            pooler_output=maps[-1].mean((2, 3)),
            hidden_states=maps if output_hidden_states else None,
        )


class VanForImageClassification(VanPreTrainedModel):
    """Feature network and linear classifier: logits (N, K), with `labels` also the loss of the problem type."""

    accepts_loss_kwargs = False

    def __init__(self, config: VanConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.van = VanModel(config)
        width = config.hidden_sizes[-1]
        self.classifier: nn.Module = nn.Linear(width, config.num_labels) if config.num_labels else nn.Identity()
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> ImageClassifierOutputWithNoAttention:
        """(N, C, H, W) -> logits (N, K); labels: (N,) classes or numbers, or (N, K) for several labels at once."""
        features = self.van(pixel_values, output_hidden_states=output_hidden_states, return_dict=True)
        logits = self.classifier(features.pooler_output)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits, hidden_states=features.hidden_states)


class VanBackbone(BackboneMixin, VanPreTrainedModel):
    """The pyramid for detectors and segmenters: the maps named in `config.out_features`."""

    has_attentions = False
    _keys_to_ignore_on_load_unexpected = [r"layernorm\.", r"classifier\."]  # noqa: RUF012  transformers reads it so

    def __init__(self, config: VanConfig) -> None:
        super().__init__(config)
        self.backbone = self._build()
        self.num_features = [config.hidden_sizes[0], *config.hidden_sizes]
        self.register_load_state_dict_pre_hook(translate_hook)
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values: Tensor | None = None, output_hidden_states: bool | None = None, **kwargs: Any
    ) -> BackboneOutput:
        """(N, C, H, W) -> feature_maps, and as hidden_states on request the stem's map and those of all stages."""
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        stem: list[Tensor] = []
        with self._stem_kept(stem) if output_hidden_states or "stem" in self.out_features else nullcontext():
            maps = self._features(pixel_values)
        hidden_states = (*(stem or [maps[0]]), *maps)
        by_name = dict(zip(self.stage_names, hidden_states, strict=True))
        return BackboneOutput(
            feature_maps=tuple(by_name[name] for name in self.out_features),
            hidden_states=hidden_states if output_hidden_states else None,
        )

    @contextmanager
    def _stem_kept(self, kept: list[Tensor]) -> Iterator[None]:
        """Put the first patch embedding's map into `kept`; running it twice would count its statistics twice."""
        stem = self.backbone.stages[0].get_submodule("patch_embed")
        handle = stem.register_forward_hook(lambda *args: kept.append(args[-1]))
        try:
            yield
        finally:
            handle.remove()
