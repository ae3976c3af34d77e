"""The doctor's view of objects and panoptic segments: what is read of every image, and the report on it.

A folder that has both is read twice; the parts of the second are called "panoptic train" and "panoptic val".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ...data.coco_layout import Kind
from ...data.coco_panoptic import CocoPanoptic
from ...data.object_data import SPLITS, holds_panoptic, is_drawn, layout_name, open_objects, open_panoptic, splits_of
from ...data.problems import Problems
from ...data.table_objects import TableObjects
from ...errors import ConfigError, DataError
from .duplicates import across, digest_of
from .object_checks import Trouble, box_troubles, mask_troubles, segment_troubles
from .object_findings import findings
from .object_statistics import AnnotatedImage, ObjectStatistics
from .report import Report
from .walk import OpenedData, SplitReader

PANOPTIC = "panoptic "
# Drawn validation parts are as training would draw them by default; given, so that nothing is warned of.
VAL_FRACTION = 0.2


@dataclass(frozen=True, kw_only=True)
class ObjectReport(Report[ObjectStatistics]):
    """All that was found in a data set of objects, of panoptic segments, or of both."""

    @property
    def columns(self) -> tuple[str, ...]:
        of_splits = (f"{split} {what}" for split, each in self.splits.items() for what in (each.what, "images"))
        return ("label", "class", *of_splits)

    def rows(self) -> list[tuple[str, ...]]:
        rows = []
        for row in self.table():
            figures = (str(row[split][what]) for split, each in self.splits.items() for what in (each.what, "images"))
            rows.append((str(row["label"]), row["name"], *figures))
        return rows

    def table(self) -> list[dict[str, Any]]:
        """One row per class: label, name, objects (or segments) and images with any of each split."""
        rows = []
        for label, name in enumerate(self.classes):
            row: dict[str, Any] = {"label": label, "name": name}
            for split, each in self.splits.items():
                place = each.classes.index(name) if name in each.classes else None
                counts = (0, 0) if place is None else (int(each.counts[place]), int(each.images[place]))
                row[split] = dict(zip((each.what, "images"), counts, strict=True))
            rows.append(row)
        return rows

    def facts(self) -> dict[str, Any]:
        alike = {split: each for split, each in self.splits.items() if not split.startswith(PANOPTIC)}
        return {"duplicates": {f"{one}, {two}": pairs for (one, two), pairs in across(alike).items()}}


class ObjectFiles(OpenedData):
    """COCO's files or YOLO's folders; a split that cannot be opened beside one that can is a finding.

    splits: all that the data set has by default. Raises DataError or ConfigError when none can be opened.
    """

    def __init__(self, data: str | Path, splits: Sequence[str] | None = None) -> None:
        self.data = str(data)
        layout, panoptic = layout_name(data), holds_panoptic(data)
        self.layout = " and ".join([layout] * bool(layout) + ["COCO panoptic segments"] * panoptic)
        self.readers: dict[str, ObjectReader | SegmentReader] = {}
        self.closed: dict[str, DataError] = {}
        kinds: list[Kind] = ["objects"] * bool(layout) + ["segments"] * panoptic  # type: ignore[assignment]
        there = list(dict.fromkeys(split for kind in kinds for split in splits_of(data, kind)))
        if absent := [split for split in splits or () if split not in there]:
            raise ConfigError(f"{data} has no {absent[0]!r} part; it has: {', '.join(there)}")
        for kind in kinds:
            own = [split for split in splits_of(data, kind) if splits is None or split in splits]
            self._open(kind, own, PANOPTIC if kind == "segments" and layout else "")
        if not self.readers:
            raise next(iter(self.closed.values()))
        self.drawn = any(is_drawn(data, kind) for kind in kinds)
        self.missing = () if splits else tuple(split for split in SPLITS if split not in there)

    def _open(self, kind: Kind, splits: Sequence[str], prefix: str) -> None:
        """Readers of the parts that can be opened; where both are of one file, its problems are said once."""
        of_the_file = True
        for split in splits:
            name = prefix + split
            try:
                self.readers[name] = opened(self.data, name, panoptic=kind == "segments")
            except DataError as error:
                self.closed[name] = error
            else:
                self.readers[name].note_problems(of_the_file=of_the_file)
                of_the_file = not is_drawn(self.data, kind)

    def report(self) -> ObjectReport:
        """Objects per class and the conclusions."""
        splits = {split: reader.statistics for split, reader in self.readers.items()}
        closed = {split: str(error) for split, error in self.closed.items()}
        return ObjectReport(
            data=self.data,
            layout=self.layout,
            classes=tuple(dict.fromkeys(name for each in splits.values() for name in each.classes)),
            splits=splits,
            findings=findings(splits, closed=closed, missing=self.missing, drawn=self.drawn),
            missing=self.missing,
        )


def opened(data: str | Path, split: str, *, panoptic: bool) -> ObjectReader | SegmentReader:
    """The reader of a split, by its name in the report."""
    part = split.removeprefix(PANOPTIC)
    if panoptic:
        segments = open_panoptic(data, part, strict=False, val_fraction=VAL_FRACTION)
        assert isinstance(segments, CocoPanoptic)
        return SegmentReader(segments)
    objects = open_objects(data, part, strict=False, val_fraction=VAL_FRACTION)
    assert isinstance(objects, TableObjects)
    return ObjectReader(objects)


class ObjectReader(SplitReader[AnnotatedImage]):
    """The images of one split with their objects."""

    statistics: ObjectStatistics

    def __init__(self, data: TableObjects) -> None:
        self.data = data
        self.statistics = ObjectStatistics(total=len(data), what="objects", classes=data.classes, masks=data.has_masks)

    def note_problems(self, *, of_the_file: bool) -> None:
        """Take in what was passed over when the data were opened.

        of_the_file: also what concerns the whole file, which is said once where both parts are drawn from it.
        """
        _note(self.statistics, self.data.problems, of_the_file=of_the_file)

    def __len__(self) -> int:
        return len(self.data)

    def read(self, index: int) -> AnnotatedImage:
        name, troubles = self.data.name(index), list[Trouble]()
        image, trouble = _image(self.data, index)
        objects = self.data.objects(index, (image.height, image.width)) if image is not None else None
        if objects is None:
            rows = self.data.table.rows(int(self.data.chosen[index]))
            labels = tuple(self.data.table.labels[rows].tolist())
            return AnnotatedImage(index=index, name=name, labels=labels, troubles=(("unreadable", trouble),))
        assert image is not None
        troubles += box_troubles(objects, name)
        troubles += mask_troubles(objects, lambda place: self.data.mask(index, place, objects.size), name)
        return AnnotatedImage(
            index=index,
            name=name,
            size=image.size,
            digest=digest_of(image),
            labels=tuple(objects.labels.tolist()),
            crowds=int(objects.crowd.sum()),
            troubles=tuple(troubles),
        )


class SegmentReader(SplitReader[AnnotatedImage]):
    """The images of one split with their maps."""

    statistics: ObjectStatistics

    def __init__(self, data: CocoPanoptic) -> None:
        self.data = data
        self.statistics = ObjectStatistics(total=len(data), what="segments", classes=data.classes)

    def note_problems(self, *, of_the_file: bool) -> None:
        """Take in what was passed over when the data were opened.

        of_the_file: also what concerns the whole file, which is said once where both parts are drawn from it.
        """
        _note(self.statistics, self.data.problems, of_the_file=of_the_file)

    def __len__(self) -> int:
        return len(self.data)

    def read(self, index: int) -> AnnotatedImage:
        name, troubles, void = self.data.name(index), list[Trouble](), 0.0
        segments = self.data.records(index)
        image, trouble = _image(self.data, index)
        if image is None:
            troubles.append(("unreadable", trouble))
        try:
            map_ = self.data.segment_ids(index)
        except DataError as error:
            troubles.append(("unreadable", str(error)))
        else:
            path = str(self.data.map_path(index))
            troubles += segment_troubles(segments, map_, path)
            void = float((map_ == 0).mean())
            if image is not None and map_.shape != (image.height, image.width):
                stored = f"{map_.shape[1]} x {map_.shape[0]}, its image {image.width} x {image.height}"
                troubles.append(("mismatched", f"{path}: {stored}"))
        return AnnotatedImage(
            index=index,
            name=name,
            size=None if image is None else image.size,
            digest=None if image is None else digest_of(image),
            labels=tuple(each.label for each in segments),
            crowds=sum(each.crowd for each in segments),
            troubles=tuple(troubles),
            void=void,
        )


def _image(data: TableObjects | CocoPanoptic, index: int) -> tuple[Image.Image | None, str]:
    """The image, or None and why it cannot be used."""
    try:
        return data.image(index), ""
    except DataError as error:
        return None, str(error)


def _note(statistics: ObjectStatistics, problems: Problems, *, of_the_file: bool) -> None:
    for kind, count in problems.counts.items():
        if not of_the_file and kind != "missing_image":
            continue
        for place, text in enumerate(problems.examples[kind]):
            statistics.note(kind, text, times=count - len(problems.examples[kind]) + 1 if place == 0 else 1)
