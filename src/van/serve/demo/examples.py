"""Example images that fit a model: of the embedded data it was trained on, else scikit-learn's two photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from ...errors import MissingExtraError
from ...inference.session import Session
from ...tools.verify_photographs import photographs

EMBEDDED = {"digits": "digit", "scenes": "scene"}  # data sets that need no files -> what one of their images is called
COUNT = 6


@dataclass(frozen=True)
class Example:
    """An image to try; name: what its button says."""

    name: str
    image: Image.Image


def examples_for(session: Session) -> list[Example]:
    """Images for a model, of the part that it was not trained on; none where nothing fits, or without scikit-learn."""
    data = session.provenance.get("data")
    try:
        if data in EMBEDDED:
            return _embedded(session, str(data))
        return [Example(Path(name).stem.capitalize(), image) for name, image in photographs()]
    except MissingExtraError:
        return []


def _embedded(session: Session, data: str) -> list[Example]:
    drawn = {name: value for name, value in (session.provenance.get("split") or {}).items() if value is not None}
    images = session.task.open_data(data, "val", **drawn)
    word = EMBEDDED[data].capitalize()
    step = max(1, len(images) // COUNT)
    return [
        Example(f"{word} {number}", images.load(index)[0])
        for number, index in enumerate(range(0, len(images), step)[:COUNT], start=1)
    ]


def plain_image() -> Image.Image:
    """An image to warm models up with where there is no example."""
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((12, 12, 52, 52), fill="black")
    return image
