"""The 3x3 convolution by Winograd's algorithm F(4x4, 3x3): 36 products for 16 results, which otherwise take 144.

Each tile of 4x4 results comes from 6x6 pixels: both and the kernel are values of polynomials at six points (the last of
them infinity), where a convolution is a product. In float32 these points lose no more than the library's convolution of
channels_last maps does: both are 2e-6 of the largest result away from float64, the usual 0, ±1, ±2 7e-6.

Source: Fast Algorithms for Convolutional Neural Networks (CVPR 2016). Shapes: N batch, C and K channels, H height, W
width, T tiles.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

POINTS = (0.0, 0.625, -0.625, 1.5, -1.5)
TILE, PATCH, KERNEL = 4, 6, 3  # sides of results, of what they are computed from, of the kernel
# Tiles at once, so many that the products are large, so few that what they are made of stays in the cache.
TILES = 192
# Bytes of one buffer. Larger ones are fresh pages at every call, which costs ten times what filling them does.
BUFFER = 24 * 2**20


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """3x3 convolution with stride 1 and zero padding 1: x (N, H, W, C), weight (K, C, 3, 3) -> (N, H, W, K)."""
    (batch, height, width, channels), outputs = x.shape, len(weight)
    y = x.new_empty((batch, height, width, outputs))
    down, across = -(-height // TILE), -(-width // TILE)
    strips = [(n, row * TILE) for n in range(batch) for row in range(down)]  # rows of tiles
    step = max(1, min(TILES // across, len(strips)))
    to_points, of_points = _both_axes(x, 0), _both_axes(x, 2)
    kernels = _kernels(weight)
    strip = x.new_zeros((PATCH, across * TILE + 2, channels))
    tiles = step * across
    # two buffers for four: the products are made when the patches are no longer needed, the results after the values
    patches, products = _shared(x, (tiles, PATCH**2, channels), (PATCH**2, tiles, outputs))
    values, results = _shared(x, (tiles, PATCH**2, channels), (tiles, TILE**2, outputs))
    for first in range(0, len(strips), step):
        band = strips[first : first + step]
        count = len(band) * across
        for i, (n, row) in enumerate(band):
            _gather(x[n], row, strip, patches[i * across : (i + 1) * across])
        torch.bmm(to_points.expand(count, -1, -1), patches[:count], out=values[:count])
        for at, part in kernels:
            torch.bmm(
                values[:count].transpose(0, 1), part.permute(1, 2, 0), out=products[:, :count, at : at + len(part)]
            )
        torch.bmm(of_points.expand(count, -1, -1), products[:, :count].transpose(0, 1), out=results[:count])
        for i, (n, row) in enumerate(band):
            _scatter(results[i * across : (i + 1) * across], bias, y[n, row : row + TILE])
    return y


def _shared(like: Tensor, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Tensors of these shapes in the same memory."""
    sizes = [prod(shape) for shape in shapes]
    memory = like.new_empty(max(sizes))
    return [memory[:size].view(shape) for size, shape in zip(sizes, shapes, strict=True)]


def _gather(image: Tensor, row: int, strip: Tensor, patches: Tensor) -> None:
    """A row of patches, (T, 36, C), of a map (H, W, C); strip (6, 4·T + 2, C) is a buffer with zeros at its ends."""
    height, width, channels = image.shape
    first, end = max(row - 1, 0), min(row + PATCH - 1, height)
    above, below = first - row + 1, end - row + 1
    strip[:above].zero_()
    strip[above:below, 1 : width + 1] = image[first:end]
    strip[below:].zero_()
    line = strip.stride(0)
    seen = strip.as_strided((len(patches), PATCH, PATCH, channels), (TILE * channels, line, channels, 1))
    patches.view(seen.shape).copy_(seen)


def _scatter(results: Tensor, bias: Tensor | None, rows: Tensor) -> None:
    """A row of tiles (T, 16, K) into rows (4 or fewer, W, K) of the map."""
    height, width, outputs = rows.shape
    tiles = results.view(-1, TILE, TILE, outputs).transpose(0, 1)[:height]
    whole, rest = divmod(width, TILE)
    places = [(tiles[:, :whole], rows[:, : whole * TILE].unflatten(1, (whole, TILE)))]
    if rest:
        places.append((tiles[:, whole, :rest], rows[:, whole * TILE :]))
    for values, place in places:
        if bias is None:
            place.copy_(values)
        else:
            torch.add(values, bias, out=place)


def _kernels(weight: Tensor) -> list[tuple[int, Tensor]]:
    """The kernels' values at the points, in parts of (k, 36, C), each with the number of its first kernel."""
    outputs, channels = weight.shape[:2]
    count = -(-outputs * PATCH**2 * channels * weight.element_size() // BUFFER)
    step = -(-outputs // count)
    rows = weight.permute(0, 2, 3, 1).reshape(outputs, KERNEL**2, channels)
    points = _both_axes(weight, 1)
    parts = []
    for first in range(0, outputs, step):
        part = rows[first : first + step]
        parts.append((first, torch.bmm(points.expand(len(part), -1, -1), part)))
    return parts


def _both_axes(like: Tensor, which: int) -> Tensor:
    """The transform of patches (36, 36), of kernels (36, 9) or to results (16, 36)."""
    matrix = torch.tensor(transforms(POINTS)[which], dtype=torch.float64, device="cpu")
    return torch.kron(matrix, matrix).to(like.dtype)


def transforms(points: tuple[float, ...]) -> tuple[list[list[float]], list[list[float]], list[list[float]]]:
    """Of patches (6, 6), of kernels (6, 3), to results (4, 6) for one axis; the last point is infinity."""
    patches, kernels = [], []
    for i, point in enumerate(points):
        others = points[:i] + points[i + 1 :]
        scale = prod(point - other for other in others)
        patches.append([*_polynomial(others), 0.0])
        kernels.append([point**k / scale for k in range(KERNEL)])
    patches.append(_polynomial(points))
    kernels.append([0.0, 0.0, 1.0])
    results = [[point**k for point in points] + [float(k == TILE - 1)] for k in range(TILE)]
    return patches, kernels, results


def _polynomial(roots: tuple[float, ...]) -> list[float]:
    """The coefficients of the product of x - root, the constant first."""
    coefficients = [1.0]
    for root in roots:
        shifted, scaled = [0.0, *coefficients], [*coefficients, 0.0]
        coefficients = [high - root * low for high, low in zip(shifted, scaled, strict=True)]
    return coefficients
