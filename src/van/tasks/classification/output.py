"""What a classifier gives for an image: the likeliest classes, as a value, a picture, and rows of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from PIL import Image

from ...errors import DataError
from ...images.preprocess import to_color
from ...images.sources import ImageSource
from ..base import Column, Finding, Json, Output, ResultTable, Row, Table


@dataclass(frozen=True, kw_only=True)
class Prediction(Output):
    """What a classifier gives for one image.

    image: the path, or a description of an image in memory; label, index, probability: of the likeliest class.
    top: the likeliest classes, best first, as (label, index, probability). source: to read the image again.
    """

    measure: ClassVar[str] = "probability"

    image: str
    top: tuple[tuple[str, int, float], ...]
    source: ImageSource | None = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str:
        """Name of the likeliest class, its index as text when the checkpoint has no names."""
        return self.top[0][0]

    @property
    def index(self) -> int:
        """Position of the likeliest class among the logits."""
        return self.top[0][1]

    @property
    def probability(self) -> float:
        """Softmax of the likeliest class, 0 … 1."""
        return self.top[0][2]

    def leading(self) -> tuple[str, int, float]:
        """The likeliest class and its probability."""
        return self.top[0]

    def findings(self) -> tuple[Finding, ...]:
        """The likeliest classes."""
        return tuple(Finding(label, probability) for label, _, probability in self.top)

    def to_dict(self) -> dict[str, Json]:
        """JSON-ready values."""
        top = [{"label": label, "index": index, "probability": probability} for label, index, probability in self.top]
        return {"image": self.image, **top[0], "top": top}

    def draw(self) -> Image.Image:
        """The image, RGB, with the likeliest class and its probability in a line below it.

        Raises DataError where the image cannot be read again.
        """
        from ...images.caption import with_caption

        if self.source is None:
            raise DataError(f"{self.image} is not there to be drawn; draw what a Predictor gave")
        return with_caption(to_color(self.source.open(), "RGB"), f"{self.label}  {self.probability:.1%}")


class ClassificationResults(ResultTable):
    """One row of CSV per class that is listed, one line per image for people."""

    columns: ClassVar[tuple[str, ...]] = ("image", "rank", "label", "index", "probability")

    def rows(self, entry: Mapping[str, Json]) -> list[Row]:
        return [(entry["image"], rank, *each.values()) for rank, each in enumerate(entry["top"], start=1)]

    def table(self, entries: Sequence[Mapping[str, Json]]) -> Table:
        several = len(entries[0]["top"]) > 1
        columns = [Column("image"), Column("label", style="bold"), Column("probability", right=True)]
        rows = []
        for entry in entries:
            rest = ", ".join(f"{each['label']} {each['probability']:.1%}" for each in entry["top"][1:])
            rows.append([entry["image"], entry["label"], f"{entry['probability']:.1%}", *[rest] * several])
        return Table([*columns, *[Column("then", style="dim")] * several], rows)
