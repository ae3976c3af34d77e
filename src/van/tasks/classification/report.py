"""Classification's part of a run's report: confusion matrix, scores per class, images of which it was wrongly sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from PIL import Image

from ...images.confusion_picture import confusion_picture
from ..report_parts import Cell, Curves, ReportParts, Section, Table, WorstExample, thumbnail
from .meter import ClassificationMeter, softmax

EXAMPLES = 24


class ClassificationReport:
    """See `TaskReport`; targets are labels, raw results logits (K,). classes: names in label order."""

    curves: ClassVar[tuple[Curves, ...]] = (
        Curves(title="accuracy (%)", labels={"val/top1": "top-1", "val/top5": "top-5"}),
        Curves(
            title="mean over classes (%)",
            labels={"val/macro_f1": "F1", "val/macro_precision": "precision", "val/macro_recall": "recall"},
            only_monitored=True,
        ),
    )
    headline: ClassVar[Mapping[str, str]] = {
        "val/top1": "{:.2f}%",
        "val/top5": "{:.2f}%",
        "val/macro_f1": "{:.2f}%",
    }

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.meter = ClassificationMeter(classes)
        self._worst: list[tuple[float, WorstExample]] = []

    @classmethod
    def of(cls, data: Any, evaluator: object = None) -> Self:
        """An empty report of a data set, or a stream, with `classes`."""
        return cls(data.classes)

    def update(self, name: str, image: Image.Image, target: int, raw: np.ndarray) -> None:
        """Count one image, and keep it if it is among those of which the model was most surely wrong."""
        self.meter.update(raw[None], [target])
        probabilities = softmax(raw)
        guess = int(probabilities.argmax())
        if guess == target:
            return
        sure = float(probabilities[guess])
        example = WorstExample(
            pictures=(("", thumbnail(image)),),
            wrong=self.classes[guess],
            facts=(f"{sure:.0%}", f"is {self.classes[target]}"),
            name=Path(name).name,
        )
        self._worst = sorted([*self._worst, (sure, example)], key=lambda each: -each[0])[:EXAMPLES]

    def parts(self) -> ReportParts:
        """Confusion matrix with the scores per class below it, and the worst images."""
        score = f"{self.meter.top1:.2f}%"
        title = f"{self.meter.count} images, top-1 {score}"
        picture = confusion_picture(self.meter.confusion(), self.classes, title)
        return ReportParts(
            headline={"top1": score},
            sections=(Section(title="Confusion matrix", figure=picture, table=self._scores()),),
            examples_title="Worst-classified images",
            examples=tuple(example for _, example in self._worst),
            none=f"None of {self.meter.count} images is wrong.",
        )

    def _scores(self) -> Table:
        """Precision, recall and F1 of every class, and their means."""
        rows = [
            (
                Cell(score.name),
                Cell(f"{score.f1:.1f}%", share=score.f1 / 100),
                *_texts(f"{score.precision:.1f}%", f"{score.recall:.1f}%", f"{score.count:,}"),
                Cell(score.confused_with or ""),
            )
            for score in self.meter.per_class()
        ]
        means = [f"{mean:.1f}%" for mean in self._means()]
        rows.append(_texts("mean over classes", *means, f"{self.meter.count:,}", ""))
        columns = ("class", "F1", "precision", "recall", "images", "most confused with")
        return Table(title="Classes", columns=columns, rows=tuple(rows))

    def _means(self) -> list[float]:
        means = self.meter.macro()
        return [means[name] for name in ("macro_f1", "macro_precision", "macro_recall")]


def _texts(*texts: str) -> tuple[Cell, ...]:
    return tuple(map(Cell, texts))
