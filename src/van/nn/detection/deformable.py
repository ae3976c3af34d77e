"""Deformable attention: each head of a query reads the maps at a few places of its own.

Source: arXiv 2010.04159; here the values are not projected, as D-FINE has it (arXiv 2410.13842, appendix), and the
number of places differs from map to map.

Shapes: N images, A heads, D channels of a head, Q queries, HW pixels of all maps, P places of a head on all maps, p on
one of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Sampling = Literal["grid_sample", "gather"]


class DeformableAttention(nn.Module):
    """Stands in for transformers' DFineMultiscaleDeformableAttention, whose check of the shapes ONNX has no word for.

    sampling: how it reads between pixels: torch's grid_sample, or gathers and arithmetic, for engines that compile
    GridSample wrongly. The values are the same.
    """

    num_points_scale: Tensor

    def __init__(self, hidden_size: int, heads: int, points: Sequence[int]) -> None:
        super().__init__()
        self.heads, self.points = heads, list(points)
        self.sampling: Sampling = "grid_sample"
        self.sampling_offsets = nn.Linear(hidden_size, heads * sum(points) * 2)
        self.attention_weights = nn.Linear(hidden_size, heads * sum(points))
        self.register_buffer("num_points_scale", torch.cat([torch.full((n,), 1 / n) for n in points]))

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        reference_points: Tensor,
        spatial_shapes_list: Sequence[tuple[int, int]],
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        """hidden_states: (N, Q, A D); encoder_hidden_states: (N, HW, A D); reference_points: (N, Q, 1, 4) boxes.

        Returns the mixed values (N, Q, A D), and the weights (N, Q, A, P) that they were mixed by. The names of the
        arguments are transformers', which passes some more that are not needed.
        """
        offsets = self.sampling_offsets(hidden_states).unflatten(-1, (self.heads, -1, 2))
        weights = self.attention_weights(hidden_states).unflatten(-1, (self.heads, -1)).softmax(-1)
        boxes = reference_points[:, :, None]  # (N, Q, 1, 1, 4)
        scale = self.num_points_scale.to(hidden_states.dtype)[:, None] / 2  # the last point of a head is at the border
        places = boxes[..., :2] + offsets * scale * boxes[..., 2:]  # (N, Q, A, P, 2)
        values = encoder_hidden_states.unflatten(-1, (self.heads, -1))
        read = _sample if self.sampling == "grid_sample" else _gather
        return _mix(values, spatial_shapes_list, places, weights, self.points, read), weights

    def reset_parameters(self) -> None:
        """Each head looks in a direction of its own, its places one by one further away, with equal weights."""
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.cat([torch.arange(1, n + 1) for n in self.points])
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((directions[:, None] * steps[:, None]).flatten())
            self.num_points_scale.copy_(torch.cat([torch.full((n,), 1 / n) for n in self.points]))


def _mix(
    values: Tensor, shapes: Sequence[tuple[int, int]], places: Tensor, weights: Tensor, points: list[int], read: Any
) -> Tensor:
    """values (N, HW, A, D) read at places (N, Q, A, P, 2), mixed by weights (N, Q, A, P) -> (N, Q, A D)."""
    batch, _, heads, channels = values.shape
    maps = values.permute(0, 2, 3, 1).flatten(0, 1).split([height * width for height, width in shapes], -1)
    places = places.transpose(1, 2).flatten(0, 1)  # (N A, Q, P, 2)
    weights = weights.transpose(1, 2).flatten(0, 1)[:, None]  # (N A, 1, Q, P)
    found = [
        read(x.unflatten(-1, shape), at) for x, shape, at in zip(maps, shapes, places.split(points, -2), strict=True)
    ]
    mixed = (torch.cat(found, -1) * weights).sum(-1)  # (N A, D, Q)
    return mixed.reshape(batch, heads * channels, -1).transpose(1, 2)


def _sample(x: Tensor, places: Tensor) -> Tensor:
    """(N A, D, h, w) at (N A, Q, p, 2) -> (N A, D, Q, p): bilinear, zeros outside, corners not aligned."""
    return F.grid_sample(x, 2 * places - 1, mode="bilinear", padding_mode="zeros", align_corners=False)


def _gather(x: Tensor, places: Tensor) -> Tensor:
    """See `_sample`."""
    height, width = x.shape[-2:]
    pixels = x.flatten(2)
    column, row = places[..., 0] * width - 0.5, places[..., 1] * height - 0.5  # (N A, Q, p)
    total = pixels.new_zeros(())
    for right in (0, 1):
        for below in (0, 1):
            i, j = column.floor() + right, row.floor() + below
            share = (1 - (column - i).abs()) * (1 - (row - j).abs())
            inside = (i >= 0) & (i < width) & (j >= 0) & (j < height)
            index = (j.clamp(0, height - 1) * width + i.clamp(0, width - 1)).long().flatten(1)  # (N A, Q p)
            found = pixels.gather(2, index[:, None].expand(-1, pixels.shape[1], -1)).unflatten(2, share.shape[1:])
            total = total + found * (share * inside)[:, None]
    return total
