"""A line of text below a picture."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from ..files import printable


def with_caption(image: Image.Image, text: str) -> Image.Image:
    """The picture, RGB, on a white board with a line of text below it; the board is as wide as both need."""
    size = max(11, min(28, image.height // 16))
    font = ImageFont.load_default(size)
    text = printable(text)
    width = max(image.width, int(font.getlength(text)) + size)
    board = Image.new("RGB", (width, image.height + 2 * size), "white")
    board.paste(image, (0, 0))
    ImageDraw.Draw(board).text((size // 2, image.height + size // 3), text, fill="black", font=font)
    return board
