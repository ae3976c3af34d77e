"""How far colours are off, in percent of the range."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from van.tasks.base import Evaluation, EvaluationData, Evaluator, Metric, Pass

from .processor import MeanColourProcessor


class MeanColourMetric(Metric[np.ndarray, np.ndarray]):
    """classes: names of the channels. tolerance: errors up to which a colour counts as right."""

    def __init__(self, classes: Sequence[str], tolerance: float) -> None:
        self.classes, self.tolerance = tuple(classes), tolerance
        self.errors: list[np.ndarray] = []  # (3,) of every image

    def update(self, raw: Sequence[np.ndarray], targets: Sequence[np.ndarray], names: Sequence[str]) -> None:
        self.errors += [np.abs(colour - target) for colour, target in zip(raw, targets, strict=True)]

    def __add__(self, other: "MeanColourMetric") -> "MeanColourMetric":
        total = self.empty()
        total.errors = self.errors + other.errors
        return total

    def empty(self) -> "MeanColourMetric":
        return MeanColourMetric(self.classes, self.tolerance)

    def compute(self) -> dict[str, float]:
        errors = np.stack(self.errors)
        return {"right": float((errors.max(1) <= self.tolerance).mean()), "error": float(errors.mean())}

    def table(self) -> list[dict]:
        means = np.stack(self.errors).mean(0)
        return [{"class": name, "error": float(mean)} for name, mean in zip(self.classes, means, strict=True)]


@dataclass(frozen=True, kw_only=True)
class MeanColourEvaluation(Evaluation):
    """right: share of images whose colour is right; error: mean over images and channels."""

    monitored: ClassVar[str] = "right"

    checkpoint: str
    data: str
    split: str
    count: int
    seconds: float
    right: float
    error: float

    def scores(self) -> dict[str, float]:
        return {"right": self.right, "error": self.error}

    def to_dict(self) -> dict:
        return asdict(self)

    def row(self) -> dict:
        return self.scores()

    def columns(self) -> dict[str, str]:
        return {"right %": f"{100 * self.right:.1f}", "images": str(self.count)}

    def headline(self) -> dict[str, float]:
        return {"right %": 100 * self.right}


class MeanColourEvaluator(Evaluator[np.ndarray, np.ndarray, np.ndarray]):
    def __init__(self, data: EvaluationData, tolerance: float) -> None:
        self.data, self.processor = data.images, MeanColourProcessor()
        self.metric = MeanColourMetric(self.data.classes, tolerance)
        self.indices = range(len(self.data))

    def evaluation(self, metric: Metric, run: Pass) -> MeanColourEvaluation:
        facts = {name: getattr(run, name) for name in ("checkpoint", "data", "split", "count", "seconds")}
        return MeanColourEvaluation(**facts, **metric.compute())
