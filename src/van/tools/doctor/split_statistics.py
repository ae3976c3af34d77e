"""What one split of a segmentation data set holds, in figures.

K classes; labels 0 … K - 1.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LISTED = 10  # names kept of each kind of trouble
_COUNTS = ("total", "seen", "without_mask", "without_image", "unreadable", "mismatched", "disputed", "unlabelled")


@dataclass
class UnknownValue:
    """A stored value that is no class: where it was met first, in how many files, on how many pixels."""

    first: str
    files: int = 0
    pixels: int = 0


@dataclass
class Part:
    """What one split holds.

    total, seen: images with a mask, and how many of them were looked at.
    without_mask, without_image, unreadable, mismatched: counts of trouble; `examples` has the first of each in words.
    pixels, images: labelled pixels and images of each class, (K,); image_pixels: all labelled pixels of those images.
    ignored, labelled: pixels without and with a class; unlabelled: images without a single class.
    stored: pixels of every stored index; kinds: masks by kind (index, palette, color); disputed: palette images whose
    colours name other classes than their indices; present: classes of every image looked at; pictures: names of the
    images with the same pixels, by these pixels' digest.
    """

    total: int
    classes: int
    seen: int = 0
    without_mask: int = 0
    without_image: int = 0
    unreadable: int = 0
    mismatched: int = 0
    disputed: int = 0
    unlabelled: int = 0
    ignored: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)
    unknown: dict[str, UnknownValue] = field(default_factory=dict)
    stored: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    present: dict[int, frozenset[int]] = field(default_factory=dict)
    troubled: list[int] = field(default_factory=list)
    pictures: dict[bytes, list[str]] = field(default_factory=dict)
    pixels: np.ndarray = field(init=False)
    images: np.ndarray = field(init=False)
    image_pixels: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.pixels, self.images, self.image_pixels = (np.zeros(self.classes, np.int64) for _ in range(3))

    @property
    def labelled(self) -> int:
        """Pixels with a class."""
        return int(self.pixels.sum())

    def note(self, kind: str, text: str) -> None:
        """Keeps the first examples of a kind of trouble."""
        listed = self.examples.setdefault(kind, [])
        if len(listed) < LISTED:
            listed.append(text)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the class histogram is in the report's table."""
        (low, high) = (min(self.sizes), max(self.sizes)) if self.sizes else ((0, 0), (0, 0))
        counts = (
            "total",
            "seen",
            "without_mask",
            "without_image",
            "unreadable",
            "mismatched",
            "disputed",
            "unlabelled",
        )
        return {name: getattr(self, name) for name in counts} | {
            "labelled_pixels": self.labelled,
            "ignored_pixels": self.ignored,
            "unknown": {value: vars(each) for value, each in self.unknown.items()},
            "stored_values": {str(value): count for value, count in sorted(self.stored.items())},
            "mask_kinds": dict(self.kinds),
            "sizes": {"count": len(self.sizes), "narrowest": list(low), "widest": list(high)},
            "examples": self.examples,
        }
