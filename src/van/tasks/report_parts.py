"""What a task adds to the report of a training run: its curves, its scores per class, and its worst examples.

The page (tools/report) knows only these classes; `tasks/<task>/report.py` fills them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, TypeAlias

from PIL import Image

THUMBNAIL = 224  # pixels of the longer side

Color: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """A chart of columns of metrics.csv over the epochs.

    labels: column -> what its line is called. only_monitored: drawn only for a run that is steered by one of them.
    """

    title: str
    labels: Mapping[str, str]
    only_monitored: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a table; share: 0 to 1, drawn as a bar before the text; color: drawn as a swatch before it."""

    text: str
    share: float | None = None
    color: Color | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under named columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with a picture (PNG bytes), a table, or both, in this order."""

    title: str
    figure: bytes | None = None
    table: Table | None = None


@dataclass(frozen=True, kw_only=True)
class WorstExample:
    """Something that the model got wrong.

    pictures: (caption, picture), one or several side by side; wrong: what was predicted, where that is a word or two.
    facts: short texts, the most important first; name: of the image.
    """

    pictures: tuple[tuple[str, Image.Image], ...]
    facts: tuple[str, ...]
    name: str
    wrong: str = ""


@dataclass(frozen=True, kw_only=True)
class ReportParts:
    """What evaluating a finished run's model on its validation data adds to the page.

    headline: scores as text, by name. examples: the worst first; none: what stands there when there is no mistake.
    """

    headline: Mapping[str, str]
    sections: tuple[Section, ...]
    examples_title: str
    examples: tuple[WorstExample, ...]
    none: str


class TaskReport(Protocol):
    """A task's part of a report: made for a data set, updated with each of its images, then asked for its parts.

    curves, headline: of metrics.csv and summary.json; headline: score -> how it is written, "{:.2f}%".
    """

    curves: ClassVar[tuple[Curves, ...]]
    headline: ClassVar[Mapping[str, str]]

    @classmethod
    def of(cls, data: Any, evaluator: Callable[[], Any]) -> Self:
        """An empty report of a data set of this task; evaluator: makes a `base.Evaluator` on it."""
        ...

    def update(self, name: str, image: Image.Image, target: Any, raw: Any) -> None:
        """Take in one image, what is true of it, and its raw result, as the task's processor gives it."""

    def parts(self) -> ReportParts:
        """What was found."""
        ...


def thumbnail(image: Image.Image) -> Image.Image:
    """A copy that fits the page; small images stay as they are."""
    image = image.copy()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return image
