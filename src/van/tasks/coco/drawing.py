"""Pictures of objects: masks, boxes, names; lines and letters grow with the picture.

Shapes: K objects, H, W sides of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...errors import ConfigError
from ...files import printable
from ...images.label_maps import Palette
from ...images.palettes import Color

_SMALLEST, _LARGEST = 10, 28  # of letters, pixels


def draw_objects(
    image: Image.Image,
    boxes: np.ndarray,
    labels: Sequence[int],
    texts: Sequence[str],
    palette: Palette,
    *,
    masks: np.ndarray | None = None,
    opacity: float = 0.5,
) -> Image.Image:
    """The image, RGB, with its objects, the first on top.

    boxes: (K, 4) corners in pixels. labels: whose colours they get. texts: what stands at each. masks: (K, H, W).
    Raises ConfigError for an opacity outside [0, 1].
    """
    if not 0 <= opacity <= 1:
        raise ConfigError(f"opacity is {opacity}; expected 0 (image) to 1 (colours)")
    colors = [_color(palette, label) for label in labels]
    image = image.convert("RGB")
    painted = image.copy() if masks is None else _with_masks(image, masks, colors, opacity)
    draw = ImageDraw.Draw(painted)
    width = line_width(image)
    for box, color in reversed(list(zip(boxes.tolist(), colors, strict=True))):
        _outline(draw, box, color, width, image.size)
    # names above all boxes, those of the surest above the others'
    font, taken = ImageFont.load_default(letter_size(image)), list[tuple[float, ...]]()
    for box, color, text in zip(boxes.tolist(), colors, texts, strict=True):
        taken.append(_name(draw, box, color, printable(text), font, image.size, taken))
    return painted


def line_width(image: Image.Image) -> int:
    """Of the outline of a box, pixels."""
    return max(1, round(min(image.size) / 250))


def letter_size(image: Image.Image) -> int:
    """Of the name of an object, pixels."""
    return max(_SMALLEST, min(_LARGEST, min(image.size) // 30))


def _color(palette: Palette, label: int) -> Color:
    red, green, blue = palette[label % len(palette)]
    return red, green, blue


def _with_masks(image: Image.Image, masks: np.ndarray, colors: Sequence[Color], opacity: float) -> Image.Image:
    pixels = np.asarray(image).astype(np.float32)
    for mask, color in reversed(list(zip(masks, colors, strict=True))):
        inside = mask.astype(bool)
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


def _name(
    draw: ImageDraw.ImageDraw,
    box: Sequence[float],
    color: Color,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
    taken: Sequence[tuple[float, ...]],
) -> tuple[float, ...]:
    """Write a name on a ground of its colour, above the box where there is room; the rectangle that it takes."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    wide, high = right - left + 4, bottom - top + 4
    x = min(max(0, box[0]), max(0, size[0] - wide))
    places = [box[1] - high, box[1], box[3] - high, box[3]]
    inside = [min(max(0, y), max(0, size[1] - high)) for y in places]
    y = next((y for y in inside if not any(_overlap((x, y, x + wide, y + high), other) for other in taken)), inside[0])
    draw.rectangle((x, y, x + wide - 1, y + high - 1), fill=color)
    draw.text((x + 2 - left, y + 2 - top), text, fill=on_ground(color), font=font)
    return x, y, x + wide, y + high


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
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
