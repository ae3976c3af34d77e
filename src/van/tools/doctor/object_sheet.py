"""The doctor's contact sheet of objects and segments: trouble first, then every class, boxes and masks in colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...errors import DataError
from ...files import printable
from ...images.palettes import Color
from ...images.rle import decode
from .contact_sheet import chosen_images
from .object_statistics import ObjectStatistics
from .objects import PANOPTIC, ObjectReader, SegmentReader, opened
from .pictures import contact_sheet
from .report import Report

OPACITY = 0.5
SIDE = 320  # of the pictures on the sheet, in pixels; boxes and names are drawn at this size


def draw(report: Report[ObjectStatistics], split: str | None = None) -> Image.Image:
    """A contact sheet with a legend: troubled images first, then such that every class is shown.

    split: the first of the report's by default.
    """
    split = split or next(iter(report.splits))
    statistics = report.splits[split]
    panoptic = statistics.what == "segments"
    reader = opened(report.data, split, panoptic=panoptic)
    data, tiles, shown = reader.data, [], set[int]()
    for index in chosen_images(statistics):
        try:
            image = data.image(index)
            painted, labels = (
                _segments(reader, index, image) if isinstance(reader, SegmentReader) else _objects(reader, index, image)
            )
        except DataError:
            continue
        tiles.append((Path(data.name(index)).name, image, painted))
        shown |= labels
    entries = [(data.palette[label], f"{data.classes[label]}  {statistics.counts[label]}") for label in sorted(shown)]
    part = split.removeprefix(PANOPTIC)
    title = f"{report.data}  {part}  {statistics.total} images, {statistics.total_count} {statistics.what} in all"
    return contact_sheet(tiles, entries, title=title, side=SIDE)


def _objects(reader: ObjectReader, index: int, image: Image.Image) -> tuple[Image.Image, set[int]]:
    """Masks in the colours of their classes, and boxes with names."""
    data = reader.data
    objects = data.objects(index, (image.height, image.width))
    pixels = np.asarray(image, np.float32)
    for place, label in enumerate(objects.labels.tolist()):
        try:
            mask = data.mask(index, place, objects.size)
        except DataError:
            continue
        if mask is not None:
            pixels = _painted(pixels, decode([mask], objects.size)[0] == 1, data.palette[label])
    labels = [data.classes[label] for label in objects.labels]
    colors = [data.palette[label] for label in objects.labels]
    return _boxes(_image(pixels), objects.boxes, labels, colors), set(objects.labels.tolist())


def _segments(reader: SegmentReader, index: int, image: Image.Image) -> tuple[Image.Image, set[int]]:
    """Segments in the colours of their classes, with white borders between them; void stays as it is."""
    data, map_ = reader.data, reader.data.segment_ids(index)
    if map_.shape != (image.height, image.width):
        raise DataError("another size than its image")
    pixels, segments = np.asarray(image, np.float32), data.records(index)
    for each in segments:
        pixels = _painted(pixels, map_ == each.id, data.palette[each.label])
    border = np.zeros(map_.shape, bool)
    border[:-1] |= map_[:-1] != map_[1:]
    border[:, :-1] |= map_[:, :-1] != map_[:, 1:]
    pixels[border] = 255
    return _image(pixels), {each.label for each in segments}


def _painted(pixels: np.ndarray, where: np.ndarray, color: Color) -> np.ndarray:
    mixed = pixels.copy()
    mixed[where] += (np.asarray(color, np.float32) - mixed[where]) * OPACITY
    return mixed


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.round().astype(np.uint8))


def _boxes(image: Image.Image, boxes: np.ndarray, names: Sequence[str], colors: Sequence[Color]) -> Image.Image:
    factor = SIDE / max(image.size)
    size = tuple(max(1, round(length * factor)) for length in image.size)
    method = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    large = image.resize((size[0], size[1]), method)
    pen, font = ImageDraw.Draw(large), ImageFont.load_default(12)
    for box, name, color in zip((boxes * factor).tolist(), names, colors, strict=True):
        left, top, right, bottom = box[0], box[1], max(box[2] - 1, box[0]), max(box[3] - 1, box[1])
        pen.rectangle((left, top, right, bottom), outline=color, width=2)
        white, black = (255, 255, 255), (0, 0, 0)
        pen.text((left + 4, top + 2), printable(name), fill=white, font=font, stroke_width=1, stroke_fill=black)
    return large
