"""The report of a task that has none of its own: the scores of its metric, and its table of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from PIL import Image

from .report_parts import Cell, Curves, ReportParts, Section, Table

if TYPE_CHECKING:
    from .base import Evaluator


class MetricReport:
    """See `TaskReport`; counts every image with the metric of the task's evaluation."""

    curves: ClassVar[tuple[Curves, ...]] = ()
    headline: ClassVar[Mapping[str, str]] = {}

    def __init__(self, evaluator: Evaluator[Any, Any, Any]) -> None:
        self.metric = evaluator.metric

    @classmethod
    def of(cls, data: Any, evaluator: Callable[[], Evaluator[Any, Any, Any]]) -> Self:
        """An empty report of a data set."""
        return cls(evaluator())

    def update(self, name: str, image: Image.Image, target: Any, raw: Any) -> None:
        """Count one image."""
        self.metric.update([raw], [target], [name])

    def parts(self) -> ReportParts:
        """The scores, and a row per class."""
        rows = self.metric.table()
        sections: tuple[Section, ...] = ()
        if rows:
            cells = tuple(tuple(Cell(_text(value)) for value in row.values()) for row in rows)
            sections = (Section(title="classes", table=Table(columns=tuple(rows[0]), rows=cells)),)
        headline = {name: _text(value) for name, value in self.metric.compute().items()}
        return ReportParts(headline=headline, sections=sections, examples_title="", examples=(), none="")


def _text(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
