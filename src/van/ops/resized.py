"""The convolution of a bilinearly resized map, computed where the map is small.

Convolution and resizing are linear. With u = rows · x · columnsᵀ the resized map, a kernel W and the zeros around u,

    y = Σ over dy, dx of shift(dy, dx) (W[dy, dx] u)
      = Σ over dy of rows[dy] · (Σ over dx of (W[dy, dx] x) · columns[dx]ᵀ)

where rows[dy] and columns[dx] hold the weights of resizing, shifted by a tap, with zeros for what lies outside. So the
channels are multiplied at x's own size, and the resized map need not exist. With a 1x1 kernel it is y = resized(W x).

Shapes: N batch, C and K channels, k kernel side, H, W the size after resizing and h, w before.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Source rows and columns of the result at once: the matrices below are mostly zeros, these parts of them are not.
ROWS, COLUMNS = 8, 32


def add_convolved(total: Tensor, x: Tensor, weight: Tensor) -> None:
    """Add to total (N, H, W, K) the convolution with weight (K, C, k, k), zeros around it, of x (N, C, h, w) resized.

    k is odd. total is contiguous.
    """
    side = weight.shape[-1]
    if side == 1:
        for image, into in zip(x.split(1), total.split(1), strict=True):
            _add_product(into, image, weight)
        return
    rows, columns = (taps(*sizes, side, total) for sizes in zip(x.shape[2:], total.shape[1:3], strict=True))
    pixels = x.permute(0, 2, 3, 1)
    for image, into in zip(pixels, total, strict=True):
        for first in range(0, len(image), ROWS):
            _add_rows(into, image[first : first + ROWS], weight, rows[:, :, first : first + ROWS], columns)


def _add_product(total: Tensor, x: Tensor, weight: Tensor) -> None:
    """What an image (1, C, h, w) adds to total (1, H, W, K) under a 1x1 kernel."""
    products = F.linear(x.permute(0, 2, 3, 1), weight.flatten(1)).permute(0, 3, 1, 2)
    total += F.interpolate(products, total.shape[1:3], mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


def _add_rows(total: Tensor, pixels: Tensor, weight: Tensor, rows: Tensor, columns: Tensor) -> None:
    """What a few rows (r, w, C) of the map add to total (H, W, K); rows (k, H, r), columns (k, W, w)."""
    (count, width, channels), (outputs, _, side, _) = pixels.shape, weight.shape
    pixels = pixels.reshape(-1, channels)
    products = pixels.new_empty((len(pixels), side, outputs))
    wide = pixels.new_empty((count, total.shape[1], outputs))
    across = columns.permute(1, 2, 0).flatten(1)  # (W, w·k)
    for dy in range(side):
        for dx in range(side):
            torch.mm(pixels, weight[:, :, dy, dx].T, out=products[:, dx])
        _widen(products.view(count, width * side, outputs), across, side, wide)
        reached = rows[dy].any(1).nonzero().flatten().tolist()
        if reached:
            part = slice(reached[0], reached[-1] + 1)
            total[part].flatten(1).addmm_(rows[dy, part], wide.flatten(1))


def _widen(products: Tensor, across: Tensor, side: int, wide: Tensor) -> None:
    """wide (r, W, K) = across (W, w·k) · products (r, w·k, K), a few columns at a time."""
    count = len(products)
    for first in range(0, len(across), COLUMNS):
        band = across[first : first + COLUMNS]
        used = band.any(0).nonzero().flatten().tolist()
        part = slice(used[0], used[-1] + 1) if used else slice(0, side)
        matrix = band[:, part].contiguous().expand(count, -1, -1)
        torch.bmm(matrix, products[:, part], out=wide[:, first : first + COLUMNS])


def taps(before: int, after: int, side: int, like: Tensor) -> Tensor:
    """(k, after, before): each result's weights in resizing, shifted by each tap; rows outside are zero."""
    unit = torch.eye(before, dtype=like.dtype, device=like.device)
    matrix = F.interpolate(unit[:, None], after, mode="linear", align_corners=False)[:, 0].T
    reach = side // 2
    padded = F.pad(matrix, (0, 0, reach, reach))
    return torch.stack([padded[tap : tap + after] for tap in range(side)])
