"""Boxes as centre, width, height and as corners, and how two of them overlap.

Shapes: (..., 4) in any unit.
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_corners(boxes: Tensor) -> Tensor:
    """Centre x, y, width, height -> left, top, right, bottom."""
    center, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([center - size / 2, center + size / 2], -1)


def to_centers(boxes: Tensor) -> Tensor:
    """Left, top, right, bottom -> centre x, y, width, height."""
    near, far = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(near + far) / 2, far - near], -1)


def overlap(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """(IoU, generalised IoU) of boxes as corners, broadcast against each other: two of (...).

    Two empty boxes at one place overlap by 0. Source: arXiv 1902.09630.
    """
    near, far = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    common = (far - near).clamp(min=0).prod(-1)
    union = _area(first) + _area(second) - common
    iou = common / union.clamp(min=_TINY)
    near, far = torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])
    hull = (far - near).clamp(min=0).prod(-1)
    return iou, iou - (hull - union) / hull.clamp(min=_TINY)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


_TINY = 1e-9
