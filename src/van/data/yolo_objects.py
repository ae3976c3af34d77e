"""Objects of YOLO label folders: boxes, and masks where every object is a polygon.

K objects of an image; H, W its height and width.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from ..images.label_maps import bright_palette
from ..images.preprocess import read_image, to_color
from ..images.rle import Rle, decode, from_polygons
from .object_table import ObjectTable, TableBuilder
from .objects import Categories, Objects
from .packed_segmentations import pack
from .problems import Problems
from .table_objects import TableObjects
from .yolo_labels import parse_line, read_lines
from .yolo_layout import YoloLayout, images_in, label_file


@dataclass(frozen=True, kw_only=True, eq=False)
class YoloFiles:
    """The images of some folders and what their label files say; the table's numbers are fractions of the image.

    lines: where each annotation is, (file, number of the line).
    """

    layout: YoloLayout
    images: tuple[Path, ...]
    table: ObjectTable
    lines: tuple[tuple[Path, int], ...]
    problems: Problems


def read_yolo(layout: YoloLayout, places: Sequence[Path], *, strict: bool = True) -> YoloFiles:
    """All images and labels of some folders or lists; images without a label file have no objects.

    strict: False passes over lines that cannot be used and counts them. Raises DataError for the first, where strict,
    and for no image at all.
    """
    problems, builder, lines = Problems(strict=strict), TableBuilder(), []
    images = _existing(layout, places, problems)
    labels: list[int] = []
    for image in images:
        path = label_file(image)
        for number, line in enumerate(read_lines(path), 1):
            try:
                label = parse_line(line)
            except ValueError as reason:
                problems.add("malformed", f"{path}, line {number} {reason}; mend or remove it")
                continue
            if label is None:
                continue
            if label.label >= len(layout.classes):
                known = f"{len(layout.classes)} classes, 0 … {len(layout.classes) - 1}"
                text = f"is of class {label.label}, but {layout.source} names {known}; add the class or mend the line"
                problems.add("unknown_category", f"{path}, line {number} {text}")
                continue
            labels.append(label.label)
            lines.append((path, number))
            builder.add(
                image=str(image),
                category=label.label,
                box=label.box,
                area=_area(label.polygon) if label.polygon else _side(label.box, 0) * _side(label.box, 1),
                crowd=False,
                id_=len(labels),
                packed=pack([list(label.polygon)]) if label.polygon else b"",
            )
    place_of = {str(image): place for place, image in enumerate(images)}
    places_ = np.array([place_of[str(image)] for image in builder.images], np.int64)
    table = builder.build(places_, np.array(labels, np.int64), len(images))
    return YoloFiles(layout=layout, images=tuple(images), table=table, lines=tuple(lines), problems=problems)


class YoloObjects(TableObjects):
    """The images of one split. files: images and labels of its folders; chosen: places of its images among them."""

    def __init__(
        self, files: YoloFiles, split: str, chosen: np.ndarray, *, exif: bool = True, need_masks: bool = False
    ) -> None:
        names = files.layout.classes
        self.yolo, self.exif = files, exif
        self.classes, self.palette = names, bright_palette(len(names))
        self.categories = Categories(ids=tuple(range(len(names))), names=names, things=(True,) * len(names))
        super().__init__(
            files.table,
            chosen,
            split,
            root=files.layout.root,
            source=files.layout.source,
            problems=files.problems,
            need_masks=need_masks,
        )

    def image(self, index: int) -> Image.Image:
        return to_color(read_image(self._path(index), exif=self.exif), "RGB")

    def objects(self, index: int, size: tuple[int, int]) -> Objects:
        rows = self.table.rows(int(self.chosen[index]))
        height, width = size
        return Objects(
            size=size,
            image_id=self.image_id(index),
            boxes=self.table.boxes[rows] * (width, height, width, height),
            labels=self.table.labels[rows].astype(np.int64),
            areas=self.table.areas[rows] * (width * height),
            crowd=self.table.crowd[rows],
            ids=self.table.ids[rows],
            read_masks=self._reader(rows, size) if self.has_masks else None,
        )

    def mask(self, index: int, place: int, size: tuple[int, int]) -> Rle | None:
        row = self.table.rows(int(self.chosen[index])).start + place
        return from_polygons(self._polygons(row, size), size) if self.table.holds_mask(row) else None

    def annotation(self, row: int) -> str:
        path, number = self.yolo.lines[self.table.ids[row] - 1]
        return f"{path}, line {number}"

    def name(self, index: int) -> str:
        return str(self._path(index))

    def key(self, index: int) -> str:
        return os.path.relpath(self._path(index), self.yolo.layout.root)

    def files(self, index: int) -> tuple[Path, ...]:
        image = self._path(index)
        labels = label_file(image)
        return (image, labels) if labels.exists() else (image,)

    def image_id(self, index: int) -> str:
        return Path(self.key(index)).with_suffix("").as_posix()

    def _path(self, index: int) -> Path:
        return self.yolo.images[self.chosen[index]]

    def _reader(self, rows: slice, size: tuple[int, int]) -> Callable[[], np.ndarray]:
        def read() -> np.ndarray:
            return decode(
                [from_polygons(self._polygons(row, size), size) for row in range(rows.start, rows.stop)], size
            )

        return read

    def _polygons(self, row: int, size: tuple[int, int]) -> list[list[float]]:
        """In pixels."""
        polygons = self.table.segmentation(row)
        assert isinstance(polygons, list)
        return [(np.reshape(each, (-1, 2)) * (size[1], size[0])).ravel().tolist() for each in polygons]


def _existing(layout: YoloLayout, places: Sequence[Path], problems: Problems) -> list[Path]:
    images = images_in(places, layout.source)
    if not images:
        raise DataError(f"{', '.join(map(str, places))} of {layout.source} holds no images; expected some")
    listed = any(place.is_file() for place in places)  # others were found in their folders
    missing = {path for path in images if not path.is_file()} if listed else set[Path]()
    for path in sorted(missing):
        problems.add("missing_image", f"{path}, listed for {layout.source}, does not exist; add it or remove the line")
    return [path for path in images if path not in missing]


def _area(polygon: Sequence[float]) -> float:
    """Of a polygon x, y, x, y, …, by the shoelace formula."""
    x, y = np.reshape(polygon, (-1, 2)).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _side(box: tuple[float, float, float, float], axis: int) -> float:
    return box[axis + 2] - box[axis]
