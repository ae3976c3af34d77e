"""The doctor's contact sheet: overlays that show trouble first, then every class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ...data.masks import UNKNOWN
from ...data.segmentation import FolderSegmentation, SegmentationData, open_segmentation
from ...errors import DataError
from .label_map_statistics import LabelMapStatistics
from .pictures import contact_sheet, overlay
from .report import Report

TILES = 12


class Shown(Protocol):
    """Of which images to choose: those with trouble, the classes of each image, and the images of each class, (K,)."""

    @property
    def troubled(self) -> list[int]: ...

    @property
    def present(self) -> Mapping[int, frozenset[int]]: ...

    @property
    def images(self) -> np.ndarray: ...


def draw(report: Report[LabelMapStatistics], split: str | None = None) -> Image.Image:
    """A contact sheet of overlays with a legend: troubled images first, then such that every class is shown.

    split: the first of the report's by default.
    """
    split = split or next(iter(report.splits))
    statistics, data = report.splits[split], open_segmentation(report.data, split, strict=False)
    tiles, shown = [], Counter[int]()
    for index in chosen_images(statistics):
        try:
            image, labels, caption = _picture(data, index)
        except DataError:
            continue
        painted = overlay(image, labels, data.palette, ignore_index=data.ignore_index, opacity=0.6)
        tiles.append((caption, image, painted))
        shown.update(dict(zip(*map(np.ndarray.tolist, np.unique(labels, return_counts=True)), strict=True)))
    alarm = shown.pop(UNKNOWN, 0) > 0
    ignored = shown.pop(data.ignore_index, 0) > 0
    entries = [
        (data.palette[label], f"{data.classes[label]}  {statistics.pixels[label] / max(statistics.labelled, 1):.2%}")
        for label in sorted(shown)
    ]
    entries += [((170, 170, 170), "striped: no label")] * ignored + [((255, 0, 0), "red and yellow: no class")] * alarm
    title = (
        f"{report.data}  {split}  {statistics.total} images, {len(report.classes)} classes; shares of labelled pixels"
    )
    return contact_sheet(tiles, entries, title=title)


def chosen_images(found: Shown) -> list[int]:
    """Indices for the sheet: some trouble, then images that add the rarest class not yet shown, then any."""
    chosen = list(dict.fromkeys(found.troubled))[: TILES // 3]
    shown = {label for index in chosen for label in found.present.get(index, ())}
    for label in np.argsort(found.images, kind="stable").tolist():
        if len(chosen) == TILES:
            break
        if label in shown or not found.images[label]:
            continue
        holders = [index for index, classes in found.present.items() if label in classes and index not in chosen]
        if holders:
            best = max(holders, key=lambda index: len(found.present[index] - shown))
            chosen.append(best)
            shown |= found.present[best]
    rest = [index for index in found.present if index not in chosen]
    return chosen + rest[: TILES - len(chosen)]


def _picture(data: SegmentationData, index: int) -> tuple[Image.Image, np.ndarray, str]:
    """Image, labels of its size, caption."""
    name = Path(data.name(index)).name if isinstance(data, FolderSegmentation) else data.name(index)
    if not isinstance(data, FolderSegmentation):
        image, labels = data.load(index)
        return image, labels.astype(np.int32), name
    image, mask = data.image(index), data.stored(index)
    if mask.size == image.size:
        return image, mask.labels, name
    fitted = Image.fromarray(mask.labels).resize(image.size, Image.Resampling.NEAREST)
    return image, np.asarray(fitted), f"{name} (mask {mask.size[0]} x {mask.size[1]}, stretched)"
