"""What one split of a data set of objects, or of panoptic segments, holds, in figures.

K classes; labels 0 … K - 1.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .split_statistics import SplitStatistics

LISTED = 10  # texts kept of each kind of trouble


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """What was read of an image and of what is annotated on it.

    size: (width, height), None where the image cannot be read; digest: of its pixels.
    labels: class of each object or segment; crowds: how many of these are crowds.
    troubles: (kind, text) of what is wrong. void: share of the pixels in no segment; 0 for objects.
    """

    index: int
    name: str
    size: tuple[int, int] | None = None
    digest: bytes | None = None
    labels: tuple[int, ...] = ()
    crowds: int = 0
    troubles: tuple[tuple[str, str], ...] = ()
    void: float = 0.0


@dataclass(kw_only=True)
class ObjectStatistics(SplitStatistics[AnnotatedImage]):
    """What one split holds. what: "objects" or "segments"; masks: whether all objects have one.

    counts: objects of each class, (K,); images: images that hold a class, (K,); crowds; empty: images without any.
    troubles: by kind; `examples` has the first of each in words. boxes_within_one: images whose boxes all are within
    one pixel of the corner, as fractions are. present: classes of every image; troubled: images to show first.
    """

    what: str
    classes: tuple[str, ...]
    masks: bool = False
    crowds: int = 0
    empty: int = 0
    void: float = 0.0
    troubles: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    present: dict[int, frozenset[int]] = field(default_factory=dict)
    troubled: list[int] = field(default_factory=list)
    counts: np.ndarray = field(init=False)
    images: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.counts, self.images = (np.zeros(len(self.classes), np.int64) for _ in range(2))

    def note(self, kind: str, text: str, times: int = 1) -> None:
        """Count a trouble, and keep the first of its kind in words."""
        self.troubles[kind] += times
        listed = self.examples.setdefault(kind, [])
        if len(listed) < LISTED:
            listed.append(" ".join(text.split()))

    def add(self, observation: AnnotatedImage) -> None:
        if observation.size is not None:
            self.sizes[observation.size] += 1
        if observation.digest is not None:
            self.copies.setdefault(observation.digest, []).append(observation.name)
        for kind, text in observation.troubles:
            self.note(kind, text)
        if observation.troubles:
            self.troubled.append(observation.index)
        counts = np.bincount(np.array(observation.labels, np.int64), minlength=len(self.classes))
        self.counts += counts
        self.images += counts > 0
        self.crowds += observation.crowds
        self.empty += not observation.labels
        self.void += observation.void
        self.present[observation.index] = frozenset(observation.labels)

    @property
    def total_count(self) -> int:
        """Objects or segments of all classes."""
        return int(self.counts.sum())

    @property
    def kinds(self) -> str:
        masks = (" with masks" if self.masks else ", boxes only") if self.what == "objects" else ""
        return f"{self.total_count} {self.what}{masks}" + (f", {self.crowds} of them crowds" if self.crowds else "")

    def to_dict(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "seen": self.seen,
            self.what: self.total_count,
            "crowds": self.crowds,
            "without_annotations": self.empty,
            "troubles": dict(self.troubles),
            "examples": self.examples,
            "sizes": self.sizes_as_dict(),
        } | ({"masks": self.masks} if self.what == "objects" else {"void": round(self.void / max(self.seen, 1), 6)})
