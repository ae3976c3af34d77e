"""What one split of a segmentation data set holds, in figures.

K classes; labels 0 … K - 1. H, W height and width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .split_statistics import SplitStatistics

LISTED = 10  # names kept of each kind of trouble
_COUNTS = ("total", "seen", "without_mask", "without_image", "unreadable", "mismatched", "disputed", "unlabelled")


@dataclass
class UnknownValue:
    """A stored value that is no class: where it was found first, in how many files, on how many pixels."""

    first: str
    files: int = 0
    pixels: int = 0


@dataclass(frozen=True, kw_only=True)
class MaskContents:
    """What a mask holds.

    name: of its file; kind: index, palette, color; stored: pixels by stored index; unknown: pixels by value that is no
    class; pixels: (K,) of each class; ignored: pixels without a label; alarming: whether a pixel has no known value.
    disputed: the colours of a palette image name other classes than its indices.
    """

    name: str
    kind: str
    stored: Mapping[int, int]
    unknown: Mapping[str, int]
    pixels: np.ndarray
    ignored: int
    alarming: bool
    disputed: bool


@dataclass(frozen=True, kw_only=True)
class PairRead:
    """What was read of an image and its mask; troubles: (kind, text) of what is wrong with the pair.

    size: (width, height) of the image, or of the mask where there is no image file; mask: None where unreadable.
    """

    index: int
    name: str
    digest: bytes | None
    size: tuple[int, int] | None
    troubles: tuple[tuple[str, str], ...]
    mask: MaskContents | None


@dataclass(kw_only=True)
class LabelMapStatistics(SplitStatistics[PairRead]):
    """What one split of a segmentation data set holds.

    without_mask, without_image, unreadable, mismatched: counts of trouble; `examples` has the first of each in words.
    pixels, images: labelled pixels and images of each class, (K,); image_pixels: all labelled pixels of those images.
    ignored, labelled: pixels without and with a class; unlabelled: images without a single class.
    stored: pixels of every stored index; mask_kinds: masks by kind; disputed: palette images whose colours name other
    classes than their indices; present: classes of every image that was read; troubled: images to show first.
    """

    classes: int
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
    mask_kinds: Counter[str] = field(default_factory=Counter)
    present: dict[int, frozenset[int]] = field(default_factory=dict)
    troubled: list[int] = field(default_factory=list)
    pixels: np.ndarray = field(init=False)
    images: np.ndarray = field(init=False)
    image_pixels: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.pixels, self.images, self.image_pixels = (np.zeros(self.classes, np.int64) for _ in range(3))

    @property
    def labelled(self) -> int:
        """Pixels with a class."""
        return int(self.pixels.sum())

    @property
    def kinds(self) -> str:
        return "masks: " + (", ".join(f"{count} {kind}" for kind, count in self.mask_kinds.items()) or "none")

    def note(self, kind: str, text: str) -> None:
        """Keep the first examples of a kind of trouble."""
        listed = self.examples.setdefault(kind, [])
        if len(listed) < LISTED:
            listed.append(text)

    def add(self, observation: PairRead) -> None:
        if observation.size is not None:
            self.sizes[observation.size] += 1
        if observation.digest is not None:
            self.copies.setdefault(observation.digest, []).append(observation.name)
        for kind, text in observation.troubles:
            setattr(self, kind, getattr(self, kind) + 1)
            self.note(kind, text)
            self.troubled.append(observation.index)
        if observation.mask is not None:
            self._add_mask(observation.index, observation.mask)

    def _add_mask(self, index: int, mask: MaskContents) -> None:
        self.mask_kinds[mask.kind] += 1
        self.stored.update(mask.stored)
        if mask.disputed:
            self.disputed += 1
            self.note("disputed", mask.name)
        for value, pixels in mask.unknown.items():
            known = self.unknown.setdefault(value, UnknownValue(mask.name))
            known.files += 1
            known.pixels += pixels
        if mask.alarming:
            self.troubled.append(index)
        present = mask.pixels > 0
        self.pixels += mask.pixels
        self.images += present
        self.image_pixels += present * mask.pixels.sum()
        self.ignored += mask.ignored
        self.present[index] = frozenset(np.flatnonzero(present).tolist())
        if not present.any():
            self.unlabelled += 1
            self.note("unlabelled", mask.name)

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _COUNTS} | {
            "labelled_pixels": self.labelled,
            "ignored_pixels": self.ignored,
            "unknown": {value: vars(each) for value, each in self.unknown.items()},
            "stored_values": {str(value): count for value, count in sorted(self.stored.items())},
            "mask_kinds": dict(self.mask_kinds),
            "sizes": self.sizes_as_dict(),
            "examples": self.examples,
        }
