"""Masks of a network at the size of the image, as run lengths.

Shapes: K objects, m side of a mask of a box, h, w of a mask of the whole image, H, W sides of the image.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ...images import rle
from ...images.rle import Rle

_CHUNK = 2**25  # pixels of masks that are alive at a time


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float) -> tuple[Rle, ...]:
    """Masks (K, m, m) of boxes (K, 4) in pixels of the image; a pixel above `threshold` belongs to the object.

    Source: Mask R-CNN as torchvision has it: a border of zeros around the mask, the box enlarged by as much and cut to
    whole pixels, bilinear.
    """
    m = masks.shape[-1]
    bordered, corners = F.pad(masks.float().cpu(), (1, 1, 1, 1)), _enlarged(boxes.float().cpu(), (m + 2) / m)
    found: list[Rle] = []
    step = max(1, _CHUNK // (size[0] * size[1]))
    for start in range(0, len(masks), step):
        stop = min(start + step, len(masks))
        canvas = np.zeros((stop - start, *size), np.uint8)
        for i in range(start, stop):
            _paste_one(canvas[i - start], bordered[i], corners[i].tolist(), threshold)
        found += rle.encode(canvas)
    return tuple(found)


def _enlarged(boxes: Tensor, factor: float) -> Tensor:
    """Boxes around the same centres, cut to whole pixels, (K, 4) int64."""
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * factor
    center = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    corners = boxes.new_zeros(boxes.shape)
    corners[:, :2], corners[:, 2:] = center - half, center + half
    return corners.long()


def _paste_one(canvas: np.ndarray, mask: Tensor, box: list[int], threshold: float) -> None:
    height, width = canvas.shape
    left, top, right, bottom = box[0], box[1], box[2] + 1, box[3] + 1  # right and bottom excluded
    rows, columns = max(bottom - top, 1), max(right - left, 1)
    inside = max(top, 0), min(bottom, height), max(left, 0), min(right, width)
    if inside[0] >= inside[1] or inside[2] >= inside[3] or max(rows, columns) > 4 * max(height, width):
        return
    grown = F.interpolate(mask[None, None], (rows, columns), mode="bilinear", align_corners=False)[0, 0]
    seen = grown[inside[0] - top : inside[1] - top, inside[2] - left : inside[3] - left] > threshold
    canvas[inside[0] : inside[1], inside[2] : inside[3]] = seen.numpy()


def enlarge(masks: Tensor, size: tuple[int, int], threshold: float) -> tuple[Rle, ...]:
    """Masks (K, h, w) of the whole image at its size, bilinear; a pixel above `threshold` belongs to the object."""
    found: list[Rle] = []
    step = max(1, _CHUNK // (4 * size[0] * size[1]))
    for part in masks.float().split(step):
        grown = F.interpolate(part[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        found += rle.encode((grown > threshold).cpu().numpy())
    return tuple(found)
