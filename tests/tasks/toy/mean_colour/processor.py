"""From an image to its input, and from three numbers to a colour."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from PIL import Image

from van.images.preprocess import Preprocess, to_color
from van.images.sources import ImageSource
from van.tasks.base import Column, Engine, Output, Processor, ResultTable, Row, Table

PREPROCESS = Preprocess(size=16, crop_pct=1.0, resize="squash")


@dataclass(frozen=True, kw_only=True)
class Colour(Output):
    """red, green, blue: 0 … 1."""

    image: str
    colour: tuple[float, float, float]
    source: ImageSource = field(repr=False, compare=False)

    def to_dict(self) -> dict:
        return {"image": self.image, **dict(zip(("red", "green", "blue"), self.colour, strict=True))}

    def draw(self) -> Image.Image:
        """The image with a swatch of the colour in its corner."""
        image = to_color(self.source.open(), "RGB").copy()
        swatch = tuple(int(255 * min(max(value, 0), 1)) for value in self.colour)
        image.paste(swatch, (0, 0, image.width // 2, image.height // 2))
        return image


class MeanColourProcessor(Processor[np.ndarray, np.ndarray]):
    """decimals: of what is predicted."""

    def __init__(self, decimals: int = 3) -> None:
        self.decimals = decimals

    def prepare(self, image: Image.Image) -> np.ndarray:
        return PREPROCESS(image)

    def inputs(self, image: Image.Image) -> Iterator[np.ndarray]:
        yield PREPROCESS(image)

    def run(self, engine: Engine, prepared: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(engine.run(np.stack(prepared))["logits"])

    def output(self, raw: np.ndarray, prepared: np.ndarray, source: ImageSource) -> Colour:
        red, green, blue = (round(float(value), self.decimals) for value in raw)
        return Colour(image=source.name, colour=(red, green, blue), source=source)


class MeanColourResults(ResultTable):
    columns: ClassVar[tuple[str, ...]] = ("image", "red", "green", "blue")

    def rows(self, entry: Mapping) -> list[Row]:
        return [tuple(entry[name] for name in self.columns)]

    def table(self, entries: Sequence[Mapping]) -> Table:
        columns = [Column(name, right=name != "image") for name in self.columns]
        return Table(columns, [[str(entry[name]) for name in self.columns] for entry in entries])
