"""A COCO file of objects: images, categories and annotations, read once and checked record by record.

N images, K classes, n annotations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard
from weakref import WeakValueDictionary

import numpy as np

from ..errors import DataError
from ..images.label_maps import bright_palette
from ..images.palettes import Color
from .json_stream import read_lists
from .object_table import ObjectTable, TableBuilder
from .objects import Categories
from .packed_segmentations import pack
from .problems import Problems

_EXPECTED = "an object with the lists images, annotations and categories, as COCO's instances_*.json"
_LARGEST_ID = 2**63 - 1
_LARGEST_NUMBER = 2**40


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageRecords:
    """The images of a file. ids, names: (N,); sizes: (N, 2) int32, height and width, 0 where the file has none."""

    ids: tuple[int | str, ...]
    names: tuple[str, ...]
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def places(self) -> dict[int | str, int]:
        """Id -> place in the lists."""
        return {id_: place for place, id_ in enumerate(self.ids)}


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoFile:
    """What a file of objects holds. palette: a colour per class; problems: what was passed over."""

    path: Path
    images: ImageRecords
    categories: Categories
    palette: tuple[Color, ...]
    table: ObjectTable
    problems: Problems


_IN_USE: WeakValueDictionary[tuple[str | int | bool, ...], CocoFile] = WeakValueDictionary()


def read_coco(path: Path, *, strict: bool = True) -> CocoFile:
    """Classes in the order of their category ids, images in the order of the file.

    A file that is in use already, as of the other split, is not read again.
    strict: False passes over records that cannot be used and counts them. Raises DataError for a file that is no such
    JSON, whose categories contradict each other, or, where strict, with a record that cannot be used.
    """
    key = (str(path.absolute()), *file_state(path), strict)
    if (file := _IN_USE.get(key)) is None:
        file = _IN_USE[key] = _read(path, strict)
    return file


def file_state(path: Path) -> tuple[int, int]:
    """Size and time of the last change; zeros for a file that is not there."""
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns


def _read(path: Path, strict: bool) -> CocoFile:
    problems, builder = Problems(strict=strict), TableBuilder()
    images, categories = ImageReader(path, problems), CategoryReader(path)

    def take(place: int, record: object) -> None:
        try:
            _add(builder, record)
        except ValueError as reason:
            named = f"annotation {record['id']!r:.40}" if isinstance(record, dict) and "id" in record else "annotation"
            problems.add("malformed", f"{path}: {named} (number {place + 1} in the file) {reason}; mend or remove it")

    found = read_lists(
        path, {"images": images.add, "categories": categories.add, "annotations": take}, expected=_EXPECTED
    )
    check_keys(path, found, ("images", "annotations", "categories"), _EXPECTED)
    records = images.records()
    known, palette = categories.finish(things_first=False)
    table = _table(path, builder, records, known, problems)
    return CocoFile(path=path, images=records, categories=known, palette=palette, table=table, problems=problems)


def check_keys(path: Path, found: set[str], needed: Sequence[str], expected: str) -> None:
    """Raises DataError where a key of the top level is missing."""
    if missing := [key for key in needed if key not in found]:
        raise DataError(f"{path} has no {' and no '.join(map(repr, missing))}; expected {expected}")


class ImageReader:
    """Takes the records of images."""

    def __init__(self, path: Path, problems: Problems) -> None:
        self.path, self.problems = path, problems
        self.names: dict[int | str, str] = {}
        self.sizes: list[tuple[int, int]] = []

    def add(self, place: int, record: object) -> None:
        """One record; a malformed one, or one whose id is taken, is a problem."""
        try:
            id_, name, size = _image(record)
        except ValueError as reason:
            self.problems.add("malformed", f"{self.path}: image number {place + 1} {reason}; mend or remove it")
            return
        if id_ in self.names:
            text = f"image id {id_!r} is given to {self.names[id_]} and to {name}; ids must be unique"
            self.problems.add("duplicate_image", f"{self.path}: {text}")
            return
        self.names[id_] = name
        self.sizes.append(size)

    def records(self) -> ImageRecords:
        """All that were taken; raises DataError for none."""
        if not self.names:
            raise DataError(f"{self.path} lists no images; expected at least one")
        sizes = np.array(self.sizes, np.int32).reshape(-1, 2)
        return ImageRecords(ids=tuple(self.names), names=tuple(self.names.values()), sizes=sizes)


class CategoryReader:
    """Takes the records of categories; raises DataError for one that cannot be used: all labels depend on them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[int, tuple[str, bool, Color | None]] = {}

    def add(self, place: int, record: object) -> None:
        """One record."""
        entry = record if isinstance(record, dict) else {}
        id_, name = entry.get("id"), entry.get("name")
        if not is_whole(id_) or not isinstance(name, str) or not name:
            raise DataError(
                f'{self.path}: category number {place + 1} is {record!r:.80}; expected {{"id": 1, "name": "cat", …}}'
            )
        if id_ in self.found:
            raise DataError(
                f"{self.path}: category id {id_} is {self.found[id_][0]!r} and {name!r}; ids must be unique"
            )
        self.found[id_] = name, bool(entry.get("isthing", 1)), _color(entry.get("color"))

    def finish(self, *, things_first: bool) -> tuple[Categories, tuple[Color, ...]]:
        """Categories by id, of panoptic data things before stuff, and the palette; raises DataError for none."""
        names = Counter(name for name, _, _ in self.found.values())
        if not names:
            raise DataError(f"{self.path} lists no categories; expected at least one")
        if twice := [name for name, count in names.items() if count > 1]:
            raise DataError(f"{self.path} has several categories called {twice[0]!r}; give each a name of its own")
        ids = sorted(self.found, key=lambda id_: (things_first and not self.found[id_][1], id_))
        rows = [self.found[id_] for id_ in ids]
        colors = [color for _, _, color in rows if color is not None]
        palette = tuple(colors) if len(colors) == len(rows) else bright_palette(len(rows))
        things = tuple(thing or not things_first for _, thing, _ in rows)
        return Categories(ids=tuple(ids), names=tuple(name for name, _, _ in rows), things=things), palette


def _image(record: object) -> tuple[int | str, str, tuple[int, int]]:
    """Id, file name, (height, width); raises ValueError with what is wrong."""
    if not isinstance(record, dict):
        raise ValueError(f"is {record!r:.60}; expected an object with id, file_name, width and height")
    id_, name = record.get("id"), record.get("file_name")
    if not is_id(id_):
        raise ValueError(f"has id {id_!r:.40}; expected a number")
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise ValueError(f"(id {id_!r:.40}) has file_name {name!r:.40}; expected the name of its file")
    sides = record.get("height", 0), record.get("width", 0)
    if not all(is_number(side) and 0 <= side < 2**31 for side in sides):
        raise ValueError(f"({name}) has height {sides[0]!r:.20} and width {sides[1]!r:.20}; expected pixels")
    return id_, name, (int(sides[0]), int(sides[1]))


def _add(builder: TableBuilder, record: object) -> None:
    """One annotation; raises ValueError with what is wrong."""
    if not isinstance(record, dict):
        raise ValueError(f"is {record!r:.60}; expected an object")
    id_, image, category, box = record.get("id"), record.get("image_id"), record.get("category_id"), record.get("bbox")
    if not is_whole(id_):
        raise ValueError(f"has id {id_!r:.40}; expected a whole number")
    if not is_id(image):
        raise ValueError(f"has image_id {image!r:.40}; expected the id of an image")
    if not is_whole(category):
        raise ValueError(f"has category_id {category!r:.40}; expected the id of a category")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)) or min(box[2:]) < 0:
        raise ValueError(f"has bbox {box!r:.80}; expected [x, y, width, height] in pixels")
    crowd, area = record.get("iscrowd", 0), record.get("area")
    if crowd not in (0, 1, None):
        raise ValueError(f"has iscrowd {crowd!r:.40}; expected 0 or 1")
    if area is not None and (not is_number(area) or area < 0):
        raise ValueError(f"has area {area!r:.40}; expected pixels")
    x, y, width, height = box
    builder.add(
        image=image,
        category=category,
        box=(x, y, x + width, y + height),
        area=width * height if area is None else area,
        crowd=bool(crowd),
        id_=id_,
        packed=pack(record.get("segmentation")),
    )


def _table(
    path: Path, builder: TableBuilder, images: ImageRecords, categories: Categories, problems: Problems
) -> ObjectTable:
    """Annotations by image and class; naming no image or no category, sharing an id, lying outside are problems."""
    place_of, label_of = images.places(), {id_: label for label, id_ in enumerate(categories.ids)}
    places = np.fromiter((place_of.get(image, -1) for image in builder.images), np.int64, len(builder))
    labels = np.fromiter((label_of.get(category, -1) for category in builder.categories), np.int64, len(builder))
    for row in np.flatnonzero(labels < 0).tolist():
        known = f"{len(label_of)} categories, {min(label_of)} … {max(label_of)}"
        text = f"annotation {builder.ids[row]} has category_id {builder.categories[row]}, which is none of the {known}"
        problems.add("unknown_category", f"{path}: {text}; add the category or remove the annotation")
    for row in np.flatnonzero(places < 0).tolist():
        text = f"annotation {builder.ids[row]} has image_id {builder.images[row]!r}, which no image has"
        problems.add("unknown_image", f"{path}: {text}; add the image or remove the annotation")
    values, counts = np.unique(np.asarray(builder.ids, np.int64), return_counts=True)
    for id_, count in zip(values[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True):
        problems.add("duplicate_id", f"{path}: {count} annotations have the id {id_}; number them one by one")
    table = builder.build(places, labels, len(images))
    _check_inside(path, table, images, problems)
    return table


def _check_inside(path: Path, table: ObjectTable, images: ImageRecords, problems: Problems) -> None:
    """A box of which nothing is in its image is a problem."""
    image = np.repeat(np.arange(len(images)), np.diff(table.starts))
    height, width = images.sizes[image].T
    left, top, right, bottom = table.boxes.T
    outside = (left >= width) | (top >= height) | (right <= 0) & (left < 0) | (bottom <= 0) & (top < 0)
    for row in np.flatnonzero(outside & (width > 0) & (height > 0)).tolist():
        x, y, r, b = table.boxes[row].tolist()
        problems.add(
            "outside",
            f"{path}: annotation {table.ids[row]} has the bbox {[x, y, r - x, b - y]} outside its image, "
            f"{images.names[image[row]]} of {width[row]} x {height[row]} (width x height); mend or remove it",
        )


def _color(value: object) -> Color | None:
    if isinstance(value, list) and len(value) == 3 and all(type(each) is int and 0 <= each <= 255 for each in value):
        return value[0], value[1], value[2]
    return None


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value of a file is a whole number, as an id is."""
    return type(value) is int and abs(value) <= _LARGEST_ID


def is_id(value: object) -> TypeGuard[int | str]:
    """Whether a value of a file can name an image."""
    return isinstance(value, str) or is_whole(value)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of a file is a number that can count pixels."""
    return (type(value) is int or type(value) is float) and abs(value) < _LARGEST_NUMBER  # false of NaN
