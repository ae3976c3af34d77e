"""Mask2Former: transformers' pixel decoder and masked-attention decoder on the pyramid, for things and stuff.

Paper: arXiv 2112.01527, figure 2. The decoders are transformers' modules; losses and decoding are in mask_losses.py
and mask_decoding.py.

Keys of the state dict, which files hold: `backbone.…` as in every model; `pixel_decoder.…`, `transformer.…` and
`class_predictor.…`, below which the names are those of transformers' Mask2FormerForUniversalSegmentation below
`model.pixel_level_module.decoder.`, `model.transformer_module.` and `class_predictor.`.

Shape legend: N images, H, W their sides, Q queries, K classes, h, w sides of the finest map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...configs.mask2former import Mask2FormerFields
from ...errors import ConfigError, MissingExtraError
from ..backbone import Backbone
from ..object_model import ObjectModel, Target
from . import mask_decoding as mask_decoding  # registers how outputs are decoded
from .mask_losses import MaskCriterion, Output


class Mask2Former(ObjectModel):
    """A Visual Attention Network that predicts masks and their classes, one of each per query.

    Raises MissingExtraError without transformers.
    """

    config: Mask2FormerFields

    def __init__(self, config: Mask2FormerFields) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone.with_options(out_indices=()))
        self.pixel_decoder, self.transformer = _decoders(config)
        self.class_predictor = nn.Linear(config.hidden_size, config.num_classes + 1)
        self.criterion = MaskCriterion(config)
        self._reset_decoders()

    def forward(self, images: Tensor, targets: Sequence[Target] | None = None) -> dict[str, Tensor]:
        """`losses` of images with targets, `raw` of images alone."""
        return self.raw(images) if targets is None else self.losses(images, targets)

    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """See ObjectModel.losses and MaskCriterion; masks are needed, of things and of stuff alike."""
        return self.criterion(self.outputs(images), targets)

    def raw(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """(N, C, H, W) -> "class_logits" (N, Q, K + 1), the last of them for no object; "mask_logits" (N, Q, h, w)."""
        classes, masks = self.outputs(images)[-1]
        return {"class_logits": classes.float(), "mask_logits": masks.float()}

    def outputs(self, images: Tensor) -> list[Output]:
        """Class and mask logits of the queries as learned, and after every layer of the decoder."""
        maps = self.backbone(images)
        with torch.autocast(images.device.type, enabled=False):  # as published: sampling loses too much in 16 bits
            maps = [x.to(self.class_predictor.weight.dtype) for x in maps]
            pixels = self.pixel_decoder(maps, output_hidden_states=False, output_attentions=False)
        queries = self.transformer(
            pixels.multi_scale_features, pixels.mask_features, output_hidden_states=False, output_attentions=False
        )
        return [
            (self.class_predictor(states.transpose(0, 1)), masks)
            for states, masks in zip(queries.intermediate_hidden_states, queries.masks_queries_logits, strict=True)
        ]

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Published initialisation of the whole network."""
        self.backbone.reset_parameters(generator)
        self._reset_decoders(generator)

    def _reset_decoders(self, generator: torch.Generator | None = None) -> None:
        for module in (*self.pixel_decoder.modules(), *self.transformer.modules()):
            _reset(module, generator)
        _reset_attentions(self.pixel_decoder, self.transformer, generator)
        _reset(self.class_predictor, generator)

    def reset_classifier(self, num_classes: int, generator: torch.Generator | None = None) -> None:
        """A fresh layer for `num_classes`; the rest stays, and so does how many of the classes are things, if they can.

        Raises ConfigError for an impossible number.
        """
        options: dict[str, Any] = {"num_classes": num_classes}
        if hasattr(self.config, "num_things"):
            options["num_things"] = min(self.config.num_things, num_classes)
        self.config = self.config.with_options(**options)
        self.criterion = MaskCriterion(self.config)
        self.classes = self.palette = None
        old = self.class_predictor.weight
        self.class_predictor = nn.Linear(self.config.hidden_size, num_classes + 1, device=old.device, dtype=old.dtype)
        _reset(self.class_predictor, generator)

    def reorder_classes(self, order: Sequence[int]) -> None:
        """Row `order[i]` becomes row i, that of no object stays the last.

        Raises ConfigError where a panoptic model's things would no longer come before its stuff.
        """
        things = getattr(self.config, "num_things", len(order))
        if any((old < things) != (new < things) for new, old in enumerate(order)):
            raise ConfigError(f"the order would mix things and stuff; the first {things} classes must stay the things")
        rows = [*order, self.config.num_classes]
        with torch.no_grad():
            for parameter in self.class_predictor.parameters():
                parameter.copy_(parameter[rows])


def _decoders(config: Mask2FormerFields) -> tuple[nn.Module, nn.Module]:
    """transformers' pixel decoder and transformer decoder of a configuration."""
    try:
        from transformers import Mask2FormerConfig as TheirConfig
        from transformers.models.mask2former import modeling_mask2former as theirs
    except ImportError as error:
        raise MissingExtraError.of("transformers", "detection", "for Mask2Former") from error
    # The finest map is joined by a convolution, unless the second is as fine: then masks are read from the second.
    finer = config.backbone.strides[1] > 1
    sizes = TheirConfig(
        feature_size=config.hidden_size,
        hidden_dim=config.hidden_size,
        mask_feature_size=config.mask_size,
        num_attention_heads=config.heads,
        encoder_layers=config.encoder_layers,
        encoder_feedforward_dim=config.encoder_feed_forward,
        decoder_layers=config.decoder_layers + 1,  # theirs counts the prediction before the first layer
        dim_feedforward=config.feed_forward,
        num_queries=config.queries,
        common_stride=4,
        feature_strides=[4, 8, 16, 32] if finer else [4, 4, 8, 16],
        dropout=0.0,
    )
    pixel_decoder = theirs.Mask2FormerPixelDecoder(sizes, list(config.backbone.embed_dims))
    return pixel_decoder, theirs.Mask2FormerTransformerModule(config.hidden_size, sizes)


def _reset(module: nn.Module, generator: torch.Generator | None) -> None:
    """Convolutions uniform (Kaiming with slope 1), linear layers torch's, embeddings N(0, 1), norms 1 and 0.

    Source: Mask2Former's code, which leaves torch's and detectron2's defaults in these places.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_uniform_(module.weight, a=1, generator=generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
        bound = module.in_features**-0.5
        nn.init.uniform_(module.bias, -bound, bound, generator=generator)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, generator=generator)
    elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
        module.reset_parameters()


def _reset_attentions(pixel_decoder: Any, transformer: Any, generator: torch.Generator | None) -> None:
    """Matrices of the layers and of the projections before them uniform (Xavier), levels N(0, 1).

    Each head samples along a direction of its own at first, one step further with each point (arXiv 2010.04159, A.4).
    """
    nn.init.normal_(pixel_decoder.level_embed, generator=generator)
    for projection in pixel_decoder.input_projections:
        nn.init.xavier_uniform_(projection[0].weight, generator=generator)
    for layer in (*pixel_decoder.encoder.layers, *transformer.decoder.layers):
        for name, parameter in layer.named_parameters():
            # queries, keys and values of self-attention are one matrix as published: 3 times as high
            one = name.startswith(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"))
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter, math.sqrt(0.5) if one else 1.0, generator=generator)
            elif name.startswith(("self_attn.", "cross_attn.")) and name.endswith("bias"):
                nn.init.zeros_(parameter)
    for layer in pixel_decoder.encoder.layers:
        _reset_sampling(layer.self_attn)


def _reset_sampling(attention: Any) -> None:
    heads, levels, points = attention.n_heads, attention.n_levels, attention.n_points
    nn.init.zeros_(attention.sampling_offsets.weight)
    nn.init.zeros_(attention.attention_weights.weight)
    angles = torch.arange(heads, device=attention.sampling_offsets.bias.device) * (2 * math.pi / heads)
    directions = torch.stack([angles.cos(), angles.sin()], -1)
    directions = directions / directions.abs().amax(-1, keepdim=True)  # (heads, 2), on the unit square
    steps = torch.arange(1, points + 1, device=directions.device)
    offsets = directions[:, None, None] * steps[:, None]  # (heads, 1, points, 2)
    with torch.no_grad():
        attention.sampling_offsets.bias.copy_(offsets.expand(heads, levels, points, 2).reshape(-1))
