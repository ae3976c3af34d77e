"""Label maps as files: index PNG, colour overlay with legend, raw arrays, and the folders that benchmarks ask for.

Palettes come from the data set; `default_palette` is for those that have none. PIL and numpy only; every file is
written under a temporary name and renamed.

Shapes: H height, W width, K classes.
"""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import ConfigError, DataError, UnknownNameError
from ..files import atomic_output, printable

Colour = tuple[int, int, int]
Palette = Sequence[Colour]

# Cityscapes' evaluation server expects label ids; the network's 19 classes are train ids.
CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

# What each value of `submission` does to a label map, so that a folder of the PNGs can be handed in.
SUBMISSIONS: dict[str, str] = {
    "index": "class numbers from 0, as predicted",
    "ade20k": "class numbers from 1: ADE20K keeps 0 for unlabelled (reduce_zero_label)",
    "cityscapes": "Cityscapes label ids instead of the 19 train ids",
}


def default_palette(num_classes: int) -> tuple[Colour, ...]:
    """Colours that stay apart for any number of classes: the PASCAL VOC map (black first), bits spread over RGB."""
    colours = []
    for index in range(num_classes):
        channels = [0, 0, 0]
        for bit in range(24):
            channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        colours.append((channels[0], channels[1], channels[2]))
    return tuple(colours)


def bright_palette(count: int) -> tuple[Colour, ...]:
    """Colours for lines and names over photographs, without dark ones: hues a golden section apart."""
    colours = []
    for index in range(count):
        shade = (1.0, 0.8, 0.9)[index % 3]
        red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, (0.9, 0.65)[index % 2], shade)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return tuple(colours)


def save_index(path: str | Path, mask: np.ndarray, palette: Palette | None = None) -> None:
    """Write class numbers (H, W) as a PNG: palette colours up to 256 classes, 16-bit grey beyond.

    Raises DataError for values that a PNG cannot hold.
    """
    _save_png(path, _coloured(_index_image(mask), palette))


def index_base64(mask: np.ndarray, palette: Palette | None = None) -> str:
    """The PNG that `save_index` writes as base64 text, for JSON; raises what it raises."""
    file = io.BytesIO()
    _coloured(_index_image(mask), palette).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def _coloured(image: Image.Image, palette: Palette | None) -> Image.Image:
    """An image of class numbers, with the palette's colours where its mode can have them."""
    if palette is not None and image.mode == "L":
        colours = np.zeros((256, 3), np.uint8)  # all of them: PIL packs a shorter palette's pixels into fewer bits
        colours[: len(palette)] = np.asarray(palette, np.uint8)[:256]
        image.putpalette(colours.tobytes())  # turns the mode into "P"
    return image


def color_of(palette: Palette, index: int) -> Colour:
    """The colour of a class; a palette that is too short begins again."""
    red, green, blue = palette[index % len(palette)]
    return int(red), int(green), int(blue)


def colorize(mask: np.ndarray, palette: Palette) -> np.ndarray:
    """(H, W) class numbers to (H, W, 3) uint8 colours; values outside the palette (ignored ones) are black."""
    table = np.zeros((max(256, len(palette), int(mask.max(initial=0)) + 1), 3), np.uint8)
    table[: len(palette)] = np.asarray(palette, np.uint8)
    return table[mask]


def overlay(
    image: Image.Image,
    mask: np.ndarray,
    palette: Palette,
    *,
    opacity: float = 0.5,
    classes: Sequence[str] | None = None,
) -> Image.Image:
    """The picture with its classes painted over it, RGB; pixels outside the palette keep the picture's colour.

    opacity: 0 shows the picture alone, 1 the colours alone.
    classes: names for a legend to the right, of the classes present, largest first; None: no legend.
    Raises ConfigError for an opacity outside [0, 1], DataError when picture and mask differ in size.
    """
    if not 0 <= opacity <= 1:
        raise ConfigError(f"opacity is {opacity}; expected 0 (image) to 1 (colours)")
    if mask.shape != (image.height, image.width):
        raise DataError(f"the image has {image.height} x {image.width} pixels, the mask {mask.shape}")
    picture = np.asarray(image.convert("RGB"))
    weight = np.where(mask < len(palette), np.float32(opacity), np.float32(0))[..., None]
    mixed = picture * (1 - weight) + colorize(mask, palette) * weight
    painted = Image.fromarray((mixed + 0.5).astype(np.uint8))
    return painted if classes is None else with_legend(painted, mask, palette, classes)


def with_legend(image: Image.Image, mask: np.ndarray, palette: Palette, classes: Sequence[str]) -> Image.Image:
    """The picture with a column of colour, name and share of the pixels at its right, for the classes in the mask.

    The column is as tall as the picture; classes that do not fit are counted in its last line.
    """
    values, counts = np.unique(mask, return_counts=True)
    present = sorted((-int(n), int(v)) for v, n in zip(values, counts, strict=True) if v < len(classes))
    lines: list[tuple[Colour | None, str]] = [
        (palette[v], f"{printable(classes[v])}  {-n / mask.size:.1%}") for n, v in present
    ]
    size = max(11, min(28, image.height // 32))
    step, room = size + size // 2, max(1, (image.height - size) // (size + size // 2))
    if len(lines) > room:
        lines = [*lines[: room - 1], (None, f"and {len(lines) - room + 1} more")]
    font = ImageFont.load_default(size)
    width = int(max((font.getlength(text) for _, text in lines), default=0)) + 4 * size
    board = Image.new("RGB", (image.width + width, image.height), "white")
    board.paste(image, (0, 0))
    draw = ImageDraw.Draw(board)
    for i, (colour, text) in enumerate(lines):
        left, top = image.width + size, size // 2 + i * step
        if colour is not None:
            draw.rectangle((left, top, left + size, top + size), fill=tuple(colour), outline="black")
        draw.text((left + 2 * size, top), text, fill="black", font=font)
    return board


def save_overlay(path: str | Path, picture: Image.Image) -> None:
    """Write an overlay as PNG."""
    _save_png(path, picture)


def save_raw(path: str | Path, masks: np.ndarray | Mapping[str, np.ndarray]) -> None:
    """Write raw class numbers: one (H, W) array as .npy, or several by name as compressed .npz.

    Raises ConfigError when the suffix does not fit.
    """
    path = Path(path)
    single = isinstance(masks, np.ndarray)
    expected = ".npy" if single else ".npz"
    if path.suffix != expected:
        raise ConfigError(f"{path} would hold {'one array' if single else 'several arrays'}; name it *{expected}")
    if isinstance(masks, np.ndarray):
        array = masks
        _replace(path, lambda file: np.save(file, array))
    else:
        named = dict(masks)
        _replace(path, lambda file: np.savez_compressed(file, **named))  # type: ignore[arg-type]


def save_submission(folder: str | Path, name: str, mask: np.ndarray, layout: str) -> Path:
    """Write `<folder>/<stem of name>.png` as a benchmark's server expects it; layout: a key of SUBMISSIONS.

    Returns the path. Raises UnknownNameError for an unknown layout, DataError for class numbers it has no value for.
    """
    path = Path(folder) / f"{Path(name).stem}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    _save_png(path, _index_image(submission_values(mask, layout)))
    return path


def submission_values(mask: np.ndarray, layout: str) -> np.ndarray:
    """(H, W) class numbers as the values that a benchmark's files hold; see `save_submission`."""
    if layout not in SUBMISSIONS:
        raise UnknownNameError.of("submission layout", layout, SUBMISSIONS)
    if layout == "ade20k":
        return mask.astype(np.int64) + 1
    if layout == "cityscapes":
        if mask.max(initial=0) >= len(CITYSCAPES_LABEL_IDS):
            raise DataError(f"the mask holds class {mask.max()}; Cityscapes has train ids 0 to 18")
        return np.asarray(CITYSCAPES_LABEL_IDS, np.uint8)[mask]
    return mask


def _index_image(mask: np.ndarray) -> Image.Image:
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer):
        raise DataError(
            f"a mask of shape {mask.shape} and type {mask.dtype} is not a label map; expected (H, W) integers"
        )
    low, high = int(mask.min(initial=0)), int(mask.max(initial=0))
    if low < 0 or high > 65535:
        raise DataError(f"the mask holds values {low} to {high}; a PNG holds 0 to 65535")
    return Image.fromarray(mask.astype(np.uint8 if high < 256 else np.uint16))


def _save_png(path: str | Path, image: Image.Image) -> None:
    _replace(Path(path), lambda file: image.save(file, format="PNG"))


def _replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(path, error=None) as temporary, temporary.open("wb") as file:
        write(file)
