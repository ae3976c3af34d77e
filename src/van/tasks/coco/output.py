"""What a detector or an instance segmenter gives for an image: objects, as values, a picture, and rows of tables.

Shapes: K objects, H, W sides of the image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from ...images import rle
from ...images.label_maps import Palette, color_of, index_base64, save_overlay
from ..base import Column, Finding, Json, Output, ResultTable, Row, Table
from .drawing import draw_objects
from .found import Found

PICTURE = "-objects.png"
CORNERS = ("left", "top", "right", "bottom")
_SHOWN = 5  # classes per line


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectPrediction(Output):
    """The objects of one image, the surest first.

    image: the path, or a description of an image in memory; picture: the image itself, RGB.
    found: the objects. classes, palette: a name and a colour per class. opacity: of masks in pictures.
    shown_from: score of the objects that pictures show.
    """

    image: str
    picture: Image.Image
    found: Found
    classes: tuple[str, ...]
    palette: Palette
    opacity: float = 0.5
    shown_from: float = 0.0

    @property
    def boxes(self) -> np.ndarray:
        """(K, 4) float32: left, top, right, bottom in pixels of the image."""
        return self.found.boxes

    @property
    def indices(self) -> np.ndarray:
        """(K,) int64, the class of each object."""
        return self.found.labels

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each object's class."""
        return tuple(self.classes[index] for index in self.found.labels)

    @property
    def scores(self) -> np.ndarray:
        """(K,) float32, 0 … 1."""
        return self.found.scores

    @property
    def masks(self) -> np.ndarray | None:
        """(K, H, W) bool, decoded with every call; None for models without masks."""
        masks = self.found.masks
        return None if masks is None else rle.decode(masks, self.found.size).astype(bool)

    def __len__(self) -> int:
        return len(self.found)

    def __repr__(self) -> str:
        height, width = self.found.size
        return f"ObjectPrediction(image={self.image!r}, {height} x {width}: {_counted(self.labels) or 'nothing'})"

    def findings(self) -> tuple[Finding, ...]:
        """The objects that pictures show, the surest first."""
        return tuple(
            Finding(label, float(score), color_of(self.palette, int(index)))
            for label, score, index in zip(self.labels, self.scores, self.indices, strict=True)
            if score >= self.shown_from
        )

    def to_dict(self) -> dict[str, Json]:
        """JSON-ready values; masks as run lengths as COCO's result files have them."""
        boxes, scores = self.boxes.tolist(), self.scores.tolist()
        objects: list[dict[str, Json]] = [
            {"label": label, "index": int(self.indices[i]), "score": scores[i], "box": boxes[i]}
            for i, label in enumerate(self.labels)
        ]
        if self.found.masks is not None:
            for each, mask in zip(objects, self.found.masks, strict=True):
                each["mask"] = mask.to_json()
        return {"image": self.image, "size": [*self.found.size], "objects": objects}

    def to_json(self) -> dict[str, Json]:
        """As `to_dict`; the `mask` of an object is base64 text of a PNG, 1 where the object is."""
        entry = self.to_dict()
        for i, each in enumerate(entry["objects"]):
            if self.found.masks is not None:  # one at a time: all of them would be a picture's size each
                each["mask"] = index_base64(rle.decode([self.found.masks[i]], self.found.size)[0])
        return entry

    def draw(self, *, score_threshold: float | None = None, opacity: float | None = None) -> Image.Image:
        """The image with boxes, names, scores, and masks where there are any.

        score_threshold: of the objects that are shown; None: the prediction's own, 0.3 unless one was asked for.
        opacity: of masks, 0 … 1; None: the prediction's own.
        Small images are enlarged by a whole factor, so that names can be read.
        """
        least = self.shown_from if score_threshold is None else score_threshold
        shown = np.flatnonzero(self.scores >= least)
        masks = None if self.found.masks is None else [self.found.masks[i] for i in shown]
        return draw_objects(
            self.picture,
            self.boxes[shown],
            self.indices[shown].tolist(),
            [f"{self.labels[i]}  {self.scores[i]:.0%}" for i in shown],
            self.palette,
            masks=None if masks is None else rle.decode(masks, self.found.size),
            opacity=self.opacity if opacity is None else opacity,
        )

    def overlay(self, opacity: float | None = None, *, legend: bool = True) -> Image.Image:
        """As `draw`: names stand at the boxes, so there is no legend."""
        return self.draw(opacity=opacity)

    def save(self, folder: Path, stem: str) -> dict[str, Json]:
        """Write the picture `<stem>-objects.png`; the entry names it."""
        path = folder / f"{stem}{PICTURE}"
        save_overlay(path, self.draw())
        return self.to_dict() | {"picture": str(path)}


def _counted(labels: Sequence[str]) -> str:
    """`3 × dog, 1 × cat`, at most so many classes."""
    counts = Counter(labels).most_common()
    more = f", … {len(counts)} classes" if len(counts) > _SHOWN else ""
    return ", ".join(f"{count} × {label}" for label, count in counts[:_SHOWN]) + more


class ObjectResults(ResultTable):
    """One row of CSV per object, a row without one for an image without any; one line per image for people."""

    columns: ClassVar[tuple[str, ...]] = ("image", "label", "index", "score", *CORNERS)
    endings: ClassVar[tuple[str, ...]] = (PICTURE,)
    folder: ClassVar[str | None] = "objects"
    entries_suffice: ClassVar[bool] = True

    def rows(self, entry: Mapping[str, Json]) -> list[Row]:
        image = entry["image"]
        rows: list[Row] = [
            (image, each["label"], each["index"], each["score"], *each["box"]) for each in entry["objects"]
        ]
        return rows or [(image, *[None] * (len(self.columns) - 1))]

    def table(self, entries: Sequence[Mapping[str, Json]]) -> Table:
        drawn = "picture" in entries[0]
        columns = [Column("image"), Column("objects"), Column("surest", right=True), *[Column("picture")] * drawn]
        rows = []
        for entry in entries:
            objects = entry["objects"]
            surest = f"{objects[0]['label']} {objects[0]['score']:.1%}" if objects else "—"
            found = _counted([each["label"] for each in objects]) or "nothing"
            rows.append([entry["image"], found, surest, *([entry["picture"]] if drawn else [])])
        return Table(columns, rows)
