"""Losses of the one-stage detectors: sums over anchors, which their callers normalise.

Shapes: A anchors or positives, K classes, R + 1 bins of a distance.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def quality_focal_loss(logits: Tensor, labels: Tensor, quality: Tensor, beta: float = 2.0) -> Tensor:
    """Sum of |q - p|^beta times the cross-entropy of p with q, over all anchors and classes.

    logits: (A, K). labels: (A,) int64 class of each anchor, K for the background. quality: (A,) in 0 … 1, q of the
    anchor's class; q of all other classes is 0.
    Source: arXiv 2006.04388, equation 2.
    """
    target = torch.zeros_like(logits)
    positive = labels < logits.shape[1]
    target[positive, labels[positive]] = quality[positive]
    distance = (target - logits.sigmoid()).abs().pow(beta)
    return (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * distance).sum()


def distribution_focal_loss(logits: Tensor, distance: Tensor) -> Tensor:
    """Cross-entropy with the two bins around each distance, by nearness: (A, R + 1), (A,) in 0 … R -> (A,).

    Source: arXiv 2006.04388, equation 6.
    """
    left = distance.long().clamp(max=logits.shape[1] - 2)
    to_left = distance - left
    log = F.log_softmax(logits, dim=1)
    near = log.gather(1, torch.stack([left, left + 1], 1))  # (A, 2)
    return -(near[:, 0] * (1 - to_left) + near[:, 1] * to_left)


def expected_distance(logits: Tensor) -> Tensor:
    """(…, R + 1) logits of a distribution over 0 … R -> (…) its mean."""
    bins = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    return logits.softmax(-1) @ bins


def centerness(centers: Tensor, boxes: Tensor) -> Tensor:
    """How near a place inside a box is to its middle: (A, 2), (A, 4) -> (A,), 1 at the middle, 0 at the rim.

    Source: arXiv 1904.01355, equation 3.
    """
    before, after = centers - boxes[:, :2], boxes[:, 2:] - centers  # (A, 2) each
    nearer, farther = torch.minimum(before, after).clamp(min=0), torch.maximum(before, after)
    return (nearer / farther.clamp(min=1e-6)).prod(1).sqrt()


def paired_iou(one: Tensor, two: Tensor) -> Tensor:
    """Overlap of each box with its partner: (A, 4), (A, 4) -> (A,)."""
    corner, opposite = torch.maximum(one[:, :2], two[:, :2]), torch.minimum(one[:, 2:], two[:, 2:])
    common = (opposite - corner).clamp(min=0).prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1) for boxes in (one, two)]
    return common / (areas[0] + areas[1] - common).clamp(min=1e-6)
