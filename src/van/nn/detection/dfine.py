"""D-FINE on the backbone's last three maps: transformers' hybrid encoder and decoder, around them what is ours.

Source: arXiv 2410.13842; the encoder and the selection of queries are RT-DETR's (arXiv 2304.08069). Initialisation as
in the official code; transformers' own draws all weights from a normal distribution of 0.01.

Keys of the state: `backbone.…` as in every model; `input_projections.{map}.{0: convolution, 1: norm}`; `encoder.…` and
`decoder.…` as transformers names them; `memory_projections.…` where the decoder is of another width than the encoder;
`memory.{0, 1}`, `proposal_classes`, `proposal_boxes` for the selection of queries; `noisy_labels` with denoising.

Shapes: N images, C channels, H, W sides of the images, Q queries, K classes, P places on the maps, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ...configs.dfine import LEVELS, DFineConfig
from ...errors import ConfigError, MissingExtraError
from ..backbone import Backbone
from ..object_model import Detections, ObjectModel, Size, Target, class_scores, detections
from .boxes import to_centers, to_corners
from .deformable import DeformableAttention, Sampling
from .dfine_init import reset, reset_classes, reset_decoder, reset_labels, zero
from .dfine_losses import Noisy, Offsets, Pairs, Predictions, Truth, dfine_losses

_ANCHOR = 0.05  # side of the boxes around the places of the finest map, relative to the image; doubles from map to map
_MARGIN = 1e-2  # places whose boxes are nearer to the border are no candidates


class DFine(ObjectModel):
    """The real-time detector: (N, C, H, W) -> logits (N, Q, K) and boxes (N, Q, 4), centre, width, height in 0 … 1.

    H and W are multiples of the backbone's stride. All norms train, unless the backbone's configuration freezes its.
    Raises MissingExtraError without transformers.
    """

    config: DFineConfig

    def __init__(self, config: DFineConfig) -> None:
        super().__init__()
        parts, settings = _transformers(), _settings(config)
        width, hidden, classes = config.encoder_channels, config.hidden_size, config.num_classes
        self.config = config
        self.backbone = Backbone(config.backbone.with_options(out_indices=(1, 2, 3)))
        self.input_projections = nn.ModuleList(_projection(c, width) for c in self.backbone.channels)
        self.encoder = parts.DFineHybridEncoder(settings)
        self.memory_projections = nn.ModuleList(
            nn.Identity() if width == hidden else _projection(width, hidden) for _ in range(LEVELS)
        )
        self.memory = nn.Sequential(nn.Linear(hidden, hidden), nn.LayerNorm(hidden))
        self.proposal_classes = nn.Linear(hidden, classes)
        self.proposal_boxes = parts.DFineMLPPredictionHead(hidden, hidden, 4, num_layers=3)
        self.noisy_labels = nn.Embedding(classes + 1, hidden, padding_idx=classes) if config.denoising_queries else None
        self.decoder = parts.DFineDecoder(settings)
        sides, layers = 4 * (config.bins + 1), range(config.decoder_layers)
        self.decoder.class_embed = nn.ModuleList(nn.Linear(hidden, classes) for _ in layers)
        self.decoder.bbox_embed = nn.ModuleList(parts.DFineMLP(hidden, hidden, sides, 3) for _ in layers)
        self.decoder.integral = Integral(config.bins)
        for layer in self.decoder.layers:
            layer.encoder_attn = DeformableAttention(hidden, config.heads, config.points)
        for name in ("up", "reg_scale"):  # settings, which nobody is to train
            value = self.decoder._parameters.pop(name)
            self.decoder.register_buffer(name, value.detach())
        self._reset_heads()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See `raw`."""
        return self.raw(images)

    def raw(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """(N, C, H, W) -> "logits" (N, Q, K), "boxes" (N, Q, 4): centre x, y, width, height, in 0 … 1 of the image.

        Raises ConfigError for sides that the maps do not divide, and for images too small for the queries.
        """
        maps = self._maps(images)
        chosen = self._choose(maps)
        outputs = self._decode(maps, chosen.content, chosen.boxes)
        return {
            "logits": outputs.intermediate_logits[:, -1].float(),
            "boxes": outputs.intermediate_reference_points[:, -1].float(),
        }

    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """See ObjectModel.losses. In training mode with noisy copies of the true boxes, from torch's generator."""
        truth = _truth(images, targets)
        maps = self._maps(images)
        chosen = self._choose(maps)
        noise = self._noise(truth, len(images)) if self.training else None
        content, boxes = chosen.content, chosen.boxes
        if noise is not None:
            content, boxes = torch.cat([noise.content, content], 1), torch.cat([noise.boxes, boxes], 1)
        with _all_layers(self.decoder):
            outputs = self._decode(maps, content, boxes, None if noise is None else noise.mask)
        start = 0 if noise is None else noise.content.shape[1]
        found = _predictions(outputs, slice(start, None), chosen)
        noisy = None
        if noise is not None:
            noisy = Noisy(predictions=_predictions(outputs, slice(start)), pairs=noise.pairs, groups=noise.groups)
        losses = dfine_losses(found, truth, self._offsets(), noisy)
        if noise is None and self.noisy_labels is not None:  # a gradient for every parameter, as other processes have
            losses["vfl"] = losses["vfl"] + self.noisy_labels.weight.sum() * 0
        return losses

    def set_sampling(self, sampling: Sampling) -> None:
        """How the decoder reads between pixels: see DeformableAttention. Raises ConfigError for another name."""
        if sampling not in get_args(Sampling):
            raise ConfigError(f"sampling is {sampling!r:.80}; expected {' or '.join(get_args(Sampling))}")
        for layer in self.decoder.layers:
            layer.encoder_attn.sampling = sampling

    def _maps(self, images: Tensor) -> list[Tensor]:
        """Three maps (N, D, h, w), the finest first."""
        self._require_size(images)
        maps = [project(x) for project, x in zip(self.input_projections, self.backbone(images), strict=True)]
        fused = self.encoder(maps).last_hidden_state
        return [project(x) for project, x in zip(self.memory_projections, fused, strict=True)]

    def _require_size(self, images: Tensor) -> None:
        self.backbone.require_images(images)
        height, width = images.shape[-2:]
        step = self.backbone.config.reductions[-1]
        if height % step or width % step:
            raise ConfigError(
                f"images of {height} x {width} pixels; D-FINE needs multiples of {step}: pad or resize them"
            )
        if (cells := self.config.cells(height, width)) < self.config.queries:
            raise ConfigError(
                f"images of {height} x {width} pixels give {cells} places, fewer than the {self.config.queries} "
                "queries; enlarge the images or lower `queries`"
            )

    def _choose(self, maps: Sequence[Tensor]) -> Chosen:
        """The places that look most like an object: where the decoder's queries begin."""
        anchors, valid = _anchors([x.shape[-2:] for x in maps], like=maps[0])
        memory = self.memory(_flat(maps) * valid)  # (N, P, D)
        logits = self.proposal_classes(memory)
        boxes = self.proposal_boxes(memory) + anchors
        best = logits.amax(-1).topk(self.config.queries, dim=1).indices
        content, logits, boxes = (_take(x, best) for x in (memory, logits, boxes))
        return Chosen(content=content.detach(), boxes=boxes.detach(), logits=logits, proposals=boxes.sigmoid())

    def _decode(self, maps: Sequence[Tensor], content: Tensor, boxes: Tensor, mask: Tensor | None = None) -> Any:
        """transformers' output. boxes: (N, Q, 4) before the sigmoid; mask: (Q, Q), added to self-attention."""
        return self.decoder(
            inputs_embeds=content,
            encoder_hidden_states=_flat(maps),
            encoder_attention_mask=mask,
            reference_points=boxes,
            spatial_shapes=None,
            spatial_shapes_list=[tuple(x.shape[-2:]) for x in maps],
        )

    def _noise(self, truth: Truth, images: int) -> _Noise | None:
        """Noisy copies of the true boxes, as further queries; None without denoising or without boxes."""
        if self.noisy_labels is None or not len(truth.labels):
            return None
        config = self.config
        each = [truth.images == i for i in range(images)]
        content, boxes, mask, about = _transformers().get_contrastive_denoising_training_group(
            [{"class_labels": truth.labels[here], "boxes": truth.boxes[here]} for here in each],
            config.num_classes,
            config.queries,
            self.noisy_labels,
            config.denoising_queries,
            config.label_noise,
            config.box_noise,
        )
        groups, queries = about["dn_num_group"], about["dn_positive_idx"]
        truths = torch.cat([here.nonzero()[:, 0].tile(groups) for here in each])
        pairs = Pairs(images=truth.images[truths], queries=torch.cat(list(queries)), truths=truths)
        return _Noise(content=content, boxes=boxes, mask=mask, pairs=pairs, groups=groups)

    def _offsets(self) -> Offsets:
        weighting = _transformers().weighting_function
        values = weighting(self.config.bins, self.decoder.up, self.decoder.reg_scale).detach().float()
        return Offsets(values=values, scale=self.config.regression_scale)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialisation of the whole network: see Backbone.reset_parameters; the rest as in the official code."""
        self.backbone.reset_parameters(generator)
        self._reset_heads(generator)

    def _reset_heads(self, generator: torch.Generator | None = None) -> None:
        for name, part in self.named_children():
            for module in part.modules() if name != "backbone" else ():
                reset(module, generator)
        for part in (self.memory, *self.input_projections, *self.memory_projections):
            if isinstance(part, nn.Sequential):  # its first layer, before a norm
                nn.init.xavier_uniform_(part[0].weight, generator=generator)  # type: ignore[arg-type]
        zero(self.proposal_boxes.layers[-1])
        self.decoder.up.fill_(self.config.regression_limit)
        self.decoder.reg_scale.fill_(self.config.regression_scale)
        reset_decoder(self.decoder, generator)
        self._reset_classes(generator)

    def _reset_classes(self, generator: torch.Generator | None) -> None:
        for linear in (self.proposal_classes, *self.decoder.class_embed):
            reset_classes(linear, generator)
        if self.noisy_labels is not None:
            reset_labels(self.noisy_labels, generator)

    def reset_classifier(self, num_classes: int, generator: torch.Generator | None = None) -> None:
        """Fresh class layers of proposals, decoder and noisy labels; the rest stays, names of the classes do not.

        Raises ConfigError for an impossible number.
        """
        self.config = self.config.with_options(num_classes=num_classes)
        self.classes = self.palette = None
        like = self.proposal_classes.weight
        place: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        hidden = self.config.hidden_size
        self.proposal_classes = nn.Linear(hidden, num_classes, **place)
        layers = range(self.config.decoder_layers)
        self.decoder.class_embed = nn.ModuleList(nn.Linear(hidden, num_classes, **place) for _ in layers)
        if self.noisy_labels is not None:
            self.noisy_labels = nn.Embedding(num_classes + 1, hidden, padding_idx=num_classes, **place)
        self._reset_classes(generator)

    def reorder_classes(self, order: Sequence[int]) -> None:
        """Row `order[i]` of every class layer becomes row i: the same detections, with the classes in another order."""
        rows = list(order)
        with torch.no_grad():
            for linear in (self.proposal_classes, *self.decoder.class_embed):
                linear.weight.copy_(linear.weight[rows])
                linear.bias.copy_(linear.bias[rows])
            if self.noisy_labels is not None:
                self.noisy_labels.weight[:-1].copy_(self.noisy_labels.weight[:-1][rows])


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """The queries of the images. content: (N, Q, D); boxes: (N, Q, 4) before the sigmoid; both without gradient.

    logits: (N, Q, K), proposals: (N, Q, 4), for the encoder's own losses.
    """

    content: Tensor
    boxes: Tensor
    logits: Tensor
    proposals: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class _Noise:
    """Noisy queries. content: (N, Q, D); boxes: (N, Q, 4) before the sigmoid; mask: for these and the others."""

    content: Tensor
    boxes: Tensor
    mask: Tensor
    pairs: Pairs
    groups: int


class Integral(nn.Module):
    """The mean of a distribution over the bins' offsets, in float32 also under autocast: pixels need its digits."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, corners: Tensor, values: Tensor) -> Tensor:  # (N, Q, 4 (B + 1)), (B + 1,) -> (N, Q, 4)
        with torch.autocast(corners.device.type, enabled=False):
            chances = corners.float().unflatten(-1, (4, self.bins + 1)).softmax(-1)
            return chances @ values.float()


@detections.register(DFineConfig)
def _detections(config: DFineConfig, raw: Mapping[str, Tensor], sizes: Sequence[Size]) -> list[Detections]:
    """The published decoding: the surest of all queries and classes. Ours: boxes end at the border of the image."""
    result = []
    for logits, boxes, (height, width) in zip(raw["logits"], raw["boxes"], sizes, strict=True):
        scores = logits.float().sigmoid().flatten()  # (Q K,)
        scores, best = scores.topk(min(config.detections_per_image, len(scores)))
        best = best[scores >= config.score_threshold]
        sides = boxes.new_tensor([width, height, width, height])
        found = to_corners(boxes.float())[best // logits.shape[-1]].clamp(0, 1) * sides
        result.append(Detections(boxes=found, labels=best % logits.shape[-1], scores=scores[: len(best)]))
    return result


def _predictions(outputs: Any, queries: slice, chosen: Chosen | None = None) -> Predictions:
    """What the losses take of the decoder's outputs for some of its queries, and of the encoder's proposals."""
    logits = outputs.intermediate_logits.float().transpose(0, 1)[:, :, queries]  # (L + 1, N, Q, K)
    boxes = outputs.intermediate_reference_points.float().transpose(0, 1)[:, :, queries]
    logits, boxes = logits.roll(-1, 0), boxes.roll(-1, 0)  # the first layer's own box comes after the layers
    if chosen is not None:
        logits = torch.cat([logits, chosen.logits.float()[None]])
        boxes = torch.cat([boxes, chosen.proposals.float()[None]])
    corners = outputs.intermediate_predicted_corners.float().transpose(0, 1)[:, :, queries]
    return Predictions(
        logits=logits,
        boxes=boxes,
        corners=corners.unflatten(-1, (4, -1)),
        references=outputs.initial_reference_points[:, 0, queries].detach().float(),
    )


def _truth(images: Tensor, targets: Sequence[Target]) -> Truth:
    height, width = images.shape[-2:]
    sides = images.new_tensor([width, height, width, height], dtype=torch.float32)
    boxes = torch.cat([target["boxes"] for target in targets]).to(images.device, torch.float32)
    labels = torch.cat([target["labels"] for target in targets]).to(images.device)
    counts = torch.tensor([len(target["labels"]) for target in targets], device=images.device)
    numbers = torch.arange(len(targets), device=images.device).repeat_interleave(counts)
    return Truth(boxes=to_centers(boxes / sides), labels=labels, images=numbers)


@contextmanager
def _all_layers(decoder: nn.Module) -> Iterator[None]:
    """While this is open, the decoder gives what all its layers find, which it otherwise does in training alone."""
    before, decoder.training = decoder.training, True
    try:
        yield
    finally:
        decoder.training = before


def _anchors(shapes: Sequence[Sequence[int]], like: Tensor) -> tuple[Tensor, Tensor]:
    """(boxes before the sigmoid (1, P, 4), whether each is a candidate (1, P, 1), as 0 or 1), float32."""
    anchors = []
    for level, (height, width) in enumerate(shapes):
        y = (torch.arange(height, device=like.device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=like.device, dtype=torch.float32) + 0.5) / width
        y, x = y[:, None].expand(height, width), x.expand(height, width)
        side = torch.full_like(x, _ANCHOR * 2**level)
        anchors.append(torch.stack([x, y, side, side], -1).flatten(0, 1))
    boxes = torch.cat(anchors)[None]
    valid = ((boxes > _MARGIN) & (boxes < 1 - _MARGIN)).all(-1, keepdim=True)
    far = torch.finfo(torch.float32).max
    return torch.where(valid, boxes.logit(), far), valid.to(like.dtype)


def _flat(maps: Sequence[Tensor]) -> Tensor:
    """Maps (N, D, h, w) -> (N, P, D)."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)


def _take(x: Tensor, indices: Tensor) -> Tensor:
    """(N, P, D) at (N, Q) -> (N, Q, D)."""
    return x.gather(1, indices[..., None].expand(-1, -1, x.shape[-1]))


def _projection(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels))


def _settings(config: DFineConfig) -> Any:
    """transformers' configuration of encoder and decoder; it knows no VAN, and its losses are not used."""
    try:
        from transformers import DFineConfig as Settings
    except ImportError as error:
        raise MissingExtraError.of("transformers", "detection", "for D-FINE") from error
    return Settings(
        num_labels=config.num_classes,
        encoder_in_channels=list(config.backbone.embed_dims[-LEVELS:]),
        encoder_hidden_dim=config.encoder_channels,
        encoder_ffn_dim=config.encoder_feed_forward,
        encoder_layers=config.encoder_layers,
        encoder_attention_heads=config.heads,
        encode_proj_layers=[LEVELS - 1],
        depth_mult=config.depth_multiplier,
        hidden_expansion=config.expansion,
        d_model=config.hidden_size,
        decoder_in_channels=[config.encoder_channels] * LEVELS,
        decoder_ffn_dim=config.feed_forward,
        decoder_layers=config.decoder_layers,
        decoder_attention_heads=config.heads,
        decoder_n_points=list(config.points),
        num_queries=config.queries,
        max_num_bins=config.bins,
        reg_scale=config.regression_scale,
        up=config.regression_limit,
        lqe_hidden_dim=config.quality_hidden,
        num_denoising=config.denoising_queries,
        label_noise_ratio=config.label_noise,
        box_noise_scale=config.box_noise,
    )


def _transformers() -> Any:
    try:
        from transformers.models.d_fine import modeling_d_fine
    except ImportError as error:
        raise MissingExtraError.of("transformers", "detection", "for D-FINE") from error
    return modeling_d_fine


@class_scores.register
def _(config: DFineConfig, raw: Mapping[str, Tensor]) -> Tensor:
    """The largest logit of all queries."""
    return raw["logits"][0].amax(0)
