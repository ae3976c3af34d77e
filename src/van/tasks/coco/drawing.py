"""Pictures of objects: masks, boxes, names; lines and letters grow with the picture.

Small images are enlarged by a whole factor, so that names can be read.

Shapes: K objects, H, W sides of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...errors import ConfigError
from ...files import printable
from ...images.label_maps import Palette, color_of
from ...images.palettes import Color

Rectangle: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom

_SMALLEST, _LARGEST = 12, 26  # of letters, pixels
_MARGIN = 2  # around letters, pixels
_READABLE = 320  # pixels of a longer side up to which images are enlarged


def draw_objects(
    image: Image.Image,
    boxes: np.ndarray,
    labels: Sequence[int],
    texts: Sequence[str],
    palette: Palette,
    *,
    masks: np.ndarray | None = None,
    opacity: float = 0.5,
    factor: float | None = None,
) -> Image.Image:
    """The image, RGB, with its objects, the first on top.

    boxes: (K, 4) corners in pixels. labels: whose colours they get. texts: what stands at each. masks: (K, H, W).
    factor: on the size of the picture; None: 1, more for small images.
    Raises ConfigError for an opacity outside [0, 1].
    """
    if not 0 <= opacity <= 1:
        raise ConfigError(f"opacity is {opacity}; expected 0 (image) to 1 (colours)")
    colors = [color_of(palette, label) for label in labels]
    factor = readable(image) if factor is None else factor
    image, boxes = scaled(image.convert("RGB"), factor), boxes * factor
    painted = image if masks is None else _with_masks(image, masks, colors, opacity)
    draw = ImageDraw.Draw(painted)
    width = line_width(image)
    for box, color in reversed(list(zip(boxes.tolist(), colors, strict=True))):
        _outline(draw, box, color, width, image.size)
    # names above all boxes; where there is no room for all, those of the surest above the others
    font, taken = ImageFont.load_default(letter_size(image)), list[Rectangle]()
    safe = [printable(text) for text in texts]
    for box, text in zip(boxes.tolist(), safe, strict=True):
        taken.append(_room(box, draw.textbbox((0, 0), text, font=font), image.size, taken))
    for place, color, text in reversed(list(zip(taken, colors, safe, strict=True))):
        draw.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=color)
        left, top, *_ = draw.textbbox((0, 0), text, font=font)
        draw.text((place[0] + _MARGIN - left, place[1] + _MARGIN - top), text, fill=on_ground(color), font=font)
    return painted


def readable(image: Image.Image) -> int:
    """The whole factor by which a small image is enlarged; 1 for others."""
    return max(1, _READABLE // max(image.size))


def scaled(image: Image.Image, factor: float) -> Image.Image:
    """A copy of another size: enlarged pixel by pixel, reduced smoothly."""
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX)


def scaled_map(numbers: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) whole numbers at the size (width, height) of a picture, none of them mixed."""
    rows, columns = ((np.arange(new) * old // new) for new, old in zip(size[::-1], numbers.shape, strict=True))
    return numbers[rows[:, None], columns]


def line_width(image: Image.Image) -> int:
    """Of the outline of a box, pixels."""
    return max(1, round(min(image.size) / 200))


def letter_size(image: Image.Image) -> int:
    """Of the name of an object, pixels."""
    return max(_SMALLEST, min(_LARGEST, min(image.size) // 26))


def _with_masks(image: Image.Image, masks: np.ndarray, colors: Sequence[Color], opacity: float) -> Image.Image:
    pixels = np.asarray(image).astype(np.float32)
    for mask, color in reversed(list(zip(masks, colors, strict=True))):
        inside = scaled_map(mask, image.size).astype(bool)
        pixels[inside] = pixels[inside] * (1 - opacity) + np.asarray(color, np.float32) * opacity
        pixels[_edge(inside)] = color
    return Image.fromarray((pixels + 0.5).clip(0, 255).astype(np.uint8))


def _edge(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask that have a neighbour outside."""
    bordered = np.pad(mask, 1)
    inner = bordered[:-2, 1:-1] & bordered[2:, 1:-1] & bordered[1:-1, :-2] & bordered[1:-1, 2:]
    return mask & ~inner


def _outline(draw: ImageDraw.ImageDraw, box: Sequence[float], color: Color, width: int, size: tuple[int, int]) -> None:
    left, top = max(0, round(box[0])), max(0, round(box[1]))
    right, bottom = min(size[0] - 1, round(box[2]) - 1), min(size[1] - 1, round(box[3]) - 1)
    draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=color, width=width)


def _room(
    box: Sequence[float], letters: Sequence[float], size: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """Where the name of a box goes: above it, inside, below, wherever no other name stands; else above it."""
    wide, high = letters[2] - letters[0] + 2 * _MARGIN, letters[3] - letters[1] + 2 * _MARGIN
    x = min(max(0, box[0]), max(0, size[0] - wide))
    places = [min(max(0, y), max(0, size[1] - high)) for y in (box[1] - high, box[1], box[3] - high, box[3])]
    rooms = [(x, y, x + wide, y + high) for y in places]
    return next((room for room in rooms if not any(_overlap(room, other) for other in taken)), rooms[0])


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def on_ground(color: Color) -> str:
    """The colour of letters that can be read on a ground: "black" or "white"."""
    red, green, blue = color
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def draw_segments(image: Image.Image, segment_ids: np.ndarray) -> Image.Image:
    """The image with a thin light line along the borders of its segments, (H, W) ids."""
    border = np.zeros(segment_ids.shape, bool)
    border[:, 1:] |= segment_ids[:, 1:] != segment_ids[:, :-1]
    border[1:] |= segment_ids[1:] != segment_ids[:-1]
    pixels = np.array(image.convert("RGB"))
    pixels[border] = 255
    return Image.fromarray(pixels)
