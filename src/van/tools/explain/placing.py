"""From the map of a stage to the pixels of the image.

Shapes: h, w of a map, H, W of the image.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...tasks.base import WholeView


def without_padding(values: Tensor, stride: int, extent: tuple[int, int]) -> Tensor:
    """A map (…, h, w) without the units that see padding alone; extent: (height, width) of the image in the input."""
    rows, columns = (-(-side // stride) for side in extent)
    return values[..., :rows, :columns]


def in_image(values: np.ndarray, stride: int, view: WholeView) -> np.ndarray:
    """A map (h, w) at the size of the image, (H, W) float32; 0 where the network sees nothing of it.

    Unit i of a map is centred on pixel i times the stride of the input, which the padding of every convolution fixes.
    """
    left, top, right, bottom = pixel_box(view.box, view.picture.size)
    placed = np.zeros((view.picture.height, view.picture.width), np.float32)
    seen = Image.fromarray(_enlarged(values, stride, view.extent)).resize((right - left, bottom - top), _BILINEAR)
    placed[top:bottom, left:right] = np.clip(np.asarray(seen), 0, 1)
    return placed


def pixel_box(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in whole pixels, inside an image of this (width, height), at least one pixel large."""
    left, top = (min(max(0, round(start)), side - 1) for start, side in zip(box[:2], size, strict=True))
    right, bottom = (
        min(max(start + 1, round(end)), side) for start, end, side in zip((left, top), box[2:], size, strict=True)
    )
    return left, top, right, bottom


_BILINEAR = Image.Resampling.BILINEAR


def _enlarged(values: np.ndarray, stride: int, size: tuple[int, int]) -> np.ndarray:
    """(h, w) -> a value for every pixel of the input, (height, width) of `size`."""
    import torch

    grid = torch.from_numpy(np.ascontiguousarray(values, np.float32))[None, None]
    sides = [(side - 1) * stride + 1 for side in values.shape]
    grid = F.interpolate(grid, sides, mode="bilinear", align_corners=True)
    down, across = (max(0, side - known) for side, known in zip(size, sides, strict=True))
    grid = F.pad(grid, (0, across, 0, down), mode="replicate")
    return np.asarray(grid[0, 0, : size[0], : size[1]].numpy())
