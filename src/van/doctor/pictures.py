"""Label maps with their faults as pictures: overlays, a legend, a contact sheet; PIL and numpy only.

H, W height and width; label maps hold classes, `ignore_index`, and UNKNOWN (-1) where a stored value is no class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.palettes import Color
from ..masks import overlay as paint

BACKGROUND: Color = (255, 255, 255)
INK: Color = (30, 30, 30)
# Pixels without a label are striped, so that they cannot be taken for a class of any colour.
STRIPES: tuple[Color, Color] = ((255, 255, 255), (90, 90, 90))
ALARM: tuple[Color, Color] = ((255, 0, 0), (255, 255, 0))


def overlay(
    image: Image.Image, labels: np.ndarray, palette: Sequence[Color], *, ignore_index: int = 255, opacity: float = 0.5
) -> Image.Image:
    """The image with its classes painted over it, RGB.

    labels: (H, W) of the image's size; opacity: 0 shows the image alone, 1 the colours alone.
    Pixels without a label get faint grey stripes, values that are no class red and yellow ones.
    """
    known = (labels >= 0) & (labels < len(palette))
    pixels = np.array(paint(image, np.where(known, labels, len(palette)), palette, opacity=opacity), np.float32)
    rows, columns = np.indices(labels.shape)
    stripe = (rows + columns) // max(2, min(labels.shape) // 60) % 2
    for where, colors in ((labels == ignore_index, STRIPES), (~known & (labels != ignore_index), ALARM)):
        pixels[where] += (np.asarray(colors, np.float32)[stripe[where]] - pixels[where]) * opacity
    return Image.fromarray(pixels.round().astype(np.uint8))


def legend(entries: Sequence[tuple[Color, str]], width: int) -> Image.Image:
    """Coloured boxes with their names in as many columns as fit into `width` pixels."""
    font = _font()
    line = 18
    longest = max((font.getlength(text) for _, text in entries), default=0)
    columns = max(1, int(width // (longest + 34)))
    rows = -(-len(entries) // columns)
    picture = Image.new("RGB", (width, max(rows, 1) * line + 8), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for index, (color, text) in enumerate(entries):
        x, y = index // rows * (width // columns) + 8, index % rows * line + 4
        draw.rectangle((x, y + 2, x + 14, y + 14), color, INK)
        draw.text((x + 20, y), text, INK, font)
    return picture


def contact_sheet(
    tiles: Sequence[tuple[str, Image.Image, Image.Image]],
    entries: Sequence[tuple[Color, str]],
    *,
    title: str = "",
    side: int = 192,
    columns: int = 3,
) -> Image.Image:
    """Pairs of pictures (image and overlay) with a caption each, above a legend.

    side: longest side of each picture in pixels; small ones are enlarged by whole factors, pixel by pixel.
    """
    columns = max(1, min(columns, len(tiles)))
    wide, high, top = 2 * side + 16, side + 26, 26 if title else 6
    width = columns * wide + 6
    key = legend(entries, width)
    sheet = Image.new("RGB", (width, top + -(-len(tiles) // columns) * high + key.height), BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), _font()
    draw.text((8, 5), title, INK, font)
    for index, (caption, left, right) in enumerate(tiles):
        x, y = index % columns * wide + 6, index // columns * high + top
        sheet.paste(_fit(left, side), (x, y))
        sheet.paste(_fit(right, side), (x + side + 4, y))
        draw.text((x, y + side + 3), _shorten(caption, font, 2 * side), INK, font)
    sheet.paste(key, (0, sheet.height - key.height))
    return sheet


def _fit(picture: Image.Image, side: int) -> Image.Image:
    longest = max(picture.size)
    if longest * 2 <= side:
        factor = side // longest
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    shrink = side / longest
    size = tuple(max(1, round(length * shrink)) for length in picture.size)
    return picture.resize((size[0], size[1]), Image.Resampling.LANCZOS if shrink < 1 else Image.Resampling.BICUBIC)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(13)


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """The end of a text that is too long, after an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text
