"""Segmentation's part of a run's report: scores per class, confusion matrix of pixels, worst-segmented images.

Shapes: H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from PIL import Image

from ...data.segmentation import SegmentationData
from ...images.confusion_picture import confusion_picture
from ...images.label_maps import Palette, overlay
from ..report_parts import Cell, Curves, ReportParts, Section, Table, WorstExample, thumbnail
from .confusion_matrix import ConfusionMatrix

EXAMPLES = 10
OPACITY = 0.6  # of the classes over the image


class SegmentationReport:
    """See `TaskReport`; targets are label maps (H, W), raw results a list with the predicted one first.

    classes: names in label order; palette: a colour each; ignore_index: what pixels without a label hold.
    """

    curves: ClassVar[tuple[Curves, ...]] = (
        Curves(title="segmentation", labels={"val/mIoU": "mIoU", "val/aAcc": "aAcc", "val/mAcc": "mAcc"}),
    )
    headline: ClassVar[Mapping[str, str]] = {"val/mIoU": "{:.2%}"}

    def __init__(self, classes: Sequence[str], palette: Palette, ignore_index: int) -> None:
        self.classes, self.palette = tuple(classes), palette
        self.matrix = ConfusionMatrix(len(classes), ignore_index=ignore_index)
        self.images = 0
        self._worst: list[tuple[float, WorstExample]] = []

    @classmethod
    def of(cls, data: SegmentationData, evaluator: object = None) -> Self:
        """An empty report of a data set."""
        return cls(data.classes, data.palette, data.ignore_index)

    def update(self, name: str, image: Image.Image, target: np.ndarray, raw: Sequence[np.ndarray]) -> None:
        """Count one image's pixels, and keep it if its own mean IoU is among the lowest."""
        mask = raw[0]
        own = ConfusionMatrix(len(self.classes), ignore_index=self.matrix.ignore_index)
        own.update(mask, target, name=name)
        self.matrix += own
        self.images += 1
        score = own.summary()["mIoU"]
        if not own.overall_accuracy < 1 or (len(self._worst) == EXAMPLES and score >= self._worst[-1][0]):
            return
        example = WorstExample(
            pictures=tuple(
                (what, thumbnail(picture))
                for what, picture in (
                    ("picture", image),
                    ("label", overlay(image, target, self.palette, opacity=OPACITY)),
                    ("prediction", overlay(image, mask, self.palette, opacity=OPACITY)),
                )
            ),
            facts=(f"mIoU {_share(score)}",),
            name=Path(name).name,
        )
        self._worst = sorted([*self._worst, (score, example)], key=lambda each: each[0])[:EXAMPLES]

    def parts(self) -> ReportParts:
        """Scores per class, confusion matrix and the worst images."""
        score = f"{self.matrix.summary()['mIoU']:.2%}"
        title = f"pixels of {self.images} images, mIoU {score}"
        picture = confusion_picture(self.matrix.counts, self.classes, title)
        return ReportParts(
            headline={"mIoU": score},
            sections=(
                Section(title="Classes", table=self._scores()),
                Section(title="Confusion matrix", figure=picture),
            ),
            examples_title="Worst-segmented images",
            examples=tuple(example for _, example in self._worst),
            none="No pixel is wrong.",
        )

    def _scores(self) -> Table:
        """IoU and accuracy of every class, with its colour."""
        rows = tuple(
            (
                Cell(row["class"], color=(color[0], color[1], color[2])),
                Cell(_share(row["IoU"]), share=0 if np.isnan(row["IoU"]) else row["IoU"]),
                Cell(_share(row["Acc"])),
                Cell(f"{row['label_pixels']:,}"),
                Cell(f"{row['predicted_pixels']:,}"),
            )
            for row, color in zip(self.matrix.table(self.classes), self.palette, strict=True)
        )
        return Table(columns=("class", "IoU", "accuracy", "pixels", "predicted"), rows=rows)


def _share(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1%}"
