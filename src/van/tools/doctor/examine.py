"""Reading a whole segmentation data set without stopping at the first broken file.

K classes; labels 0 … K - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...data.masks import UNKNOWN, StoredMask, show
from ...data.segmentation import SPLITS, FolderSegmentation, SegmentationData, open_segmentation, splits_of
from ...errors import ConfigError, DataError
from .duplicates import across, digest
from .findings import Finding, class_weights, findings
from .split_statistics import LISTED, Part, UnknownValue


@dataclass(frozen=True)
class Report:
    """All that was found.

    data, layout: what was read; parts: per split; findings: in words, the worst first.
    weights: suggested class weights by method, "median_frequency" and "inverse_log", (K,) each.
    missing: splits that training needs and the data set does not have.
    """

    data: str
    layout: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int
    reduce_zero_label: bool
    parts: dict[str, Part]
    findings: tuple[Finding, ...]
    weights: dict[str, tuple[float, ...]]
    missing: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing was found that breaks training or evaluation."""
        return not any(finding.level == "error" for finding in self.findings)

    def table(self) -> list[dict[str, Any]]:
        """One row per class: label, name, colour, pixels, share and images of each split, suggested weights."""
        rows = []
        for label, name in enumerate(self.classes):
            row: dict[str, Any] = {"label": label, "name": name, "color": list(self.palette[label])}
            for split, part in self.parts.items():
                share = int(part.pixels[label]) / max(part.labelled, 1)
                row[split] = {
                    "pixels": int(part.pixels[label]),
                    "share": round(share, 6),
                    "images": int(part.images[label]),
                }
            row["weights"] = {method: weights[label] for method, weights in self.weights.items()}
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dict of everything."""
        return {
            "data": self.data,
            "layout": self.layout,
            "num_classes": len(self.classes),
            "ignore_index": self.ignore_index,
            "reduce_zero_label": self.reduce_zero_label,
            "healthy": self.healthy,
            "findings": [{"level": each.level, "text": each.text} for each in self.findings],
            "splits": {split: part.to_dict() for split, part in self.parts.items()},
            "duplicates": {f"{one}, {two}": pairs for (one, two), pairs in across(self.parts).items()},
            "classes": self.table(),
        }


def examine(
    data: str | Path,
    splits: Sequence[str] | None = None,
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Reads every image and mask of a data set, or `limit` per split spread evenly over it.

    splits: all that the data set has by default; progress: called with (done, total) after each pair.
    Broken files, wrong sizes, unknown values, and a split that cannot be opened beside one that can, are collected,
    not raised. Raises DataError or ConfigError when the data set cannot be opened at all.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}; expected at least one image per split")
    there = splits_of(data)
    opened, closed = _open(data, splits or there)
    chosen = {split: _spread(len(each), limit) for split, each in opened.items()}
    total, done = sum(map(len, chosen.values())), 0
    parts = {}
    for split, each in opened.items():
        part = parts[split] = _listed(each)
        for index in chosen[split]:
            _look(each, index, part)
            done += 1
            if progress is not None:
                progress(done, total)
    first = next(iter(opened.values()))
    rule = first.rule if isinstance(first, FolderSegmentation) else None
    missing = () if splits else tuple(split for split in SPLITS if split not in there)
    weights = class_weights(parts.get("train") or next(iter(parts.values())))
    return Report(
        data=str(data),
        layout=first.layout.name if isinstance(first, FolderSegmentation) else "digit scenes",
        classes=first.classes,
        palette=first.palette,
        ignore_index=first.ignore_index,
        reduce_zero_label=rule is not None and rule.reduce_zero_label,
        parts=parts,
        findings=findings(parts, first.classes, rule, closed=closed, missing=missing),
        weights=weights,
        missing=missing,
    )


def _open(data: str | Path, splits: Sequence[str]) -> tuple[dict[str, SegmentationData], dict[str, str]]:
    """The splits that can be read, and what is wrong with the others; raises DataError when none can."""
    opened: dict[str, SegmentationData] = {}
    failed: dict[str, DataError] = {}
    for split in splits:
        try:
            opened[split] = open_segmentation(data, split, strict=False)
        except DataError as error:
            failed[split] = error
    if not opened:
        raise next(iter(failed.values()))
    return opened, {split: str(error) for split, error in failed.items()}


def _spread(length: int, limit: int | None) -> list[int]:
    if limit is None or limit >= length:
        return list(range(length))
    return sorted({int(position) for position in np.linspace(0, length - 1, limit).round()})


def _listed(data: SegmentationData) -> Part:
    part = Part(total=len(data), classes=len(data.classes))
    if isinstance(data, FolderSegmentation):
        for kind in ("without_mask", "without_image"):
            paths = getattr(data.listing, kind)
            setattr(part, kind, len(paths))
            for path in paths[:LISTED]:
                part.note(kind, str(path))
    return part


def _look(data: SegmentationData, index: int, part: Part) -> None:
    """Adds one pair to `part`; a file that cannot be read leaves its partner's figures alone."""
    part.seen += 1
    size: tuple[int, int] | None = None
    mask: StoredMask | None = None
    try:
        if isinstance(data, FolderSegmentation):
            picture = data.image(index)
            size = picture.size
            part.sizes[size] += 1
            part.pictures.setdefault(digest(picture), []).append(data.name(index))
    except DataError as error:
        _trouble(part, index, "unreadable", str(error))
    try:
        mask = _stored(data, index)
    except DataError as error:
        _trouble(part, index, "unreadable", str(error))
    if mask is None:
        return
    if not isinstance(data, FolderSegmentation):
        part.sizes[mask.size] += 1
    if size is not None and mask.size != size:
        text = f"{_mask_name(data, index)}: {mask.size[0]} x {mask.size[1]}, its image {size[0]} x {size[1]}"
        _trouble(part, index, "mismatched", text)
    _count(data, index, mask, part)


def _count(data: SegmentationData, index: int, mask: StoredMask, part: Part) -> None:
    """Histograms of stored values and classes, and what does not fit."""
    part.kinds[mask.kind] += 1
    if mask.kind != "color":
        values, counts = np.unique(mask.values, return_counts=True)
        part.stored.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    if mask.disputed:
        part.disputed += 1
        part.note("disputed", _mask_name(data, index))
    for value, pixels in mask.unknown().items():
        known = part.unknown.setdefault(show(value, mask.kind), UnknownValue(_mask_name(data, index)))
        known.files += 1
        known.pixels += pixels
    if (mask.labels == UNKNOWN).any():
        part.troubled.append(index)
    inside = mask.labels[(mask.labels >= 0) & (mask.labels < part.classes)]
    pixels_of = np.bincount(inside, minlength=part.classes)
    present = pixels_of > 0
    part.pixels += pixels_of
    part.images += present
    part.image_pixels += present * len(inside)
    part.ignored += int((mask.labels == data.ignore_index).sum())
    part.present[index] = frozenset(np.flatnonzero(present).tolist())
    if not present.any():
        part.unlabelled += 1
        part.note("unlabelled", _mask_name(data, index))


def _trouble(part: Part, index: int, kind: str, text: str) -> None:
    setattr(part, kind, getattr(part, kind) + 1)
    part.note(kind, text)
    part.troubled.append(index)


def _stored(data: SegmentationData, index: int) -> StoredMask:
    if isinstance(data, FolderSegmentation):
        return data.stored(index)
    labels = data.load(index)[1].astype(np.int32)
    return StoredMask(labels, labels, "index")


def _mask_name(data: SegmentationData, index: int) -> str:
    return str(data.listing.pairs[index][1]) if isinstance(data, FolderSegmentation) else data.name(index)
