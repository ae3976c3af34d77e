"""How an image becomes the array a network was evaluated with: one record, one executor, PIL and numpy only.

Evaluation, Predictor, service and calibration all go through `Preprocess.__call__`, so their pixels are bit-equal.

Shapes: C channels (1 or 3), H height, W width.
"""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL
from PIL import Image, ImageOps

from ..errors import ConfigError, DataError, UnknownNameError, UnknownOptionError
from ..files import why_no_file

INTERPOLATIONS: dict[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# What the suffixes of data/folder.py promise; PIL would also run Ghostscript for PostScript, by content.
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
RESIZES = ("shortest", "squash")

# Since then Pillow changes a picture's height before its width where that loses many more lines.
HEIGHT_FIRST = int(PIL.__version__.split(".")[0]) >= 13

MOST = 1e6  # beyond which mean and std, on the 0 … 1 scale, are no statistics
# A 1 x 100,000 strip would be enlarged to gigabytes; no photograph comes near this after resizing.
MAX_RESIZED_PIXELS = 2**27


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """The evaluation transform that belongs to a weight; calling it turns a PIL image into (C, H, W) float32.

    Fields are checked on construction; impossible ones raise ConfigError.

    size: (H, W) of the result in pixels; one number means a square.
    crop_pct: share of the resized image that the centre crop keeps, in (0, 1]; not used by "squash".
    interpolation: a key of INTERPOLATIONS (antialiased when shrinking, as PIL does).
    mean, std: per channel, on the 0 … 1 scale; one entry makes a gray pipeline ("L"), three an "RGB" one.
    resize: "shortest" (short side to floor(size / crop_pct), then centre crop) or "squash" (warp straight to size).
    Source: facts of the official validation script (timm's evaluation transform), reproduced pixel for pixel.
    """

    size: tuple[int, int] = (224, 224)
    crop_pct: float = 0.9
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    resize: str = "shortest"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _size(self.size))
        for name in ("mean", "std"):
            object.__setattr__(self, name, _floats(name, getattr(self, name)))
        object.__setattr__(self, "crop_pct", _float("crop_pct", self.crop_pct))
        _check(self)

    @property
    def channels(self) -> int:
        """Channels of the result: 1 or 3."""
        return len(self.mean)

    @property
    def color(self) -> str:
        """PIL mode that images are converted to: "RGB" or "L"."""
        return "L" if self.channels == 1 else "RGB"

    def __call__(self, image: Image.Image) -> np.ndarray:
        """PIL image of any mode and size -> float32 (C, H, W); raises DataError for an image that cannot be used."""
        pixels = np.array(self.crop(image), dtype=np.float32)  # (H, W) or (H, W, C), 0 … 255
        pixels = pixels.reshape(*self.size, self.channels)
        pixels /= np.float32(255)
        pixels -= np.asarray(self.mean, np.float32)
        pixels /= np.asarray(self.std, np.float32)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def crop(self, image: Image.Image) -> Image.Image:
        """What the network gets to see, before normalisation: `image` converted, resized and centre-cropped."""
        image = to_color(image, self.color)
        image = image.resize(resized(self, *image.size), INTERPOLATIONS[self.interpolation])
        (height, width), left_over = self.size, (image.width - self.size[1], image.height - self.size[0])
        # Python's round is to even, as in torchvision's centre crop
        left, top = (round(pixels / 2) for pixels in left_over)
        return image.crop((left, top, left + width, top + height))

    def crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of what `crop` leaves of an image, in its own pixels."""
        across, down = resized(self, width, height)
        left, top = round((across - self.size[1]) / 2), round((down - self.size[0]) / 2)  # as in `crop`
        scale_x, scale_y = width / across, height / down
        right, bottom = left + self.size[1], top + self.size[0]
        return left * scale_x, top * scale_y, right * scale_x, bottom * scale_y

    def with_overrides(self, **overrides: Any) -> Preprocess:
        """A copy with fields replaced; None keeps a field, an unknown field raises UnknownNameError."""
        _known_fields(overrides)
        return replace(self, **{name: value for name, value in overrides.items() if value is not None})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready dict of every field."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Inverse of `to_dict`; an unknown key raises UnknownNameError."""
        _known_fields(values)
        return cls(**values)


def resized(record: Preprocess, w: int, h: int) -> tuple[int, int]:
    """(width, height) that an image of w x h pixels is resized to before it is cropped.

    Raises DataError where that would be gigabytes.
    """
    height, width = record.size
    if record.resize == "squash":
        return width, height
    short = math.floor(height / record.crop_pct)
    if height == width:
        long = int(short * max(w, h) / min(w, h))
        new_w, new_h = (short, long) if w <= h else (long, short)
    else:
        ratio = min(h / math.floor(height / record.crop_pct), w / math.floor(width / record.crop_pct))
        new_w, new_h = round(w / ratio), round(h / ratio)
    if new_w * new_h > MAX_RESIZED_PIXELS:
        raise DataError(
            f"an image of {w} x {h} pixels would be resized to {new_w} x {new_h}; crop it, or use resize='squash'"
        )
    return new_w, new_h


def lineage_22k(size: int) -> Preprocess:
    """The 22K code's evaluation transform: ImageNet statistics, and a plain warp at 384 pixels and above."""
    return IMAGENET.with_overrides(size=size, resize="squash" if size >= 384 else None)


def read_image(source: str | Path | IO[bytes], *, exif: bool = True) -> Image.Image:
    """The first frame of an image file, decoded, in its own mode; raises DataError that names the path.

    source: a path, or an open file. Of the formats that PIL knows, only IMAGE_FORMATS are opened, by content.
    exif: turned and mirrored as its EXIF orientation says, as people see it; False: pixels as stored, as published
    protocols had them. TIFF and AVIF are turned by their decoders in both cases.
    """
    path = source if isinstance(source, str | Path) else None
    if path is not None and (reason := why_no_file(path)):
        raise DataError(
            f"no such image: {path}"
            if reason == "does not exist"
            else f"{str(path)!r} {reason}; expected an image file"
        )
    try:
        with Image.open(source, formats=_formats()) as image:
            image.load()
            return upright(image) if exif else image.copy()
    # PIL's decoders raise whatever a broken file makes them raise, SyntaxError and struct.error included
    except Exception as error:
        name = "the image" if path is None else path
        raise DataError(f"{name} cannot be read as an image: {' '.join(str(error).split())[:300]}") from error


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of IMAGE_FORMATS that this PIL was built with."""
    Image.init()
    return tuple(name for name in IMAGE_FORMATS if name in Image.OPEN)


_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) as stored, without decoding; (0, 0) for what is no image, of which `read_image` says more."""
    try:
        with Image.open(path, formats=_formats()) as image:
            return image.size
    except Exception:  # as in read_image
        return 0, 0


def declared_pixels(content: bytes) -> int | None:
    """Pixels that the header of an image file declares, however many, without decoding it; None for no image.

    Of a TIFF also those of one tile, which a decoder has to hold: a tile can be larger than its image.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            tags = getattr(image, "tag_v2", {})  # of TIFF
            sides = [tags.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
            tile = sides[0] * sides[1] if all(isinstance(side, int) for side in sides) else 0
            return max(image.width * image.height, tile)
    except Image.DecompressionBombError as error:  # PIL goes no further than the number
        found = re.search(r"\((\d+) pixels\)", str(error))
        return int(found[1]) if found else 2 * (Image.MAX_IMAGE_PIXELS or 0) + 1
    except Exception:  # as in read_image
        return None


def upright(image: Image.Image) -> Image.Image:
    """A copy, turned and mirrored as the image's EXIF orientation says; as it is where that is damaged or missing."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # of a block that PIL cannot parse: the pixels are none the worse
        return image.copy()


def to_color(image: Image.Image, color: str) -> Image.Image:
    """`image` as 8-bit "RGB" or "L", by PIL's own conversion, which the official evaluation uses.

    Transparency is dropped (the colours below it show), CMYK is converted without a colour profile, and 16-bit images
    keep their upper 8 bits: PIL would turn nearly all of them white.
    Raises DataError for modes without a conversion (LAB to gray), empty images, and NaN or infinite pixels.
    """
    if min(image.size) == 0:
        raise DataError(f"the image has {image.width} x {image.height} pixels; expected at least 1 x 1")
    if image.mode == color:
        return image
    if image.mode == "F" and not np.isfinite(np.asarray(image)).all():
        raise DataError("the image holds NaN or infinite pixels; expected numbers")
    if image.mode.startswith("I"):
        sixteen_bits = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray((sixteen_bits >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours, without PIL's warning
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    try:
        return image.convert(color)
    except ValueError as error:
        raise DataError(f"an image of PIL mode {image.mode!r} cannot be used; convert it to RGB ({error})") from error


def _size(value: Any) -> tuple[int, int]:
    sides = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, list | tuple) else ()
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in sides)
    if len(sides) != 2 or not whole:
        raise ConfigError(f"size is {value!r:.80}; expected pixels as one whole number or (height, width), e.g. 224")
    return sides[0], sides[1]


def _float(name: str, value: Any) -> float:
    try:
        if isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # a whole number beyond any float
        pass
    raise ConfigError(f"{name} is {value!r:.80}; expected a finite number")


def _floats(name: str, values: Any) -> tuple[float, ...]:
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        raise ConfigError(f"{name} is {values!r:.80}; expected one number per channel, e.g. (0.5, 0.5, 0.5)")
    return tuple(_float(name, value) for value in values)


def _check(p: Preprocess) -> None:
    if not 0 < p.crop_pct <= 1:
        raise ConfigError(f"crop_pct is {p.crop_pct}; expected a share in (0, 1], e.g. 0.9")
    if max(p.size) > MAX_RESIZED_PIXELS or p.size[0] * p.size[1] > MAX_RESIZED_PIXELS * p.crop_pct**2:
        raise ConfigError(f"size is {p.size}, crop_pct {p.crop_pct:g}: an image would be resized to gigabytes")
    if p.interpolation not in tuple(INTERPOLATIONS):
        raise UnknownNameError.of("interpolation", str(p.interpolation), INTERPOLATIONS)
    if p.resize not in RESIZES:
        raise UnknownNameError.of("resize", str(p.resize), RESIZES)
    if len(p.mean) != len(p.std) or len(p.mean) not in (1, 3):
        raise ConfigError(f"mean is {p.mean}, std is {p.std}; expected three entries each (RGB) or one each (gray)")
    if min(p.std) <= 0:
        raise ConfigError(f"std is {p.std}; every entry must be positive")
    if max(map(abs, p.mean)) > MOST or not all(1 / MOST <= each <= MOST for each in p.std):
        raise ConfigError(f"mean is {p.mean}, std is {p.std}; on the 0 … 1 scale no image has such statistics")


def _known_fields(values: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(Preprocess)]
    for name in values:
        if name not in known:
            raise UnknownOptionError.of("preprocessing option", name, known)


# Official B0–B3, and everything this package trains.
OFFICIAL = Preprocess()
# The hub's processor files, and the 22K lineage at 224.
IMAGENET = Preprocess(crop_pct=0.875, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# By the names that configurations know (`ModelConfig.statistics`).
RECORDS = {"official": OFFICIAL, "imagenet": IMAGENET}
