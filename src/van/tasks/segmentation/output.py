"""What a segmenter gives for a picture: its label map, as a value, as pictures, and as rows of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from ...images.label_maps import Palette, color_of, index_base64, overlay, save_index, save_overlay
from ..base import Column, Finding, Json, Output, ResultTable, Row, Table

OVERLAY, MASK = "-overlay.png", "-mask.png"
_SHOWN = 5  # classes per picture


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskPrediction(Output):
    """The class of every pixel of one picture.

    image: the path, or a description of an image in memory; picture: the image itself.
    mask: class numbers, (H, W). classes, palette: a name and a colour per class. opacity: of what is drawn and saved.
    """

    measure: ClassVar[str] = "share of the pixels"

    image: str
    picture: Image.Image
    mask: np.ndarray
    classes: tuple[str, ...]
    palette: Palette
    opacity: float = 0.5

    @property
    def shares(self) -> tuple[tuple[str, int, float], ...]:
        """(name, number, share of the pixels) of the classes present, largest first."""
        numbers, counts = np.unique(self.mask, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return tuple((self.classes[numbers[i]], int(numbers[i]), float(counts[i] / self.mask.size)) for i in order)

    def leading(self) -> tuple[str, int, float]:
        """The class with the most pixels, and its share of them."""
        return self.shares[0]

    def findings(self) -> tuple[Finding, ...]:
        """The classes present, largest first; colours of the palette."""
        return tuple(Finding(label, share, color_of(self.palette, number)) for label, number, share in self.shares)

    def to_dict(self) -> dict[str, Json]:
        """JSON-ready values; the mask and the picture are not among them."""
        classes = [{"class": label, "index": number, "share": share} for label, number, share in self.shares]
        return {"image": self.image, "size": [*self.mask.shape], "classes": classes}

    def to_json(self) -> dict[str, Json]:
        """As `to_dict`, with `mask`: class numbers as base64 text of a PNG in the palette's colours."""
        return self.to_dict() | {"mask": index_base64(self.mask, self.palette)}

    def __repr__(self) -> str:
        shares = ", ".join(f"{label} {share:.1%}" for label, _, share in self.shares[:5])
        height, width = self.mask.shape
        return f"MaskPrediction(image={self.image!r}, {height} x {width}: {shares})"

    def overlay(self, opacity: float | None = None, *, legend: bool = True) -> Image.Image:
        """The picture with its classes painted over it and, on the right, their names.

        opacity: 0 … 1; None: the prediction's own, 0.5 unless the Predictor was given another.
        """
        names, chosen = self.classes if legend else None, self.opacity if opacity is None else opacity
        return overlay(self.picture, self.mask, self.palette, opacity=chosen, classes=names)

    def draw(self) -> Image.Image:
        """The picture with its classes painted over it and their names."""
        return self.overlay()

    def save(self, folder: Path, stem: str) -> dict[str, Json]:
        """Write `<stem>-overlay.png` and the class numbers as `<stem>-mask.png`; the entry names both."""
        painted, numbers = folder / f"{stem}{OVERLAY}", folder / f"{stem}{MASK}"
        save_overlay(painted, self.draw())
        save_index(numbers, self.mask, self.palette)
        return {
            "image": self.image,
            "overlay": str(painted),
            "mask": str(numbers),
            "classes": self.to_dict()["classes"],
        }


class SegmentationResults(ResultTable):
    """One row of CSV per class in a picture, one line per picture for people; pictures go into a folder."""

    columns: ClassVar[tuple[str, ...]] = ("image", "class", "index", "share", "overlay")
    folder: ClassVar[str | None] = "segmentation"
    endings: ClassVar[tuple[str, ...]] = (OVERLAY, MASK)

    def rows(self, entry: Mapping[str, Json]) -> list[Row]:
        return [(entry["image"], *each.values(), entry["overlay"]) for each in entry["classes"]]

    def table(self, entries: Sequence[Mapping[str, Json]]) -> Table:
        rows = []
        for entry in entries:
            parts = [f"{each['class']} {each['share']:.1%}" for each in entry["classes"]]
            more = f", … {len(parts)} in all" if len(parts) > _SHOWN else ""
            rows.append([entry["image"], ", ".join(parts[:_SHOWN]) + more, entry["overlay"]])
        return Table([Column("image"), Column("classes"), Column("overlay")], rows)
