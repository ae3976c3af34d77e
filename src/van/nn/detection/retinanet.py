"""RetinaNet, ATSS and GFL: convolutions on a pyramid, an answer for every anchor of every place.

Shapes: N images, H, W sides of the padded batch, h, w those of a map, a anchors per place, K classes, A anchors in all.

Source: arXiv 1708.02002 (RetinaNet), 1912.02424 (ATSS), 2006.04388 (GFL); the losses are normalised as OpenMMLab's
configurations of them, over all images of all processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...configs.retinanet import RetinaNetConfig
from ..backbone import Backbone
from ..object_model import Detections, Size, Target, class_scores, detections
from .anchors import ASPECT_RATIOS, LEVELS, OCTAVE, anchor_generator, anchors_of, centers_of
from .assignment import by_overlap, by_statistics
from .normalizer import mean_over_processes
from .one_stage_losses import (
    centerness,
    distribution_focal_loss,
    expected_distance,
    paired_iou,
    quality_focal_loss,
)
from .pyramid import FeaturePyramid
from .torchvision_call import TorchvisionDetector, conv_like, draw_normal, reordered, require_one_target_each

STAGES = (1, 2, 3)  # whose maps the pyramid takes
PRIOR = 0.01  # probability that the classifier starts with
REG_MAX = 16  # GFL's distances go up to so many strides
CANDIDATES = 1000  # per level, before non-maximum suppression
BOX_LOSS, DISTRIBUTION_LOSS = 2.0, 0.25  # weights of ATSS and GFL
_ATSS_CODER = (10.0, 10.0, 5.0, 5.0)

Maps = dict[str, list[Tensor]]


class RetinaNet(TorchvisionDetector):
    """A one-stage detector; `config.assignment` and `config.loss` say which."""

    config: RetinaNetConfig

    def __init__(self, config: RetinaNetConfig) -> None:
        super().__init__(config)
        from torchvision.models.detection.retinanet import RetinaNetHead

        dense = config.assignment == "atss"
        self.backbone = Backbone(config.backbone.with_options(out_indices=STAGES))
        extra = "pyramid" if dense else "backbone"
        self.pyramid = FeaturePyramid(self.backbone.channels, config.channels, extra)
        self.anchor_generator = generator_of(config)
        self.places = self.anchor_generator.num_anchors_per_location()[0]
        norm = partial(nn.GroupNorm, _groups(config.channels)) if dense else None
        self.head: Any = RetinaNetHead(config.channels, self.places, config.num_classes, norm_layer=norm)
        if dense:
            self.head.scales = nn.Parameter(torch.ones(LEVELS))
        if config.method == "atss":
            self.head.centerness = conv_like(self.head.regression_head.bbox_reg, 1)
        if config.loss == "gfl":
            boxes = self.head.regression_head
            boxes.bbox_reg = conv_like(boxes.bbox_reg, 4 * (REG_MAX + 1))
        for tower in (self.head.classification_head, self.head.regression_head):
            tower.conv = tower.conv[: config.head_convs]
        self._reset_heads()

    def maps(self, images: Tensor) -> Maps:
        """(N, C, H, W) -> per level "logits" (N, a·K, h, w), "deltas" (N, a·4, h, w), for ATSS "centerness"."""
        classes, boxes = self.head.classification_head, self.head.regression_head
        out: Maps = {"logits": [], "deltas": [], "centerness": []}
        for level, x in enumerate(self.pyramid(self.backbone(images))):
            out["logits"].append(classes.cls_logits(classes.conv(x)))
            x = boxes.conv(x)
            deltas = boxes.bbox_reg(x)
            out["deltas"].append(deltas * self.head.scales[level] if hasattr(self.head, "scales") else deltas)
            if hasattr(self.head, "centerness"):
                out["centerness"].append(self.head.centerness(x))
        return {name: maps for name, maps in out.items() if maps}

    def raw(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Convolutions alone: "logits_p3" … "logits_p7" (N, a·K, h, w), "deltas_p3" … (N, a·4, h, w), …

        The sides of the maps are the images' over 8, 16, … 128, which `detections` reads the anchors' places from.
        """
        return {
            f"{name}_p{level + 3}": x.float()
            for name, maps in self.maps(images).items()
            for level, x in enumerate(maps)
        }

    def found(self, images: Tensor, sizes: Sequence[Size]) -> list[Detections]:
        """See TorchvisionDetector.found."""
        return detections(self.config, self.raw(images), sizes)

    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """See ObjectModel.losses: "classification", "bbox_regression"; ATSS also "centerness", GFL "distribution"."""
        require_one_target_each(targets, len(images), "boxes", "labels")
        maps = self.maps(images)
        size = (images.shape[-2], images.shape[-1])
        levels = anchors_of(self.anchor_generator, maps["logits"], size)
        anchors = torch.cat(levels)
        if self.config.assignment == "atss":
            matched = torch.stack([by_statistics(levels, target["boxes"]) for target in targets])
        else:
            matched = torch.stack([by_overlap(anchors, target["boxes"]) for target in targets])  # (N, A)
        flat = {name: _flat(maps[name], width) for name, width in self._widths().items()}
        truth = _Truth(anchors, matched, targets, self.config.num_classes)
        if self.config.loss == "gfl":
            finest = finest_stride(self.config)
            strides = torch.cat([x.new_full((len(x),), finest * 2.0**level) for level, x in enumerate(levels)])
            return _gfl(flat, truth, strides)
        return _atss(flat, truth) if self.config.assignment == "atss" else _retinanet(flat, truth)

    def _widths(self) -> dict[str, int]:
        """Numbers that an anchor has, by the name of the maps."""
        widths = {"logits": self.config.num_classes, "deltas": 4}
        if self.config.loss == "gfl":
            widths["deltas"] *= REG_MAX + 1
        return widths | ({"centerness": 1} if self.config.method == "atss" else {})

    def adapt_older(self, state: dict[str, Tensor], prefix: str) -> None:
        """Leave out the background, which had a column of the classifier that nothing was ever assigned to."""
        for leaf in ("weight", "bias"):
            key = f"{prefix}head.classification_head.cls_logits.{leaf}"
            if key in state and len(state[key]) == self.places * (self.num_classes + 1):
                state[key] = state[key].unflatten(0, (self.places, -1))[:, 1:].flatten(0, 1)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Published initialisation: backbone and pyramid as theirs, head N(0, 0.01²), classes at a probability 0.01."""
        self.backbone.reset_parameters(generator)
        self.pyramid.reset_parameters(generator)
        self._reset_heads(generator)

    def _reset_heads(self, generator: torch.Generator | None = None) -> None:
        draw_normal(list(self.head.modules()), 0.01, generator)
        nn.init.constant_(self.head.classification_head.cls_logits.bias, -math.log((1 - PRIOR) / PRIOR))
        if hasattr(self.head, "scales"):
            nn.init.ones_(self.head.scales)

    def reset_classifier(self, num_classes: int, generator: torch.Generator | None = None) -> None:
        """Fresh box classifiers for `num_classes`; everything else stays.

        Raises ConfigError for an impossible number.
        """
        self.config = self.config.with_options(num_classes=num_classes)
        self.classes = None
        head = self.head.classification_head
        head.num_classes = num_classes
        head.cls_logits = conv_like(head.cls_logits, self.places * num_classes)
        draw_normal([head.cls_logits], 0.01, generator)
        nn.init.constant_(head.cls_logits.bias, -math.log((1 - PRIOR) / PRIOR))

    def reorder_classes(self, order: Sequence[int]) -> None:
        """See Model.reorder_classes."""
        classes = self.num_classes
        rows = [place * classes + i for place in range(self.places) for i in order]
        for parameter in self.head.classification_head.cls_logits.parameters():
            reordered(parameter, rows, before=0, each=1)


def finest_stride(config: RetinaNetConfig) -> int:
    """Stride of the finest map, the backbone's second: 8 as published."""
    return config.backbone.reductions[STAGES[0]]


def generator_of(config: RetinaNetConfig) -> Any:
    """The anchors of a configuration: nine per place, or one of ATSS."""
    if config.assignment == "atss":
        return anchor_generator(config.smallest_anchor, sizes=(1.0,), ratios=(1.0,))
    return anchor_generator(config.smallest_anchor, sizes=OCTAVE, ratios=ASPECT_RATIOS)


def _groups(channels: int) -> int:
    """32 of 8 channels, as published; fewer for narrower heads."""
    return math.gcd(32, channels, max(channels // 8, 1))


def _flat(maps: Sequence[Tensor], width: int) -> Tensor:
    """Maps of all levels (N, a·width, h, w) -> (N, A, width) float32, in the order of the anchors."""
    return torch.cat([_places(x, width) for x in maps], 1)


def _places(x: Tensor, width: int) -> Tensor:
    """(N, a·width, h, w) -> (N, h·w·a, width) float32."""
    return x.float().unflatten(1, (-1, width)).permute(0, 3, 4, 1, 2).flatten(1, 3)


class _Truth:
    """What the anchors of a batch should answer.

    matched: (N, A) index of an object, or BACKGROUND or IGNORED. positive: (N, A). total: positive anchors, the mean
    over processes. Of the P positive ones: anchors (P, 4), boxes (P, 4), labels (P,).
    """

    def __init__(self, anchors: Tensor, matched: Tensor, targets: Sequence[Target], num_classes: int) -> None:
        self.num_classes, self.matched, self.positive = num_classes, matched, matched >= 0
        self.total = mean_over_processes(self.positive.sum())
        self.anchors = anchors.expand(len(matched), -1, -1)[self.positive]
        rows = [row[row >= 0] for row in matched]
        self.boxes = torch.cat([t["boxes"].float()[row] for t, row in zip(targets, rows, strict=True)])
        self.labels = torch.cat([t["labels"][row] for t, row in zip(targets, rows, strict=True)])

    def focal_loss(self, logits: Tensor) -> Tensor:
        """Focal loss of (N, A, K) logits, ignored anchors left out."""
        from torchvision.ops import sigmoid_focal_loss

        target = torch.zeros_like(logits)
        image, anchor = self.positive.nonzero(as_tuple=True)
        target[image, anchor, self.labels] = 1.0
        valid = self.matched >= -1
        return sigmoid_focal_loss(logits[valid], target[valid], reduction="sum") / self.total


def _retinanet(flat: Mapping[str, Tensor], truth: _Truth) -> dict[str, Tensor]:
    wanted = _coder(1.0).encode_single(truth.boxes, truth.anchors)
    boxes = F.l1_loss(flat["deltas"][truth.positive], wanted, reduction="sum") / truth.total
    return {"classification": truth.focal_loss(flat["logits"]), "bbox_regression": boxes}


def _atss(flat: Mapping[str, Tensor], truth: _Truth) -> dict[str, Tensor]:
    from torchvision.ops import generalized_box_iou_loss

    middle = centerness(centers_of(truth.anchors), truth.boxes)
    logits = flat["centerness"][truth.positive][:, 0]
    boxes = _coder(_ATSS_CODER).decode_single(flat["deltas"][truth.positive], truth.anchors)
    away = generalized_box_iou_loss(boxes, truth.boxes) * middle
    return {
        "classification": truth.focal_loss(flat["logits"]),
        "bbox_regression": BOX_LOSS * away.sum() / mean_over_processes(middle.sum()),
        "centerness": F.binary_cross_entropy_with_logits(logits, middle, reduction="sum") / truth.total,
    }


def _gfl(flat: Mapping[str, Tensor], truth: _Truth, strides: Tensor) -> dict[str, Tensor]:
    from torchvision.ops import generalized_box_iou_loss

    logits, positive = flat["logits"], truth.positive
    stride = strides.expand(len(logits), -1)[positive][:, None]  # (P, 1)
    centers = centers_of(truth.anchors) / stride
    sides = flat["deltas"][positive].unflatten(1, (4, REG_MAX + 1))  # (P, 4, R + 1)
    boxes, wanted = _around(centers, expected_distance(sides)), truth.boxes / stride
    labels = torch.full(positive.shape, truth.num_classes, dtype=torch.int64, device=logits.device)
    quality = logits.new_zeros(positive.shape)
    labels[positive], quality[positive] = truth.labels, paired_iou(boxes.detach(), wanted)
    weights = logits.detach()[positive].sigmoid().amax(1)
    total = mean_over_processes(weights.sum())
    distances = torch.cat([centers - wanted[:, :2], wanted[:, 2:] - centers], 1).clamp(0, REG_MAX - 0.1)
    bins = distribution_focal_loss(sides.flatten(0, 1), distances.flatten()).unflatten(0, (-1, 4)).mean(1)
    return {
        "classification": quality_focal_loss(logits.flatten(0, 1), labels.flatten(), quality.flatten()) / truth.total,
        "bbox_regression": BOX_LOSS * (generalized_box_iou_loss(boxes, wanted) * weights).sum() / total,
        "distribution": DISTRIBUTION_LOSS * (bins * weights).sum() / total,
    }


def _coder(weights: Any) -> Any:
    from torchvision.models.detection._utils import BoxCoder

    return BoxCoder(weights if isinstance(weights, tuple) else (weights,) * 4)


def _around(centers: Tensor, distances: Tensor) -> Tensor:
    """Boxes by their sides' distances left, top, right, bottom of a place: (P, 2), (P, 4) -> (P, 4)."""
    return torch.cat([centers - distances[:, :2], centers + distances[:, 2:]], 1)


@detections.register
def _(config: RetinaNetConfig, raw: Mapping[str, Tensor], sizes: Sequence[Size]) -> list[Detections]:
    logits = [raw[f"logits_p{level + 3}"] for level in range(LEVELS)]
    finest = finest_stride(config)
    batch = (finest * logits[0].shape[-2], finest * logits[0].shape[-1])
    anchors = anchors_of(generator_of(config), logits, batch)
    images = []
    for i, size in enumerate(sizes):
        rows = {name: x[i : i + 1] for name, x in raw.items()}
        images.append(_best(config, [_level(config, rows, k, anchors[k], size) for k in range(LEVELS)]))
    return images


Candidates = tuple[Tensor, Tensor, Tensor]  # boxes (P, 4), scores (P,), labels (P,)


def _level(config: RetinaNetConfig, raw: Mapping[str, Tensor], level: int, anchors: Tensor, size: Size) -> Candidates:
    """The surest candidates of one image and level."""
    from torchvision.ops import clip_boxes_to_image

    scores = _places(raw[f"logits_p{level + 3}"], config.num_classes)[0].sigmoid().flatten()
    index = (scores > config.score_threshold).nonzero()[:, 0]
    scores, order = scores[index].topk(min(len(index), CANDIDATES))
    index = index[order]
    anchor, labels = index // config.num_classes, index % config.num_classes
    width = 4 * (REG_MAX + 1) if config.loss == "gfl" else 4
    deltas = _places(raw[f"deltas_p{level + 3}"], width)[0][anchor]
    if config.loss == "gfl":
        sides = expected_distance(deltas.unflatten(1, (4, REG_MAX + 1))) * (finest_stride(config) * 2**level)
        boxes = _around(centers_of(anchors[anchor]), sides)
    else:
        coder = _coder(_ATSS_CODER if config.assignment == "atss" else 1.0)
        boxes = coder.decode_single(deltas, anchors[anchor])
    if config.method == "atss":
        scores = scores * _places(raw[f"centerness_p{level + 3}"], 1)[0][anchor, 0].sigmoid()
    return clip_boxes_to_image(boxes, size), scores, labels


def _best(config: RetinaNetConfig, levels: Sequence[Candidates]) -> Detections:
    """Non-maximum suppression over all levels, class by class."""
    from torchvision.ops import batched_nms

    boxes, scores, labels = (torch.cat(parts) for parts in zip(*levels, strict=True))
    kept = batched_nms(boxes, scores, labels, config.nms_threshold)[: config.detections_per_image]
    return Detections(boxes=boxes[kept], labels=labels[kept], scores=scores[kept])


@class_scores.register
def _(config: RetinaNetConfig, raw: Mapping[str, Tensor]) -> Tensor:
    """The largest logit of all places and anchors."""
    maps = [raw[f"logits_p{level + 3}"] for level in range(LEVELS)]
    return torch.cat([_places(x, config.num_classes)[0] for x in maps]).amax(0)
