"""The images of a batch job: one row each, with an id that is the same in every run.

An image in a file or in a store has its path or address as id; one in a Parquet file what `id_column` holds there, by
default `photos.parquet#17`, the number of its row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.folder import is_image
from ..errors import DataError
from ..files import why_no_path
from ..inference.predictor import Failure, find_images
from . import stores
from .image_row import ImageRow, text_of
from .parquet_rows import StoredImages, parquet_rows


@dataclass(frozen=True, kw_only=True)
class ImageRows:
    """All images of a job. located: those with a path; stored: those in Parquet files; failures: what was no input."""

    located: Sequence[ImageRow] = ()
    stored: Sequence[StoredImages] = ()
    failures: Sequence[Failure] = ()

    def __len__(self) -> int:
        return len(self.located) + sum(map(len, self.stored))

    def __iter__(self) -> Iterator[ImageRow]:
        """Every image, read from its Parquet file where it is stored in one."""
        yield from self.located
        for each in self.stored:
            yield from each

    def ids(self) -> Iterator[str]:
        """Of every image, in the order of the inputs."""
        yield from (row.id for row in self.located)
        for each in self.stored:
            yield from each.wanted()

    def without(self, done: Collection[str]) -> ImageRows:
        """Those whose ids are not among `done`."""
        located = [row for row in self.located if row.id not in done]
        stored = [left for each in self.stored if len(left := each.without(done))]
        return replace(self, located=located, stored=stored)


def find_rows(
    patterns: Iterable[str | Path], *, image_column: str = "image", id_column: str | None = None
) -> ImageRows:
    """What files, folders, globs, addresses and Parquet files stand for; a folder without images is searched for those.

    Raises ConfigError for a column that is not there, DataError for an id that stands twice and for a Parquet file that
    cannot be read.
    """
    paths: dict[str, None] = {}
    tables: dict[str, None] = {}
    failures: list[Failure] = []
    for pattern in map(str, patterns):
        found, reason = _expanded(pattern)
        parquet = [path for path in found if path.lower().endswith(".parquet")]
        tables |= dict.fromkeys(parquet)
        paths |= dict.fromkeys(path for path in found if path not in tables)
        if reason:
            failures.append(Failure(pattern, reason))
    located = [ImageRow(text_of(path), text_of(path), path) for path in paths]
    stored: list[StoredImages] = []
    for table in tables:
        more, groups = parquet_rows(table, image_column=image_column, id_column=id_column)
        located += more
        stored += groups
    rows = ImageRows(located=located, stored=stored, failures=failures)
    _require_unique(rows.ids())
    return rows


def _expanded(pattern: str) -> tuple[list[str], str]:
    """Paths or addresses that a pattern stands for, and why there are none."""
    if why_no_path(pattern):
        return [], why_no_path(pattern)
    if stores.is_address(pattern):
        try:
            inside = list(stores.files_in(pattern))
        except DataError as error:
            return [], str(error)
        if inside == [pattern]:
            return inside, ""
        return _images_else_tables(inside)
    images, failed = find_images([pattern])
    if images or not Path(pattern).is_dir():
        return [str(image) for image in images], "" if images else failed[0].reason
    return _images_else_tables([str(path) for path in sorted(Path(pattern).rglob("*.parquet")) if path.is_file()])


def _images_else_tables(files: Sequence[str]) -> tuple[list[str], str]:
    images = [path for path in files if is_image(Path(path))]
    found = images or [path for path in files if path.lower().endswith(".parquet")]
    return found, "" if found else "no images and no Parquet files in this folder"


def _require_unique(ids: Iterator[str]) -> None:
    seen: set[str] = set()
    for each in ids:
        if each in seen:
            raise DataError(f"the id {each!r} stands twice among the inputs; expected one of its own for every image")
        seen.add(each)
