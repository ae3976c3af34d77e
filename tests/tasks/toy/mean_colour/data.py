"""Noisy images of one colour each, drawn from a seed."""

import numpy as np
from PIL import Image

from van.errors import ConfigError, DataError

COUNTS = {"train": 24, "val": 6}


class Colours:
    """`load(i)` -> (image, its mean colour (3,) float64, 0 … 1)."""

    classes = ("red", "green", "blue")

    def __init__(self, split: str = "val", *, seed: int = 0) -> None:
        if split not in COUNTS:
            raise ConfigError(f"split is {split!r}; expected one of {', '.join(COUNTS)}")
        self.split, self.seed = split, seed

    def __len__(self) -> int:
        return COUNTS[self.split]

    def load(self, index: int) -> tuple[Image.Image, np.ndarray]:
        draw = np.random.default_rng((self.seed, tuple(COUNTS).index(self.split), index))
        pixels = (draw.integers(0, 224, 3) + draw.integers(0, 32, (20, 24, 3))).astype(np.uint8)
        return Image.fromarray(pixels), pixels.mean((0, 1)) / 255

    def name(self, index: int) -> str:
        return f"colours/{self.split}/{index}"


def open_colours(path: object, split: str | None = None, *, seed: int | None = None, **_: object) -> Colours:
    """The data set called "colours"; raises DataError for any other."""
    if str(path) != "colours":
        raise DataError(f"data {str(path)!r} is not there; expected 'colours'")
    return Colours(split or "val", seed=seed or 0)
