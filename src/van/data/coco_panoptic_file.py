"""A COCO panoptic file: images, categories, and the segments of every map, read once and checked record by record.

N images, n segments.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from ..images.palettes import Color
from .coco_file import CategoryReader, ImageReader, ImageRecords, check_keys, file_state, is_id, is_number, is_whole
from .json_stream import read_lists
from .objects import Categories
from .problems import Problems

_EXPECTED = "an object with the lists images, annotations (with segments_info) and categories, as panoptic_*.json"
MAX_SEGMENT_ID = 2**24 - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentRecords:
    """The segments of N maps; those of map i are starts[i] … starts[i + 1].

    ids: (n,) int32, as in the map; labels: (n,) int32; areas: (n,) int64, pixels as the file has them, -1 for none.
    crowd: (n,) bool.
    """

    starts: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray

    def rows(self, image: int) -> slice:
        """Where the segments of an image are."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    def content(self, image: int) -> bytes:
        """All that is said about an image, for a digest of it."""
        rows = self.rows(image)
        return b"".join(column[rows].tobytes() for column in (self.ids, self.labels, self.areas, self.crowd))


@dataclass(frozen=True, kw_only=True, eq=False)
class PanopticFile:
    """What a panoptic file holds. images: those with a map; maps: file name of each one's map, (N,)."""

    path: Path
    images: ImageRecords
    maps: tuple[str, ...]
    categories: Categories
    palette: tuple[Color, ...]
    segments: SegmentRecords
    problems: Problems


_IN_USE: WeakValueDictionary[tuple[str | int | bool, ...], PanopticFile] = WeakValueDictionary()


def read_panoptic(path: Path, *, strict: bool = True) -> PanopticFile:
    """Classes by category id, things before stuff; images in the order of the file.

    A file that is in use already, as of the other split, is not read again.
    strict: False passes over records that cannot be used and counts them. Raises DataError as `read_coco` does.
    """
    key = (str(path.absolute()), *file_state(path), strict)
    if (file := _IN_USE.get(key)) is None:
        file = _IN_USE[key] = _read(path, strict)
    return file


def _read(path: Path, strict: bool) -> PanopticFile:
    problems = Problems(strict=strict)
    images, categories, reader = ImageReader(path, problems), CategoryReader(path), _AnnotationReader(path, problems)
    found = read_lists(
        path, {"images": images.add, "categories": categories.add, "annotations": reader.add}, expected=_EXPECTED
    )
    check_keys(path, found, ("images", "annotations", "categories"), _EXPECTED)
    records = images.records()
    known, palette = categories.finish(things_first=True)
    for image in reader.maps.keys() - set(records.ids):
        text = f"the annotation of {reader.maps[image][0]} has image_id {image!r}, which no image has"
        problems.add("unknown_image", f"{path}: {text}; add the image or remove the annotation")
    for id_, name in zip(records.ids, records.names, strict=True):
        if id_ not in reader.maps:
            problems.add("without_map", f"{path}: image {id_!r} ({name}) has no annotation; add its segments and map")
    kept = [place for place, id_ in enumerate(records.ids) if id_ in reader.maps]
    ids = tuple(records.ids[place] for place in kept)
    return PanopticFile(
        path=path,
        images=ImageRecords(ids=ids, names=tuple(records.names[place] for place in kept), sizes=records.sizes[kept]),
        maps=tuple(reader.maps[id_][0] for id_ in ids),
        categories=known,
        palette=palette,
        segments=reader.segments(ids, {id_: label for label, id_ in enumerate(known.ids)}),
        problems=problems,
    )


class _AnnotationReader:
    """Takes annotations: a map each, with the segments in it."""

    def __init__(self, path: Path, problems: Problems) -> None:
        self.path, self.problems = path, problems
        self.maps: dict[int | str, tuple[str, int, int]] = {}  # image -> file name, first row, last row
        self.ids, self.categories, self.areas, self.crowd = array("q"), array("q"), array("q"), bytearray()

    def add(self, place: int, record: object) -> None:
        """One annotation; a malformed one, or a second one of an image, is a problem."""
        try:
            image, name, segments = _annotation(record)
        except ValueError as reason:
            self.problems.add("malformed", f"{self.path}: annotation number {place + 1} {reason}; mend or remove it")
            return
        if image in self.maps:
            text = f"image {image!r} has two annotations, {self.maps[image][0]} and {name}; keep one"
            self.problems.add("duplicate_id", f"{self.path}: {text}")
            return
        start, seen = len(self.ids), set[int]()
        for number, segment in enumerate(segments):
            try:
                id_, category, area, crowd = _segment(segment)
            except ValueError as reason:
                text = f"segment number {number + 1} of {name} {reason}; mend or remove it"
                self.problems.add("malformed", f"{self.path}: {text}")
                continue
            if id_ in seen:
                self.problems.add("duplicate_id", f"{self.path}: {name} has two segments with the id {id_}; keep one")
                continue
            seen.add(id_)
            self.ids.append(id_)
            self.categories.append(category)
            self.areas.append(area)
            self.crowd.append(crowd)
        self.maps[image] = name, start, len(self.ids)

    def segments(self, images: tuple[int | str, ...], label_of: Mapping[int, int]) -> SegmentRecords:
        """Those of the images, in their order; a segment of no category is a problem."""
        labels = np.fromiter((label_of.get(category, -1) for category in self.categories), np.int32, len(self.ids))
        for name, start, end in self.maps.values():
            for row in (start + np.flatnonzero(labels[start:end] < 0)).tolist():
                text = f"segment {self.ids[row]} of {name} has category_id {self.categories[row]}, which is no category"
                self.problems.add("unknown_category", f"{self.path}: {text}; add it or remove the segment")
        rows = [
            start + np.flatnonzero(labels[start:end] >= 0) for _, start, end in (self.maps[image] for image in images)
        ]
        order = np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int64)
        return SegmentRecords(
            starts=np.cumsum([0, *map(len, rows)]),
            ids=np.asarray(self.ids, np.int64)[order].astype(np.int32),
            labels=labels[order],
            areas=np.asarray(self.areas, np.int64)[order],
            crowd=np.frombuffer(self.crowd, np.uint8).astype(bool)[order],
        )


def _annotation(record: object) -> tuple[int | str, str, list[object]]:
    """Image id, name of the map, segments; raises ValueError with what is wrong."""
    if not isinstance(record, dict):
        raise ValueError(f"is {record!r:.60}; expected an object")
    image, name, segments = record.get("image_id"), record.get("file_name"), record.get("segments_info")
    if not is_id(image):
        raise ValueError(f"has image_id {image!r:.40}; expected the id of an image")
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise ValueError(f"(image {image!r:.40}) has file_name {name!r:.40}; expected the name of its PNG map")
    if not isinstance(segments, list):
        raise ValueError(f"({name}) has segments_info {segments!r:.40}; expected a list of segments")
    return image, name, segments


def _segment(record: object) -> tuple[int, int, int, bool]:
    """Id, category, area (-1 for none), crowd; raises ValueError with what is wrong."""
    if not isinstance(record, dict):
        raise ValueError(f"is {record!r:.60}; expected an object")
    id_, category, area, crowd = (record.get(key) for key in ("id", "category_id", "area", "iscrowd"))
    if not is_whole(id_) or not 1 <= id_ <= MAX_SEGMENT_ID:
        raise ValueError(f"has id {id_!r:.40}; expected 1 … {MAX_SEGMENT_ID}, R + 256 G + 65536 B of its colour")
    if not is_whole(category):
        raise ValueError(f"has category_id {category!r:.40}; expected the id of a category")
    if area is not None and (not is_number(area) or area < 0):
        raise ValueError(f"has area {area!r:.40}; expected pixels")
    if crowd not in (0, 1, None):
        raise ValueError(f"has iscrowd {crowd!r:.40}; expected 0 or 1")
    return id_, category, -1 if area is None else int(area), bool(crowd)
