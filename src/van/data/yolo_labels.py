"""YOLO's label files: a line per object, its class and its box or polygon in fractions of the image.

`class x y width height` with the centre of the box, or `class x y x y x y …` with the points of a polygon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError

# Rounding leads some exporters a little beyond the image.
_BEYOND = 0.01


@dataclass(frozen=True)
class Label:
    """One line: index of the class; box (corners) and polygon, fractions of width and height; () for a box alone."""

    label: int
    box: tuple[float, float, float, float]
    polygon: tuple[float, ...] = ()


def read_lines(path: Path) -> list[str]:
    """The lines of a label file; none where there is no file, as for images without objects."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is no text ({error.reason} at byte {error.start}); expected one object a line"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; expected one object a line") from error


def parse_line(line: str) -> Label | None:
    """What a line says; None for an empty one; raises ValueError with what is wrong."""
    words = line.split()
    if not words:
        return None
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"holds {line.strip()[:60]!r}; expected numbers: class x y width height") from None
    label, places = numbers[0], numbers[1:]
    if not label.is_integer() or label < 0:
        raise ValueError(f"begins with {words[0][:20]!r}; expected the number of a class, from 0")
    if len(places) != 4 and (len(places) < 6 or len(places) % 2):
        raise ValueError(
            f"has {len(numbers)} numbers; expected 5, class x y width height, or a class and three or more points x y"
        )
    wrong = [value for value in places if not math.isfinite(value) or not -_BEYOND <= value <= 1 + _BEYOND]
    if wrong:
        raise ValueError(f"holds {wrong[0]:g}; expected fractions of width and height, 0 … 1, not pixels")
    if len(places) == 4:
        x, y, width, height = places
        if width < 0 or height < 0:
            raise ValueError(f"has a box of {width:g} x {height:g}; expected a width and a height above 0")
        return Label(int(label), (x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    xs, ys = places[::2], places[1::2]
    return Label(int(label), (min(xs), min(ys), max(xs), max(ys)), tuple(places))
