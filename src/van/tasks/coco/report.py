"""The part of a run's report that models of objects have: scores per class, the worst images beside their truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from PIL import Image

from ...data.objects import ObjectData, Objects
from ...images import rle
from ..report_parts import THUMBNAIL, Cell, Curves, ReportParts, Section, Table, WorstExample
from .drawing import draw_objects
from .found import Found
from .metric import PREFIXES, scores_of
from .mistakes import Mistakes, mistakes
from .object_evaluation import ObjectEvaluator
from .processor import SHOWN_FROM

EXAMPLES = 10


class ObjectReport:
    """See `TaskReport`. Examples count detections of a score from SHOWN_FROM."""

    curves: ClassVar[tuple[Curves, ...]] = (
        Curves(title="average precision of boxes", labels={"val/AP": "AP", "val/AP50": "AP50", "val/AP75": "AP75"}),
    )
    headline: ClassVar[Mapping[str, str]] = {"val/AP": "{:.2%}", "val/AP50": "{:.2%}"}

    def __init__(self, evaluator: ObjectEvaluator) -> None:
        self.metric, self.data = evaluator.metric, evaluator.data
        self._worst: list[tuple[tuple[int, int], WorstExample]] = []

    @classmethod
    def of(cls, data: Any, evaluator: Callable[[], Any]) -> Self:
        """An empty report of a data set."""
        return cls(evaluator())

    def update(self, name: str, image: Image.Image, target: Objects, raw: Found) -> None:
        """Count one image, and keep it if the model made more mistakes in it than in others."""
        self.metric.update([raw], [target], [name])
        sure = _from_score(raw, SHOWN_FROM)
        labels = np.asarray(self.metric.order, np.int64)[sure.labels]
        found = mistakes(sure, labels, target)
        rank = (-found.count, found.right)
        if not found.count or (len(self._worst) == EXAMPLES and rank >= self._worst[-1][0]):
            return
        example = WorstExample(
            pictures=(("truth", self._truth(image, target)), ("prediction", self._prediction(image, sure, labels))),
            facts=_facts(found),
            name=Path(name).name,
        )
        self._worst = sorted([*self._worst, (rank, example)], key=lambda each: each[0])[:EXAMPLES]

    def _truth(self, image: Image.Image, target: Objects) -> Image.Image:
        pairs = zip(target.labels, target.crowd.tolist(), strict=True)
        names = [f"{self.data.classes[label]}{' (crowd)' * crowd}" for label, crowd in pairs]
        masks = target.read_masks() if self.metric.masks and target.read_masks is not None else None
        return self._drawn(image, target.boxes, target.labels, names, masks)

    def _prediction(self, image: Image.Image, found: Found, labels: np.ndarray) -> Image.Image:
        texts = [f"{self.data.classes[k]}  {score:.0%}" for k, score in zip(labels, found.scores, strict=True)]
        masks = rle.decode(found.masks, found.size) if self.metric.masks and found.masks is not None else None
        return self._drawn(image, found.boxes, labels, texts, masks)

    def _drawn(
        self, image: Image.Image, boxes: np.ndarray, labels: np.ndarray, texts: list[str], masks: np.ndarray | None
    ) -> Image.Image:
        factor = THUMBNAIL / max(image.size)
        return draw_objects(image, boxes, labels.tolist(), texts, self.data.palette, masks=masks, factor=factor)

    def parts(self) -> ReportParts:
        """Scores per class, and the worst images."""
        found = self.metric.precision_recall()
        scores = scores_of(found)
        shown = [f"{PREFIXES[kind]}{name}" for kind in found for name in ("AP", "AP50", "AP75")]
        table = class_table(self.metric.rows(found), self.data, [*shown, "objects", "detections"])
        return ReportParts(
            headline={name: share(scores[name], digits=2) for name in shown},
            sections=(Section(title="Classes", table=table),),
            examples_title=f"Images with most mistakes (detections from {SHOWN_FROM:.0%})",
            examples=tuple(example for _, example in self._worst),
            none="Every object was found, and nothing else.",
        )


def class_table(rows: list[dict[str, Any]], data: ObjectData | Any, columns: list[str]) -> Table:
    """A row per class, its colour before its name; the first column's score as a bar too."""
    cells = tuple(
        (
            Cell(row["class"], color=(color[0], color[1], color[2])),
            Cell(share(first := row[columns[0]]), share=0 if np.isnan(first) else first),
            *(Cell(share(row[name]) if isinstance(row[name], float) else f"{row[name]:,}") for name in columns[1:]),
        )
        for row, color in zip(rows, data.palette, strict=True)
    )
    return Table(columns=("class", *columns), rows=cells)


def share(value: float, digits: int = 1) -> str:
    """A score in percent."""
    return "–" if np.isnan(value) else f"{value:.{digits}%}"


def _facts(found: Mistakes) -> tuple[str, ...]:
    return f"{len(found.missed)} missed", f"{len(found.wrong)} wrong", f"{found.right} right"


def _from_score(found: Found, least: float) -> Found:
    chosen = np.flatnonzero(found.scores >= least)
    masks = None if found.masks is None else tuple(found.masks[i] for i in chosen)
    return replace(
        found, boxes=found.boxes[chosen], labels=found.labels[chosen], scores=found.scores[chosen], masks=masks
    )
