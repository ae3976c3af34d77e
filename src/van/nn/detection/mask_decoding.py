"""From Mask2Former's class and mask logits to objects and to panoptic segments, without the network.

Paper: arXiv 2112.01527, section 4.1 and appendix; merging rule: MaskFormer, arXiv 2107.06278, section 3.4.

Shapes: Q queries, K classes, h and w of the mask logits, H and W of an image without padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...configs.mask2former import InstanceMask2FormerConfig, Mask2FormerConfig, Mask2FormerFields
from ..object_model import Detections, PanopticSegments, Size, class_scores, detections, panoptic


@detections.register
def _(config: InstanceMask2FormerConfig, raw: Mapping[str, Tensor], sizes: Sequence[Size]) -> list[Detections]:
    """The best pairs of query and class, scored by the class times how sure the mask is inside; masks as logits."""
    return [
        _objects(config, classes, masks, size)
        for classes, masks, size in zip(raw["class_logits"], raw["mask_logits"], sizes, strict=True)
    ]


@panoptic.register
def _(
    config: Mask2FormerConfig, raw: Mapping[str, Tensor], sizes: Sequence[Size], output_sizes: Sequence[Size]
) -> list[PanopticSegments]:
    """Pixels go to the query of the highest score times mask; stuff of one class is one segment."""
    return [
        _merge(config, classes, masks, size, output)
        for classes, masks, size, output in zip(
            raw["class_logits"], raw["mask_logits"], sizes, output_sizes, strict=True
        )
    ]


def _whole(config: Mask2FormerFields, masks: Tensor, size: Size) -> Tensor:
    """Mask logits (R, h, w) of a padded image -> (R, H, W) without the padding."""
    stride = config.backbone.reductions[0]
    padded = (masks.shape[1] * stride, masks.shape[2] * stride)
    masks = F.interpolate(masks[None].float(), padded, mode="bilinear", align_corners=False)[0]
    return masks[:, : size[0], : size[1]]


def _objects(config: InstanceMask2FormerConfig, classes: Tensor, masks: Tensor, size: Size) -> Detections:
    scores = classes.float().softmax(-1)[:, :-1]  # (Q, K)
    best = scores.flatten().topk(min(config.detections_per_image, scores.numel()))
    masks = _whole(config, masks[best.indices // scores.shape[1]], size)
    inside = masks > 0
    quality = (masks.sigmoid() * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
    found = best.values * quality
    order = found.argsort(descending=True, stable=True)
    order = order[inside.any(-1).any(-1)[order] & (found[order] >= config.score_threshold)]
    return Detections(
        boxes=_boxes(inside[order]),
        labels=(best.indices % scores.shape[1])[order],
        scores=found[order],
        masks=masks[order],
        mask_threshold=0.0,
    )


def _boxes(masks: Tensor) -> Tensor:
    """The smallest boxes around masks (R, H, W) that are not empty: (R, 4)."""
    edges = []
    for seen in (masks.any(1), masks.any(2)):  # columns, rows
        first, last = seen.int().argmax(1), seen.shape[1] - seen.flip(1).int().argmax(1)
        edges.append((first, last))
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom], 1).float()


def _merge(config: Mask2FormerConfig, classes: Tensor, masks: Tensor, size: Size, output: Size) -> PanopticSegments:
    scores, labels = classes.float().softmax(-1).max(-1)  # (Q,)
    kept = (labels < config.num_classes) & (scores > config.score_threshold)
    ids = torch.zeros(output, dtype=torch.int32, device=masks.device)
    if not kept.any():
        return PanopticSegments(segment_ids=ids, labels=(), scores=())
    scores, labels = scores[kept], labels[kept]
    logits = _whole(config, masks[kept], size)
    if tuple(output) != tuple(logits.shape[1:]):
        logits = F.interpolate(logits[None], output, mode="bilinear", align_corners=False)[0]
    found = logits.sigmoid()
    winner = (scores[:, None, None] * found).argmax(0)
    segments: list[tuple[int, float]] = []
    stuff: dict[int, int] = {}  # class -> its segment
    for query, (label, score) in enumerate(zip(labels.tolist(), scores.tolist(), strict=True)):
        won, mask = winner == query, found[query] >= 0.5
        segment = won & mask
        if not segment.any() or won.sum() < config.overlap_threshold * mask.sum():
            continue
        if label not in stuff:
            segments.append((label, score))
        index = stuff.get(label, len(segments))
        if label >= config.num_things:
            stuff[label] = index
            segments[index - 1] = (label, max(score, segments[index - 1][1]))
        ids[segment] = index
    return PanopticSegments(
        segment_ids=ids, labels=tuple(label for label, _ in segments), scores=tuple(score for _, score in segments)
    )


@class_scores.register
def _(config: Mask2FormerFields, raw: Mapping[str, Tensor]) -> Tensor:
    """The largest logarithm of a probability of all queries."""
    return raw["class_logits"][0].log_softmax(-1)[:, :-1].amax(0)
