"""What a model got wrong in an image, for people: which objects it missed, and which of its own are not there.

Shapes: K objects, D detections.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...data.objects import Objects
from .found import Found

OVERLAP = 0.5


@dataclass(frozen=True)
class Mistakes:
    """missed: indices of objects; wrong: indices of detections; right: how many objects were found."""

    missed: tuple[int, ...]
    wrong: tuple[int, ...]
    right: int

    @property
    def count(self) -> int:
        """All of them."""
        return len(self.missed) + len(self.wrong)


def mistakes(found: Found, labels: np.ndarray, truth: Objects) -> Mistakes:
    """Detections, the surest first, each with the free object of its class that it overlaps most, by half at least.

    labels: (D,) classes of the detections among those of the data. What lies in a crowd of its class is not wrong.
    """
    shared = _shared(found.boxes, truth.boxes)
    own, theirs = _areas(found.boxes), _areas(truth.boxes)
    overlap = shared / np.maximum(own[:, None] + theirs - shared, 1e-9)
    inside = shared / np.maximum(own[:, None], 1e-9)
    free, wrong = ~truth.crowd, []
    for i, label in enumerate(labels.tolist()):
        fitting = np.where(free & (truth.labels == label), overlap[i], 0)
        if len(fitting) and fitting.max() >= OVERLAP:
            free[fitting.argmax()] = False
        elif not (inside[i] * (truth.crowd & (truth.labels == label)) > OVERLAP).any():
            wrong.append(i)
    missed = np.flatnonzero(free).tolist()
    return Mistakes(tuple(missed), tuple(wrong), int((~truth.crowd).sum()) - len(missed))


def _shared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(D, 4), (K, 4) corners -> (D, K) pixels that both cover."""
    low, high = np.maximum(one[:, None, :2], other[None, :, :2]), np.minimum(one[:, None, 2:], other[None, :, 2:])
    return np.clip(high - low, 0, None).prod(2)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1)
