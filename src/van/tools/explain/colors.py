"""The colours of maps: lightness grows with the value, hue goes from blue over red to yellow.

The table is computed in Oklab, where equal steps look equally large: https://bottosson.github.io/posts/oklab/.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image

_LIGHTNESS = (0.22, 0.95)
_HUES = (275.0, 465.0)  # degrees; 105 is yellow
_MOST_CHROMA = 0.26
# Oklab to the cube roots of cone responses, and their cubes to linear sRGB.
_TO_CONES = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_TO_LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def colored(values: np.ndarray) -> Image.Image:
    """(H, W) of 0 … 1 -> an RGB picture of that size."""
    picture = Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8), "L")
    picture.putpalette(table().tobytes())
    return picture.convert("RGB")


@functools.cache
def table() -> np.ndarray:
    """(256, 3) uint8, sRGB, from the lowest value to the highest."""
    return np.array([_color(step / 255) for step in range(256)])


def _color(value: float) -> np.ndarray:
    """The most colourful sRGB colour of a value's lightness and hue."""
    lightness = _LIGHTNESS[0] + value * (_LIGHTNESS[1] - _LIGHTNESS[0])
    hue = math.radians(_HUES[0] + value * (_HUES[1] - _HUES[0]))
    chroma = next(c for c in np.linspace(_MOST_CHROMA, 0, 131) if _is_shown(_linear(lightness, c, hue)))
    linear = np.clip(_linear(lightness, chroma, hue), 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (encoded * 255).round().astype(np.uint8)


def _linear(lightness: float, chroma: float, hue: float) -> np.ndarray:
    """Linear sRGB, outside 0 … 1 where no screen shows the colour."""
    lab = np.array([lightness, chroma * math.cos(hue), chroma * math.sin(hue)])
    return np.asarray(_TO_LINEAR @ (_TO_CONES @ lab) ** 3)


def _is_shown(linear: np.ndarray) -> bool:
    return bool((linear >= -1e-6).all() and (linear <= 1 + 1e-6).all())
