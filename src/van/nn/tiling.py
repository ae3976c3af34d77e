"""Logits at the size of an image, a tile of rows at a time: memory depends on the tile, not on the image.

Shape legend: K classes, C channels, H and W of the image, h and w of the logits that exist.
Source of the windows: slide_inference of MMSegmentation 0.2x, on which the VAN segmentation code stands.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Rows(Protocol):
    """Logits of some size (H, W) of which any rows can be had; the first row asked for never goes back."""

    size: tuple[int, int]

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows start … stop - 1: (K, stop - start, W)."""


class WholeLogits:
    """Logits that exist: (K, h, w)."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self.size = (logits.shape[-2], logits.shape[-1])

    def rows(self, start: int, stop: int) -> Tensor:
        """See Rows."""
        return self.logits[:, start:stop]


class Resized:
    """Logits at another size, bilinear with corners not aligned: what F.interpolate gives, row by row."""

    def __init__(self, source: Rows, size: tuple[int, int]) -> None:
        self.source, self.size = source, size

    def rows(self, start: int, stop: int) -> Tensor:
        """See Rows."""
        height = self.source.size[0]
        if self.size == self.source.size:
            return self.source.rows(start, stop)
        centres = _centres(start, stop, height, self.size[0], fused=_fuses())
        above = centres.long().clamp_(max=height - 1)
        first, last = int(above[0]), min(int(above[-1]) + 1, height - 1)
        lines = self.source.rows(first, last + 1)  # (K, few, w)
        lines = F.interpolate(lines[None], (lines.shape[1], self.size[1]), mode="bilinear", align_corners=False)[0]
        return _between(lines, above - first, centres - above)


def _centres(start: int, stop: int, height: int, size: int, *, fused: bool) -> Tensor:
    """Where rows start … stop - 1 of `size` lie among `height` rows, in float32 as torch rounds: (stop - start,).

    fused: product and difference are rounded once. Between the two, and float64, lie 3e-5 of a row at row 500.
    """
    scale = torch.tensor(height, dtype=torch.float32) / size
    rows = torch.arange(start, stop, dtype=torch.float32) + 0.5
    centres = (rows.double() * scale.double() - 0.5).float() if fused else rows * scale - 0.5
    return centres.clamp_(min=0)


@functools.cache
def _fuses() -> bool:
    """Whether torch multiplies and subtracts in one instruction here, as on processors with AVX2; found by trying."""
    height, size = 128, 1000
    ramp = torch.arange(height, dtype=torch.float32)[None, None, :, None] % 7
    wanted, worst = F.interpolate(ramp, (size, 1), mode="bilinear", align_corners=False)[0], []
    for fused in (False, True):
        centres = _centres(0, size, height, size, fused=fused)
        above = centres.long().clamp_(max=height - 1)
        worst.append((_between(ramp[0], above, centres - above) - wanted).abs().max())
    return bool(worst[1] < worst[0])


def _between(lines: Tensor, above: Tensor, weights: Tensor) -> Tensor:
    """Rows between lines (K, few, W): row i lies weights[i] below line above[i], an ascending index. (K, rows, W)."""
    out = lines.new_empty(lines.shape[0], len(above), lines.shape[2])
    weights = weights.to(lines)[:, None]
    stop = 0
    for line, count in zip(*(part.tolist() for part in above.unique_consecutive(return_counts=True)), strict=True):
        start, stop = stop, stop + count
        upper, lower = lines[:, line, None], lines[:, min(line + 1, lines.shape[1] - 1), None]
        torch.lerp(upper, lower, weights[start:stop], out=out[:, start:stop])
    return out


class Sliding:
    """Logits of overlapping windows, averaged; a window is kept from the first to the last tile that it overlaps.

    decode: a crop (C, window, window) of the pixels to its logits (K, h, w).
    pixels: (C, H, W).
    """

    def __init__(self, decode: Callable[[Tensor], Tensor], pixels: Tensor, window: int, stride: int) -> None:
        self.decode, self.pixels = decode, pixels
        self.size = height, width = pixels.shape[-2], pixels.shape[-1]
        self.window = (min(window, height), min(window, width))
        self.tops, self.lefts = window_starts(height, window, stride), window_starts(width, window, stride)
        self.over_rows = _coverage(height, self.tops, window)
        self.over_columns = _coverage(width, self.lefts, window)
        self.alive: dict[int, list[Rows]] = {}

    def rows(self, start: int, stop: int) -> Tensor:
        """See Rows."""
        reach = self.window[0]
        self.alive = {top: line for top, line in self.alive.items() if top + reach > start}
        tile: Tensor | None = None
        for top in (top for top in self.tops if top < stop and top + reach > start):
            first, last = max(start, top), min(stop, top + reach)
            for left, source in zip(self.lefts, self._line(top), strict=True):
                logits = source.rows(first - top, last - top)
                if tile is None:
                    tile = logits.new_zeros(logits.shape[0], stop - start, self.size[1])
                tile[:, first - start : last - start, left : left + self.window[1]] += logits
        assert tile is not None  # windows leave no row out
        return tile.div_((self.over_rows[start:stop, None] * self.over_columns).to(tile))

    def _line(self, top: int) -> list[Rows]:
        if top not in self.alive:
            self.alive[top] = [Resized(WholeLogits(self.decode(crop)), self.window) for crop in self._crops(top)]
        return self.alive[top]

    def crops(self) -> Iterator[Tensor]:
        """Every window of the pixels, line by line: (C, window, window)."""
        for top in self.tops:
            yield from self._crops(top)

    def _crops(self, top: int) -> list[Tensor]:
        height, width = self.window
        return [self.pixels[:, top : top + height, left : left + width] for left in self.lefts]


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along one side, the last one moved back to end at the border."""
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(i * stride + window, length) - window, 0) for i in range(count)]


def _coverage(length: int, starts: Sequence[int], window: int) -> Tensor:
    counts = torch.zeros(length)
    for start in starts:
        counts[start : start + window] += 1
    return counts
