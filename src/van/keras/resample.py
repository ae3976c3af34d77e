"""Pillow's resizing as matrices: row i of a matrix says how the input's pixels make output pixel i.

Source: Pillow's documented filters, antialiased when shrinking; Keys' cubic has a = -0.5.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import UnknownNameError

Array = np.ndarray


def _bilinear(x: Array) -> Array:
    return np.maximum(1 - np.abs(x), 0)


def _bicubic(x: Array) -> Array:
    x = np.abs(x)
    inner, outer = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))


def _lanczos(x: Array) -> Array:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


# name -> (the filter, its reach in input pixels)
FILTERS: dict[str, tuple[Callable[[Array], Array], int]] = {
    "bilinear": (_bilinear, 1),
    "bicubic": (_bicubic, 2),
    "lanczos": (_lanczos, 3),
}


def matrix(before: int, after: int, first: int, count: int, interpolation: str) -> Array:
    """(count, before) float32: pixels first … first + count - 1 of a line of `before` pixels resized to `after`.

    Pixels outside the resized line are zeros, as when an image is cropped beyond its border.
    """
    scale = before / after
    at, pixels = np.arange(first, first + count)[:, None], np.arange(before)
    inside = (at >= 0) & (at < after)
    if interpolation == "nearest":
        # added up step by step, as Pillow does: a rounding error decides where a step ends between two pixels
        places = np.floor(np.cumsum([0.5 * scale, *[scale] * (after - 1)]))
        return ((places[np.clip(at, 0, after - 1)] == pixels) & inside).astype(np.float32)
    if interpolation not in FILTERS:
        raise UnknownNameError.of("interpolation", interpolation, ["nearest", *FILTERS])
    kernel, reach = FILTERS[interpolation]
    stretch, center = max(scale, 1.0), (at + 0.5) * scale
    start = np.maximum(np.floor(center - reach * stretch + 0.5), 0)
    end = np.minimum(np.floor(center + reach * stretch + 0.5), before)
    weights = np.where((pixels >= start) & (pixels < end), kernel((pixels + 0.5 - center) / stretch), 0)
    total = weights.sum(1, keepdims=True)
    normalised = np.divide(weights, total, out=np.zeros_like(weights), where=total != 0)
    return np.where(inside, normalised, 0).astype(np.float32)
