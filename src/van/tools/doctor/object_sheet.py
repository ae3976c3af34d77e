"""The doctor's contact sheet of objects and segments: trouble first, then every class, boxes and masks in colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ...errors import DataError
from ...images.palettes import Color
from ...images.rle import decode
from .contact_sheet import chosen_images
from .object_statistics import ObjectStatistics
from .objects import PANOPTIC, ObjectReader, SegmentReader, opened
from .pictures import contact_sheet
from .report import Report

OPACITY = 0.5
LEAST_SIDE = 320  # small pictures are enlarged before boxes are drawn


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
    return contact_sheet(tiles, entries, title=title)


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
    factor = max(1, -(-LEAST_SIDE // max(image.size)))
    large = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(large)
    width = max(1, max(large.size) // 160)
    for box, name, color in zip((boxes * factor).tolist(), names, colors, strict=True):
        left, top, right, bottom = box[0], box[1], max(box[2] - 1, box[0]), max(box[3] - 1, box[1])
        pen.rectangle((left, top, right, bottom), outline=color, width=width)
        pen.text((left + width + 1, top + width), name, fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0))
    return large
