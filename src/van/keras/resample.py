"""Pillow's resizing as matrices: row i of a matrix says how the input's pixels make output pixel i.

Source: Pillow's documented filters, antialiased when shrinking; Keys' cubic has a = -0.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from ..errors import UnknownNameError
from ..images.preprocess import HEIGHT_FIRST

Array = numpy.ndarray

# Parts of red, green and blue in 65536 parts of gray, as Pillow mixes them.
GRAY = (19595, 38470, 7471)

# `np` is numpy, or TensorFlow's module of the same functions for sizes that only a graph knows.


def _bilinear(np: Any, x: Any) -> Any:
    return np.maximum(1 - np.abs(x), 0)


def _bicubic(np: Any, x: Any) -> Any:
    x = np.abs(x)
    inner, outer = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))


def _lanczos(np: Any, x: Any) -> Any:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


# name -> (the filter, its reach in input pixels)
FILTERS: dict[str, tuple[Callable[[Any, Any], Any], int]] = {
    "bilinear": (_bilinear, 1),
    "bicubic": (_bicubic, 2),
    "lanczos": (_lanczos, 3),
}


def matrix(before: int, after: int, first: int, count: int, interpolation: str) -> Array:
    """(count, before) float32: pixels first … first + count - 1 of a line of `before` pixels resized to `after`.

    Pixels outside the resized line are zeros, as when an image is cropped beyond its border.
    """
    at, pixels = numpy.arange(first, first + count)[:, None], numpy.arange(before)
    if interpolation == "nearest":
        steps = numpy.array([0.5 * (before / after), *[before / after] * (after - 1)])
        return nearest(numpy, at, pixels, steps, after).astype(numpy.float32)
    return weighted(numpy, at, pixels, before, after, interpolation).astype(numpy.float32)


def height_first(np: Any, before: tuple[Any, Any], after: tuple[Any, Any]) -> Any:
    """Whether the installed Pillow changes the height before the width; (height, width) each.

    It rounds to 8 bits in between, so the order shows. Found by comparing some 2,000 pairs of sizes with both orders.
    """
    lines, columns = before[0] - after[0], before[1] - after[1]
    return np.logical_and(HEIGHT_FIRST, np.logical_and(lines > 0, lines > 2 * columns))


def nearest(np: Any, at: Any, pixels: Any, steps: Any, after: Any) -> Any:
    """The matrix that takes one pixel each; steps: from each output pixel to the next, on the input's scale."""
    # added up step by step, as Pillow does: a rounding error decides where a step ends between two pixels
    places = np.floor(np.cumsum(steps))
    return (np.take(places, np.clip(at, 0, after - 1)) == pixels) & (at >= 0) & (at < after)


def weighted(np: Any, at: Any, pixels: Any, before: Any, after: Any, interpolation: str) -> Any:
    """The matrix of a filter, float64; at: (count, 1) output pixels; pixels: (before,) those of the input."""
    if interpolation not in FILTERS:
        raise UnknownNameError.of("interpolation", interpolation, ["nearest", *FILTERS])
    kernel, reach = FILTERS[interpolation]
    scale = before / after
    stretch, center = np.maximum(scale, 1.0), (at + 0.5) * scale
    start = np.maximum(np.floor(center - reach * stretch + 0.5), 0)
    end = np.minimum(np.floor(center + reach * stretch + 0.5), before)
    weights = np.where((pixels >= start) & (pixels < end), kernel(np, (pixels + 0.5 - center) / stretch), 0)
    total = np.sum(weights, axis=1, keepdims=True)
    normalised = np.where(total != 0, weights / np.where(total != 0, total, 1), 0)
    return np.where((at >= 0) & (at < after), normalised, 0)
