"""What the doctor hands back: findings in words, figures per split, tables for people and for programs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from .split_statistics import SplitStatistics

Statistics = TypeVar("Statistics", bound=SplitStatistics[Any])
Level: TypeAlias = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
Check: TypeAlias = tuple[Level, str]  # what a check found, before it is sorted


@dataclass(frozen=True)
class Finding:
    """One conclusion: level "error" (training or evaluation would break), "warning" or "note"."""

    level: Level
    text: str


def worst_first(found: Iterable[Check]) -> tuple[Finding, ...]:
    """Findings by level, in the order of the checks within a level."""
    findings = (Finding(level, text) for level, text in found)
    return tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level)))


@dataclass(frozen=True, kw_only=True)
class Report(ABC, Generic[Statistics]):
    """All that was found in a data set.

    data, layout: what was read; splits: figures by split, "train", "val", or "all" of what is not split.
    findings: the worst first; missing: splits that training needs and the data set does not have.
    """

    data: str
    layout: str
    classes: tuple[str, ...]
    splits: dict[str, Statistics]
    findings: tuple[Finding, ...]
    missing: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing was found that breaks training or evaluation."""
        return not any(finding.level == "error" for finding in self.findings)

    @property
    def heading(self) -> str:
        """What was read, on one line."""
        return f"{self.data}: {self.layout}, {len(self.classes)} classes"

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Headings of the table of classes, label and class first."""

    @abstractmethod
    def rows(self) -> list[tuple[str, ...]]:
        """The table of classes for people."""

    @property
    def footnote(self) -> str:
        """What is to be known about the table; "" for nothing."""
        return ""

    @abstractmethod
    def table(self) -> list[dict[str, Any]]:
        """The table of classes, JSON-ready: label, name and the figures of each split."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What only this layout has, JSON-ready."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "data": self.data,
            "layout": self.layout,
            "num_classes": len(self.classes),
            "healthy": self.healthy,
            "findings": [vars(finding) for finding in self.findings],
            "splits": {split: statistics.to_dict() for split, statistics in self.splits.items()},
            "classes": self.table(),
        } | self.facts()


def some(names: Sequence[str], total: int | None = None, *, shown: int = 3) -> str:
    """The first of several names; total: how many there are where `names` are not all."""
    return ", ".join(names[:shown]) + (", …" if (len(names) if total is None else total) > shown else "")
