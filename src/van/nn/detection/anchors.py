"""Anchors of the pyramid's maps, laid out as torchvision does.

Shapes: H, W sides of the padded batch, A anchors of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

ASPECT_RATIOS = (0.5, 1.0, 2.0)
OCTAVE = tuple(2 ** (k / 3) for k in range(3))  # RetinaNet's three sizes of anchors per map
LEVELS = 5


def anchor_generator(smallest: int, *, sizes: Sequence[float], ratios: Sequence[float]) -> Any:
    """torchvision's generator for five maps; sizes: factors of the map's anchor, ratios: height over width."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    sides = tuple(tuple(int(smallest * 2**level * size) for size in sizes) for level in range(LEVELS))
    return AnchorGenerator(sides, (tuple(ratios),) * LEVELS)


def anchors_of(generator: Any, maps: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
    """(A, 4) anchors of each map of a batch of `size` (H, W), corners x, y, x, y; row-major, then by kind.

    A map's stride is the side of the batch over that of the map, rounded down.
    """
    generator.set_cell_anchors(torch.float32, maps[0].device)
    grids = [tuple(x.shape[-2:]) for x in maps]
    return generator.grid_anchors(grids, [(size[0] // h, size[1] // w) for h, w in grids])


def centers_of(boxes: Tensor) -> Tensor:
    """(A, 4) -> (A, 2), x and y."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2
