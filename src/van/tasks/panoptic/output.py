"""What a panoptic segmenter gives for an image: its segments, as values, pictures, and rows of tables.

Shapes: H, W sides of the image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from ...images import rle
from ...images.label_maps import Palette, color_of, index_base64, overlay, save_overlay, with_legend
from ..base import Column, Finding, Json, Output, ResultTable, Row, Table
from ..coco.drawing import draw_segments, readable, scaled, scaled_map
from .metric import Segmented

OVERLAY, MAP = "-overlay.png", "-segments.png"
_SHOWN = 5  # classes per line


@dataclass(frozen=True)
class FoundSegment:
    """A segment of a prediction: its id in the map, its class and the index of that, how sure it is, its pixels."""

    id: int
    label: str
    index: int
    score: float
    thing: bool
    area: int


@dataclass(frozen=True, kw_only=True, eq=False)
class PanopticPrediction(Output):
    """Every pixel's segment.

    image: the path, or a description of an image in memory; picture: the image itself, RGB.
    found: the segments. classes, palette: a name and a colour per class, `num_things` things first.
    opacity: of the colours in pictures.
    """

    image: str
    picture: Image.Image
    found: Segmented
    classes: tuple[str, ...]
    palette: Palette
    num_things: int
    opacity: float = 0.5

    @property
    def segment_ids(self) -> np.ndarray:
        """(H, W) int32: the id of each pixel's segment, 0 where nothing is known."""
        return self.found.segment_ids

    @property
    def segments(self) -> tuple[FoundSegment, ...]:
        """In the order of their ids, which are 1, 2, …."""
        areas = np.bincount(self.segment_ids.ravel(), minlength=len(self.found.labels) + 1)
        return tuple(
            FoundSegment(i, self.classes[label], label, float(score), label < self.num_things, int(areas[i]))
            for i, (label, score) in enumerate(zip(self.found.labels, self.found.scores, strict=True), start=1)
        )

    def __repr__(self) -> str:
        height, width = self.segment_ids.shape
        counted = _counted([each.label for each in self.segments])
        return f"PanopticPrediction(image={self.image!r}, {height} x {width}: {counted})"

    def findings(self) -> tuple[Finding, ...]:
        """The segments, largest first: how sure each is, in the colour of its class."""
        return tuple(
            Finding(each.label, each.score, color_of(self.palette, each.index))
            for each in sorted(self.segments, key=lambda each: -each.area)
        )

    def to_dict(self) -> dict[str, Json]:
        """JSON-ready values; masks as run lengths as COCO's result files have them."""
        entry, found = self._entry(), self.segments
        masks = rle.encode(np.stack([self.segment_ids == each.id for each in found])) if found else []
        for each, mask in zip(entry["segments"], masks, strict=True):
            each["mask"] = mask.to_json()
        return entry

    def to_json(self) -> dict[str, Json]:
        """As `to_dict`, with one `mask`: the ids of segments as base64 text of a PNG, 0 where nothing is known."""
        return self._entry() | {"mask": index_base64(self.segment_ids)}

    def _entry(self) -> dict[str, Json]:
        return {"image": self.image, "size": [*self.segment_ids.shape], "segments": [*map(asdict, self.segments)]}

    def overlay(self, opacity: float | None = None, *, legend: bool = True) -> Image.Image:
        """The image with its segments in the colours of their classes, outlined, and a legend at the right.

        opacity: 0 … 1; None: the prediction's own. Small images are enlarged by a whole factor.
        """
        picture = scaled(self.picture, readable(self.picture))
        ids = scaled_map(self.segment_ids, picture.size)
        classes = np.array([len(self.classes), *self.found.labels], np.int64)[ids]
        chosen = self.opacity if opacity is None else opacity
        painted = draw_segments(overlay(picture, classes, self.palette, opacity=chosen), ids)
        return with_legend(painted, classes, self.palette, self.classes) if legend else painted

    def draw(self) -> Image.Image:
        """The image with its segments and a legend."""
        return self.overlay()

    def save(self, folder: Path, stem: str) -> dict[str, Json]:
        """Write `<stem>-overlay.png` and, as COCO stores ids, `<stem>-segments.png`; the entry names both."""
        painted, map_ = folder / f"{stem}{OVERLAY}", folder / f"{stem}{MAP}"
        save_overlay(painted, self.draw())
        save_overlay(map_, id_image(self.segment_ids))
        return self.to_dict() | {"overlay": str(painted), "map": str(map_)}


def id_image(ids: np.ndarray) -> Image.Image:
    """Segment ids (H, W) as COCO's panoptic PNG files have them: red + 256 green + 65,536 blue."""
    numbers = ids.astype(np.uint32)
    channels = [(numbers >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)]
    return Image.fromarray(np.stack(channels, -1))


def _counted(labels: Sequence[str]) -> str:
    counts = Counter(labels).most_common()
    more = f", … {len(counts)} classes" if len(counts) > _SHOWN else ""
    return ", ".join(f"{count} × {label}" for label, count in counts[:_SHOWN]) + more or "nothing"


class PanopticResults(ResultTable):
    """One row of CSV per segment, a row without one for an image without any; one line per image for people."""

    columns: ClassVar[tuple[str, ...]] = ("image", "id", "label", "index", "score", "thing", "area")
    folder: ClassVar[str | None] = "panoptic"
    endings: ClassVar[tuple[str, ...]] = (OVERLAY, MAP)
    entries_suffice: ClassVar[bool] = True

    def rows(self, entry: Mapping[str, Json]) -> list[Row]:
        image, names = entry["image"], self.columns[1:]
        rows: list[Row] = [(image, *(each[name] for name in names)) for each in entry["segments"]]
        return rows or [(image, *[None] * len(names))]

    def table(self, entries: Sequence[Mapping[str, Json]]) -> Table:
        drawn = "overlay" in entries[0]
        columns = [Column("image"), Column("segments"), *[Column("overlay")] * drawn]
        rows = [
            [
                entry["image"],
                _counted([each["label"] for each in entry["segments"]]),
                *([entry["overlay"]] if drawn else []),
            ]
            for entry in entries
        ]
        return Table(columns, rows)
