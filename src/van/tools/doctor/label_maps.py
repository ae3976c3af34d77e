"""The doctor's view of segmentation data: what is read of every image and mask, and the report on it.

K classes; labels 0 … K - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...data.masks import UNKNOWN, MaskRule, StoredMask, show
from ...data.segmentation import SPLITS, FolderSegmentation, SegmentationData, open_segmentation, splits_of
from ...errors import DataError
from .duplicates import across, digest_of
from .label_map_findings import class_weights, findings
from .label_map_statistics import LISTED, LabelMapStatistics, MaskContents, PairRead
from .report import Report
from .walk import OpenedData, SplitReader


@dataclass(frozen=True, kw_only=True)
class LabelMapReport(Report[LabelMapStatistics]):
    """All that was found in a segmentation data set.

    palette: a colour per class. weights: suggested class weights by method, "median_frequency" and "inverse_log", (K,)
    each.
    """

    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int
    reduce_zero_label: bool
    weights: dict[str, tuple[float, ...]]

    @property
    def heading(self) -> str:
        zero = ", 0 counts as no label" if self.reduce_zero_label else ""
        return f"{super().heading}, {self.ignore_index} is ignored{zero}"

    @property
    def columns(self) -> tuple[str, ...]:
        of_splits = (f"{split} {what}" for split in self.splits for what in ("pixels", "images"))
        return ("label", "class", *of_splits, "weight")

    def rows(self) -> list[tuple[str, ...]]:
        rows = []
        for row in self.table():
            figures = [text for s in self.splits for text in (f"{row[s]['share']:.3%}", str(row[s]["images"]))]
            rows.append((str(row["label"]), row["name"], *figures, f"{row['weights']['median_frequency']:.3f}"))
        return rows

    @property
    def footnote(self) -> str:
        return "weight: suggested for the loss, median frequency balancing (--json has inverse-log ones too)"

    def table(self) -> list[dict[str, Any]]:
        """One row per class: label, name, colour, pixels, share and images of each split, suggested weights."""
        rows = []
        for label, name in enumerate(self.classes):
            row: dict[str, Any] = {"label": label, "name": name, "color": list(self.palette[label])}
            for split, statistics in self.splits.items():
                pixels = int(statistics.pixels[label])
                share = round(pixels / max(statistics.labelled, 1), 6)
                row[split] = {"pixels": pixels, "share": share, "images": int(statistics.images[label])}
            row["weights"] = {method: weights[label] for method, weights in self.weights.items()}
            rows.append(row)
        return rows

    def facts(self) -> dict[str, Any]:
        return {
            "ignore_index": self.ignore_index,
            "reduce_zero_label": self.reduce_zero_label,
            "duplicates": {f"{one}, {two}": pairs for (one, two), pairs in across(self.splits).items()},
        }


class LabelMaps(OpenedData):
    """A segmentation data set; a split that cannot be opened beside one that can is a finding.

    splits: all that the data set has by default. Raises DataError or ConfigError when none can be opened.
    """

    def __init__(self, data: str | Path, splits: Sequence[str] | None = None) -> None:
        there = splits_of(data)
        self.data = str(data)
        self.missing = () if splits else tuple(split for split in SPLITS if split not in there)
        opened, self.closed = _open(data, splits or there)
        self.readers: dict[str, LabelMapReader] = {split: LabelMapReader(each) for split, each in opened.items()}

    def report(self) -> LabelMapReport:
        """What the masks hold, the conclusions, and suggested weights of the loss."""
        splits = {split: reader.statistics for split, reader in self.readers.items()}
        first = next(iter(self.readers.values()))
        rule, classes = first.rule, first.data.classes
        return LabelMapReport(
            data=self.data,
            layout=first.layout,
            classes=classes,
            palette=first.data.palette,
            ignore_index=first.data.ignore_index,
            reduce_zero_label=rule is not None and rule.reduce_zero_label,
            splits=splits,
            findings=findings(splits, classes, rule, closed=self.closed, missing=self.missing),
            weights=class_weights(splits.get("train") or next(iter(splits.values()))),
            missing=self.missing,
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


class LabelMapReader(SplitReader[PairRead]):
    """The pairs of one split; made scenes have no files of their own, so that nothing can be wrong with these."""

    statistics: LabelMapStatistics

    def __init__(self, data: SegmentationData) -> None:
        self.data = data
        self.folder = data if isinstance(data, FolderSegmentation) else None
        self.rule: MaskRule | None = None if self.folder is None else self.folder.rule
        self.layout = "digit scenes" if self.folder is None else self.folder.layout.name
        self.statistics = LabelMapStatistics(total=len(data), classes=len(data.classes))
        for kind in ("without_mask", "without_image"):
            paths = () if self.folder is None else getattr(self.folder.listing, kind)
            setattr(self.statistics, kind, len(paths))
            for path in paths[:LISTED]:
                self.statistics.note(kind, str(path))

    def __len__(self) -> int:
        return len(self.data)

    def read(self, index: int) -> PairRead:
        """A file that cannot be read leaves its partner's figures alone."""
        troubles: list[tuple[str, str]] = []
        image: Image.Image | None = None
        mask: StoredMask | None = None
        try:
            image = None if self.folder is None else self.folder.image(index)
        except DataError as error:
            troubles.append(("unreadable", str(error)))
        try:
            mask = self._mask(index)
        except DataError as error:
            troubles.append(("unreadable", str(error)))
        size = image.size if image is not None else mask.size if mask is not None and self.folder is None else None
        if image is not None and mask is not None and mask.size != image.size:
            stored = f"{mask.size[0]} x {mask.size[1]}, its image {image.width} x {image.height}"
            troubles.append(("mismatched", f"{self._mask_name(index)}: {stored}"))
        return PairRead(
            index=index,
            name=self.data.name(index),
            digest=None if image is None else digest_of(image),
            size=size,
            troubles=tuple(troubles),
            mask=None if mask is None else self._contents(index, mask),
        )

    def _mask(self, index: int) -> StoredMask:
        if self.folder is not None:
            return self.folder.stored(index)
        labels = self.data.load(index)[1].astype(np.int32)
        return StoredMask(labels, labels, "index")

    def _mask_name(self, index: int) -> str:
        return self.data.name(index) if self.folder is None else str(self.folder.listing.pairs[index][1])

    def _contents(self, index: int, mask: StoredMask) -> MaskContents:
        """Histograms of stored values and classes."""
        stored: dict[int, int] = {}
        if mask.kind != "color":
            values, counts = np.unique(mask.values, return_counts=True)
            stored = dict(zip(values.tolist(), counts.tolist(), strict=True))
        classes = len(self.data.classes)
        inside = mask.labels[(mask.labels >= 0) & (mask.labels < classes)]
        return MaskContents(
            name=self._mask_name(index),
            kind=mask.kind,
            stored=stored,
            unknown={show(value, mask.kind): pixels for value, pixels in mask.unknown().items()},
            pixels=np.bincount(inside, minlength=classes),
            ignored=int((mask.labels == self.data.ignore_index).sum()),
            alarming=bool((mask.labels == UNKNOWN).any()),
            disputed=mask.disputed,
        )
