"""Label maps with their faults as pictures: overlays, a legend, a contact sheet; PIL and numpy only.

H, W height and width; label maps hold classes, `ignore_index`, and UNKNOWN (-1) where a stored value is no class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...images.label_maps import overlay as paint
from ...images.palettes import Color

BACKGROUND: Color = (255, 255, 255)
INK: Color = (30, 30, 30)
CARD: Color = (242, 244, 246)
FRAME: Color = (175, 184, 193)
GAP, INSIDE, CAPTION = 12, 6, 24  # pixels between frames, within them, and of the line above the pictures
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
    """Pairs of pictures (image and overlay), each pair in a frame of its own under its caption, above a legend.

    side: longest side of each picture in pixels; small ones are enlarged by whole factors, pixel by pixel.
    """
    columns = max(1, min(columns, len(tiles)))
    cards = [_card(*tile, side=side) for tile in tiles]
    rows = [cards[start : start + columns] for start in range(0, len(cards), columns)]
    heights = [max(card.height for card in row) + GAP for row in rows]
    top, width = 26 if title else GAP, columns * (_card_width(side) + GAP) + GAP
    key = legend(entries, width)
    sheet = Image.new("RGB", (width, top + sum(heights) + key.height), BACKGROUND)
    ImageDraw.Draw(sheet).text((GAP, 5), title, INK, _font())
    for number, row in enumerate(rows):
        for column, card in enumerate(row):
            sheet.paste(card, (GAP + column * (_card_width(side) + GAP), top + sum(heights[:number])))
    sheet.paste(key, (0, sheet.height - key.height))
    return sheet


def _card(caption: str, left: Image.Image, right: Image.Image, *, side: int) -> Image.Image:
    """Caption, and below it image and overlay side by side, all in one frame."""
    pair, font = (_fit(left, side), _fit(right, side)), _font()
    card = Image.new("RGB", (_card_width(side), CAPTION + max(each.height for each in pair) + INSIDE), CARD)
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, card.width - 1, card.height - 1), outline=FRAME)
    draw.text((INSIDE, 4), _shorten(caption, font, card.width - 2 * INSIDE), INK, font)
    for place, picture in enumerate(pair):
        card.paste(picture, (INSIDE + place * (side + INSIDE), CAPTION))
    return card


def _card_width(side: int) -> int:
    return 2 * side + 3 * INSIDE


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
