"""Resizing 8-bit pictures the way OpenCV's bilinear does, bit for bit: whole-number arithmetic, no antialiasing.

Segmenters were trained and tested on pictures resized like this. Being integers, the result is the same on every
machine, where float kernels round halves this way or that.

Shapes: H height, W width, C channels. Source: the published algorithm of OpenCV's INTER_LINEAR for 8 bits.
"""

from __future__ import annotations

import math

import numpy as np

ONE = 2048  # weights have 11 bits after the point
BAND_ROWS = 256  # rows made at once: bounds the 4-byte intermediates


def resize_bilinear(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, C) uint8 to (*size, C) uint8; size is (height, width)."""
    if pixels.shape[:2] == size:
        return pixels
    above, below, row_weights = _taps(pixels.shape[0], size[0])
    left, right, column_weights = _taps(pixels.shape[1], size[1])
    out = np.empty((*size, pixels.shape[2]), np.uint8)
    for start in range(0, size[0], BAND_ROWS):
        band = slice(start, start + BAND_ROWS)
        total = np.full(out[band].shape, 2, np.int32)
        for rows, weights in ((above, row_weights[0]), (below, row_weights[1])):
            lines = pixels[rows[band]].astype(np.int32)
            mixed = sum(
                lines[:, columns] * weight[:, None]
                for columns, weight in ((left, column_weights[0]), (right, column_weights[1]))
            )
            total += (mixed >> 4) * weights[band, None, None] >> 16
        out[band] = total >> 2
    return out


def _taps(length: int, new_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two source positions per target position, and their weights, (2, new_length) in units of 1 / ONE."""
    centres = ((np.arange(new_length) + 0.5) * (length / new_length) - 0.5).astype(np.float32)
    first = np.floor(centres).astype(np.int64)
    second_weight = centres - first.astype(np.float32)
    weights = np.rint(np.stack([1 - second_weight, second_weight]) * np.float32(ONE)).astype(np.int32)
    return first.clip(0, length - 1), (first + 1).clip(0, length - 1), weights


def fit_within(height: int, width: int, long: int, short: int) -> tuple[int, int]:
    """(H, W) of a picture scaled, its shape kept, to the longest and shortest side that fit both limits."""
    factor = min(long / max(height, width), short / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def round_up(size: tuple[int, int], divisor: int) -> tuple[int, int]:
    """(H, W), each rounded up to a multiple of the divisor."""
    height, width = (math.ceil(side / divisor) * divisor for side in size)
    return height, width
