"""Label maps of an evaluation as files: index PNG and raw arrays, overlays, submissions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...data.labelled_pixels import FolderSegmentation, SegmentationData
from ...images.label_maps import Palette, overlay, save_index, save_overlay, save_raw, save_submission
from ..file_stems import stems_of

if TYPE_CHECKING:
    from .options import EvalOptions


@dataclass(frozen=True, kw_only=True)
class MaskWriter:
    """Writes the label map of a picture in every form that was asked for; goes to other processes with the pictures.

    stems: file name of every picture, without suffix. out, overlays, submission: folders, or None.
    """

    stems: tuple[str, ...]
    out: str | None
    overlays: str | None
    submission: str | None
    opacity: float
    classes: tuple[str, ...]
    palette: Palette
    layout: str

    def __call__(self, index: int, image: Image.Image, mask: np.ndarray, label: np.ndarray) -> None:
        stem = self.stems[index]
        if self.out:
            save_index(Path(self.out) / f"{stem}.png", mask, self.palette)
            save_raw(Path(self.out) / f"{stem}.npy", mask)
        if self.overlays:
            painted = overlay(image, mask, self.palette, opacity=self.opacity, classes=self.classes)
            save_overlay(Path(self.overlays) / f"{stem}.png", painted)
        if self.submission:
            save_submission(self.submission, f"{stem}.png", mask, self.layout)


def writer_of(data: SegmentationData, options: EvalOptions) -> MaskWriter | None:
    """What writes each label map; None when nothing was asked for."""
    if not (options.out or options.overlays or options.submission):
        return None
    return MaskWriter(
        stems=stems_of([Path(data.name(index)) for index in range(len(data))]),
        out=options.out,
        overlays=options.overlays,
        submission=options.submission,
        opacity=options.opacity,
        classes=data.classes,
        palette=data.palette,
        layout=_submission_layout(data),
    )


def _submission_layout(data: SegmentationData) -> str:
    """A key of label_maps.SUBMISSIONS, by the data set's own way to store labels."""
    if not isinstance(data, FolderSegmentation):
        return "index"
    if data.layout.name == "Cityscapes":
        return "cityscapes"
    return "ade20k" if data.rule.reduce_zero_label else "index"
