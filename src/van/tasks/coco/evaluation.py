"""What an evaluation of a model that finds objects or segments shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from .. import base
from ..base import Column, Json, Pass, Table

_FACTS = ("checkpoint", "engine", "optimized", "data", "split", "count")
_FEW_CLASSES = 30  # so many are shown without being asked for


@dataclass(frozen=True, kw_only=True)
class CocoEvaluation(base.Evaluation):
    """Scores under COCO's names, in [0, 1], NaN where nothing was there to score; `evaluation["AP"]` is one of them.

    figures: the scores that people compare. class_columns: key of a class's row -> its heading; those of scores end in
    "%". values: every score by its name. classes: a row per class. preprocess: how images became inputs.
    engine: what computed. non_finite: images for which the network's outputs were no numbers.
    """

    figures: ClassVar[tuple[str, ...]]
    class_columns: ClassVar[Mapping[str, str]]

    checkpoint: str
    engine: str
    data: str
    split: str
    count: int
    seconds: float
    values: Mapping[str, float]
    classes: Sequence[Mapping[str, Json]]
    preprocess: Mapping[str, Json]
    non_finite: int = 0
    optimized: bool = False

    @classmethod
    def found(
        cls,
        run: Pass,
        values: Mapping[str, float],
        classes: Sequence[Mapping[str, Json]],
        preprocess: Mapping[str, Json],
        non_finite: int,
    ) -> CocoEvaluation:
        """Of a finished pass."""
        return cls(
            checkpoint=run.checkpoint,
            engine=run.runtime,
            optimized=run.optimized,
            data=run.data,
            split=run.split,
            count=run.count,
            seconds=run.seconds,
            values=values,
            classes=classes,
            preprocess=preprocess,
            non_finite=non_finite,
        )

    @property
    def images_per_second(self) -> float:
        """Reading, network and counting together."""
        return self.count / self.seconds

    def scores(self) -> dict[str, float]:
        return dict(self.values)

    def to_dict(self) -> dict[str, Json]:
        """Everything, ready for JSON; null where nothing was there to score."""
        facts = {name: getattr(self, name) for name in _FACTS}
        classes = [{name: _json(value) for name, value in row.items()} for row in self.classes]
        how = {"non_finite": self.non_finite, **self.preprocess}
        speed = {"seconds": self.seconds, "images_per_second": self.images_per_second}
        return {**facts, **{name: _json(v) for name, v in self.values.items()}, "per_class": classes, **how, **speed}

    def row(self) -> dict[str, str | int | float | None]:
        return {name: _json(value) for name, value in self.values.items()} | {"images": self.count}

    def columns(self) -> dict[str, str]:
        shown = {f"{name} %": _percent(self[name]) for name in self.figures}
        return {**shown, "images": str(self.count), "images/s": f"{self.images_per_second:.1f}"}

    def headline(self) -> dict[str, float]:
        return {f"{name} %": 100 * self[name] for name in self.figures}

    def notes(self) -> list[str]:
        if not self.non_finite:
            return []
        return [
            f"the network's outputs were no numbers (NaN) for {self.non_finite} of {self.count} images, in which "
            "nothing is found then; try precision fp32"
        ]

    def tables(self, *, per_class: bool | None) -> list[Table]:
        if per_class is False or (per_class is None and len(self.classes) > _FEW_CLASSES):
            return []
        columns = [Column("class"), *(Column(heading, right=True) for heading in self.class_columns.values())]
        rows = [[str(row["class"]), *(_cell(row[key]) for key in self.class_columns)] for row in self.classes]
        return [Table(columns, rows, title=self.checkpoint)]


def _json(value: Json) -> Json:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _percent(value: float) -> str:
    return "—" if math.isnan(value) else f"{100 * value:.2f}"


def _cell(value: Json) -> str:
    if isinstance(value, bool):
        return "thing" if value else "stuff"
    return _percent(value) if isinstance(value, float) else str(value)
