"""What a task's results are outside the network: values, pictures, rows of files, tables for people."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

Json = Any  # dict, list, str, float, int, bool or None, nested
Row = tuple[str | int | float | None, ...]


@dataclass(frozen=True)
class Finding:
    """A part of a result: what it is, how much of it, 0 … 1, and its colour in pictures, None where it has none."""

    label: str
    score: float
    color: tuple[int, int, int] | None = None


class Output(ABC):
    """What a network gives for one image.

    image: its path, or a description of an image in memory. measure: what the scores of its findings are.
    """

    measure: ClassVar[str] = "score"

    image: str

    @abstractmethod
    def to_dict(self) -> dict[str, Json]:
        """JSON-ready values, "image" first."""

    def to_json(self) -> dict[str, Json]:
        """`to_dict` with all of the result, for whoever has no file of it: masks too, as base64 text of index PNGs."""
        return self.to_dict()

    @abstractmethod
    def draw(self) -> Image.Image:
        """The image with the result on it, RGB; raises DataError where the image cannot be read again."""

    def overlay(self, opacity: float | None = None, *, legend: bool = True) -> Image.Image | None:
        """The image with the result painted over it; None for a result that has no place in the image.

        opacity: of what is painted, from 0 (the image) to 1 (the colours alone); None: the result's own. Lines and
        letters are always drawn in full. legend: names of the colours at the right, where letters do not name them.
        """
        return None

    def findings(self) -> tuple[Finding, ...]:
        """The parts of the result, the most important first; with their colours they are the legend of `overlay`."""
        found = self.leading()
        return () if found is None else (Finding(found[0], found[2]),)

    def leading(self) -> tuple[str, int, float] | None:
        """The class that stands out, as (name, number, score 0 … 1); None for a task without such a class."""
        return None

    def save(self, folder: Path, stem: str) -> dict[str, Json]:
        """Write the files of the result, named after `stem`, and give the entry for a table of results."""
        path = folder / f"{stem}.png"
        folder.mkdir(parents=True, exist_ok=True)
        self.draw().save(path)
        return self.to_dict() | {"picture": str(path)}


@dataclass(frozen=True)
class Column:
    """A column of a table for people; style: rich's."""

    heading: str
    right: bool = False
    style: str = ""


@dataclass(frozen=True)
class Table:
    """A table for people: text in every cell; title: a line before it."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    title: str = ""


class ResultTable(ABC):
    """How entries of results, JSON-ready dicts with an "image", become rows of CSV and a table for people.

    columns: of CSV, the image first. folder: where the files of results go unless a folder is given; None for a task
    whose results are entries only. endings: what `Output.save` adds to a stem, one per file.
    entries_suffice: whether entries hold all of a result, so that a file of them can be had without the pictures.
    """

    columns: ClassVar[tuple[str, ...]]
    folder: ClassVar[str | None] = None
    endings: ClassVar[tuple[str, ...]] = ()
    entries_suffice: ClassVar[bool] = False

    @abstractmethod
    def rows(self, entry: Mapping[str, Json]) -> list[Row]:
        """The entry as rows of CSV."""

    @abstractmethod
    def table(self, entries: Sequence[Mapping[str, Json]]) -> Table:
        """Entries for people; every block of a run has the columns of its first entry."""
