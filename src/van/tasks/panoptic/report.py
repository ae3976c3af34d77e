"""Panoptic segmentation's part of a run's report: quality per class, the worst images beside their truth.

Shapes: H, W sides of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from PIL import Image

from ...data.objects import Panoptic
from ...images.label_maps import overlay
from ..coco.drawing import draw_segments, scaled, scaled_map
from ..coco.report import class_table, share
from ..report_parts import THUMBNAIL, Curves, ReportParts, Section, WorstExample
from .evaluation import PanopticEvaluator
from .metric import Segmented

EXAMPLES = 10
OPACITY = 0.6  # of the classes over the image


class PanopticReport:
    """See `TaskReport`."""

    curves: ClassVar[tuple[Curves, ...]] = (
        Curves(title="panoptic quality", labels={"val/PQ": "PQ", "val/PQ_things": "things", "val/PQ_stuff": "stuff"}),
        Curves(title="its parts", labels={"val/SQ": "SQ (outlines)", "val/RQ": "RQ (segments found)"}),
    )
    headline: ClassVar[Mapping[str, str]] = {"val/PQ": "{:.2%}"}

    def __init__(self, evaluator: PanopticEvaluator) -> None:
        self.metric, self.data = evaluator.metric, evaluator.data
        self._worst: list[tuple[float, WorstExample]] = []

    @classmethod
    def of(cls, data: Any, evaluator: Callable[[], Any]) -> Self:
        """An empty report of a data set."""
        return cls(evaluator())

    def update(self, name: str, image: Image.Image, target: Panoptic, raw: Segmented) -> None:
        """Count one image, and keep it if its own panoptic quality is among the lowest."""
        own = self.metric.empty()
        own.update([raw], [target], [name])
        self.metric = self.metric + own
        score = own.compute()["PQ"]
        if not score < 1 or (len(self._worst) == EXAMPLES and score >= self._worst[-1][0]):
            return
        missed, wrong = (int(counts.sum()) for counts in (own.counted.missed, own.counted.wrong))
        true_labels = {each.id: each.label for each in target.segments}
        found_labels = {i: self.metric.order[label] for i, label in enumerate(raw.labels, start=1)}
        example = WorstExample(
            pictures=(
                ("truth", self._drawn(image, target.segment_ids, true_labels)),
                ("prediction", self._drawn(image, raw.segment_ids, found_labels)),
            ),
            facts=(f"PQ {share(score)}", f"{missed} missed", f"{wrong} wrong"),
            name=Path(name).name,
        )
        self._worst = sorted([*self._worst, (score, example)], key=lambda each: each[0])[:EXAMPLES]

    def _drawn(self, image: Image.Image, ids: np.ndarray, labels: Mapping[int, int]) -> Image.Image:
        picture = scaled(image.convert("RGB"), THUMBNAIL / max(image.size))
        shown = scaled_map(ids, picture.size)
        known, places = np.unique(shown, return_inverse=True)
        table = np.array([labels.get(int(each), len(self.data.classes)) for each in known], np.int64)
        classes = table[places.reshape(shown.shape)]
        return draw_segments(overlay(picture, classes, self.data.palette, opacity=OPACITY), shown)

    def parts(self) -> ReportParts:
        """Quality per class, and the worst images."""
        scores = self.metric.compute()
        columns = ["PQ", "SQ", "RQ", "matched", "wrong", "missed"]
        return ReportParts(
            headline={name: share(scores[name], digits=2) for name in ("PQ", "PQ_things", "PQ_stuff")},
            sections=(Section(title="Classes", table=class_table(self.metric.table(), self.data, columns)),),
            examples_title="Worst-segmented images",
            examples=tuple(example for _, example in self._worst),
            none="Every segment is right to the pixel.",
        )
