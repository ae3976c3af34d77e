"""Panoptic quality: PQ, and its parts SQ (how well segments are outlined) and RQ (how many are found).

A predicted segment matches a true one of its class when they overlap by more than one half (IoU), which at most one
can; pixels without a true label count for neither. Crowds are never matched. A predicted segment without a match is an
error unless more than half of it lies on pixels without a label or on the crowd of its class. Of several crowds of a
class in an image, the last one counts.

Source: arXiv 1801.00868, and the rule by which COCO scores panoptic results.

Shapes: C classes, H, W sides of an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...data.objects import Segment

VOID = 0  # id of the pixels without a label, in truth and prediction


@dataclass(eq=False)
class PanopticCounts:
    """What adds up over images: per class the overlaps of its matches, its wrong and its missed segments.

    overlaps: C lists; the order of their numbers does not matter to any score. wrong, missed: (C,) int64.
    """

    overlaps: list[list[float]]
    wrong: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    missed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def empty(cls, num_classes: int) -> PanopticCounts:
        """Nothing counted."""
        zeros = np.zeros(num_classes, np.int64)
        return cls([[] for _ in range(num_classes)], zeros, zeros.copy())

    def __add__(self, other: PanopticCounts) -> PanopticCounts:
        overlaps = [one + two for one, two in zip(self.overlaps, other.overlaps, strict=True)]
        return PanopticCounts(overlaps, self.wrong + other.wrong, self.missed + other.missed)

    def update(
        self,
        truth: np.ndarray,
        true_segments: Sequence[Segment],
        found: np.ndarray,
        found_labels: Sequence[int],
    ) -> None:
        """Count an image.

        truth: (H, W) ids of `true_segments`. found: (H, W), i + 1 where the segment of class `found_labels[i]` is.
        """
        shared = _shared_pixels(truth, found)
        true_areas, found_areas = _areas(shared, 0), _areas(shared, 1)
        segments = {each.id: each for each in true_segments}
        matched_true, matched_found = set[int](), set[int]()
        for (true_id, found_id), pixels in shared.items():
            segment = segments.get(true_id)
            if segment is None or found_id == VOID or segment.crowd or segment.label != found_labels[found_id - 1]:
                continue
            unlabelled = shared.get((VOID, found_id), 0)
            overlap = pixels / (true_areas[true_id] + found_areas[found_id] - pixels - unlabelled)
            if overlap > 0.5:
                self.overlaps[segment.label].append(overlap)
                matched_true.add(true_id)
                matched_found.add(found_id)
        for each in true_segments:
            if not each.crowd and each.id not in matched_true:
                self.missed[each.label] += 1
        crowds = {each.label: each.id for each in true_segments if each.crowd}
        for found_id, area in found_areas.items():
            if found_id == VOID or found_id in matched_found:
                continue
            label = found_labels[found_id - 1]
            excused = shared.get((VOID, found_id), 0)
            if label in crowds:
                excused += shared.get((crowds[label], found_id), 0)
            if excused / area <= 0.5:
                self.wrong[label] += 1

    @property
    def matched(self) -> np.ndarray:
        """Matches of each class, (C,)."""
        return np.array([len(each) for each in self.overlaps], np.int64)

    def of_classes(self) -> list[dict[str, float]]:
        """PQ, SQ, RQ of every class; NaN for those that neither truth nor prediction has."""
        rows = []
        for overlaps, wrong, missed in zip(self.overlaps, self.wrong.tolist(), self.missed.tolist(), strict=True):
            total, count = math.fsum(overlaps), len(overlaps)
            if not count + wrong + missed:
                rows.append(dict.fromkeys(("PQ", "SQ", "RQ"), math.nan))
                continue
            segments = count + wrong / 2 + missed / 2
            rows.append({"PQ": total / segments, "SQ": total / count if count else 0.0, "RQ": count / segments})
        return rows

    def scores(self, things: Sequence[bool]) -> dict[str, float]:
        """Means over classes: of all, of things, of stuff; NaN where none of them occurs."""
        rows = self.of_classes()
        parts = {"": rows}
        parts["_things"] = [row for row, thing in zip(rows, things, strict=True) if thing]
        parts["_stuff"] = [row for row, thing in zip(rows, things, strict=True) if not thing]
        return {f"{key}{part}": _mean([row[key] for row in of]) for part, of in parts.items() for key in _KEYS}


_KEYS = ("PQ", "SQ", "RQ")


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _shared_pixels(truth: np.ndarray, found: np.ndarray) -> dict[tuple[int, int], int]:
    """(true id, found id) -> pixels that have both."""
    pairs = truth.astype(np.int64) << 32 | found.astype(np.int64)
    codes, counts = np.unique(pairs, return_counts=True)
    return {(code >> 32, code & 0xFFFFFFFF): count for code, count in zip(codes.tolist(), counts.tolist(), strict=True)}


def _areas(shared: dict[tuple[int, int], int], side: int) -> dict[int, int]:
    """Pixels of each id of the truth (side 0) or of what was found (side 1)."""
    areas: dict[int, int] = {}
    for pair, pixels in shared.items():
        areas[pair[side]] = areas.get(pair[side], 0) + pixels
    return areas
