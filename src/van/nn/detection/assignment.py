"""Which anchors learn which objects, in the one-stage detectors.

Shapes: G objects, A anchors of all levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .anchors import centers_of

BACKGROUND, IGNORED = -1, -2
NEAREST = 9  # anchors per level that ATSS considers, as published


def by_overlap(anchors: Tensor, boxes: Tensor) -> Tensor:
    """RetinaNet's rule: overlap from 0.5, or the best that an object has; ignored from 0.4.

    anchors: (A, 4). boxes: (G, 4). Returns (A,) int64: index of an object, BACKGROUND or IGNORED.
    """
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    if not len(boxes):
        return anchors.new_full((len(anchors),), BACKGROUND, dtype=torch.int64)
    return Matcher(0.5, 0.4, allow_low_quality_matches=True)(box_iou(boxes, anchors))


def by_statistics(levels: Sequence[Tensor], boxes: Tensor, nearest: int = NEAREST) -> Tensor:
    """ATSS: of the nearest anchors on each level those above the mean plus the spread of their overlaps.

    The centre of a positive anchor lies inside the object; one that fits several objects takes that of largest
    overlap.
    levels: (A_l, 4) anchors of each level. boxes: (G, 4). Returns (A,) int64: index of an object or BACKGROUND.
    Source: arXiv 1912.02424, algorithm 1.
    """
    from torchvision.ops import box_iou

    anchors = torch.cat(list(levels))
    matched = anchors.new_full((len(anchors),), BACKGROUND, dtype=torch.int64)
    if not len(boxes):
        return matched
    overlaps, centers = box_iou(boxes, anchors), centers_of(anchors)  # (G, A), (A, 2)
    distances = torch.cdist(centers_of(boxes), centers, compute_mode="donot_use_mm_for_euclid_dist")  # (G, A)
    candidates, start = [], 0
    for level in levels:
        part = distances[:, start : start + len(level)]
        candidates.append(start + part.topk(min(nearest, len(level)), largest=False).indices)
        start += len(level)
    chosen = torch.cat(candidates, 1)  # (G, nearest · levels)
    among = overlaps.gather(1, chosen)
    threshold = among.mean(1, keepdim=True) + among.std(1, keepdim=True)
    places = centers[chosen]  # (G, nearest · levels, 2)
    sides = torch.cat([places - boxes[:, None, :2], boxes[:, None, 2:] - places], 2)
    positive = (among >= threshold) & (sides.amin(2) > 0.01)
    allowed = torch.full_like(overlaps, -1.0).scatter(1, chosen, torch.where(positive, among, among.new_tensor(-1.0)))
    best, object_of = allowed.max(0)
    return torch.where(best >= 0, object_of, matched)
