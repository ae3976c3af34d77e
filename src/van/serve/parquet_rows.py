"""Images listed or stored in Parquet files, local or in a store: a column of paths, of encoded images, or of the
`{bytes, path}` that the datasets library writes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConfigError, DataError, MissingExtraError
from . import stores
from .image_row import ImageRow, text_of

READ = 64  # images of a row group that are read together


@dataclass(frozen=True, kw_only=True)
class StoredImages:
    """Encoded images of one row group of a Parquet file.

    ids: of every row of the group; rows: numbers of those that are wanted. names: what they are called in results.
    """

    file: str
    group: int
    column: str
    ids: tuple[str, ...]
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def wanted(self) -> Iterator[str]:
        """Ids of the rows that are wanted."""
        return (self.ids[row] for row in self.rows)

    def without(self, done: Collection[str]) -> StoredImages:
        """Those whose ids are not among `done`."""
        return replace(self, rows=tuple(row for row in self.rows if self.ids[row] not in done))

    def __iter__(self) -> Iterator[ImageRow]:
        """The images, read from the file some at a time; raises DataError where it cannot be read."""
        wanted, start = set(self.rows), 0
        with _opened(self.file) as file:
            for batch in _batches(file, self):
                for number, content in enumerate(batch.column(0).to_pylist(), start=start):
                    if number in wanted:
                        yield ImageRow(self.ids[number], self.ids[number], data=_encoded(content))
                start += batch.num_rows


def _batches(file: Any, images: StoredImages) -> Iterator[Any]:
    try:
        yield from file.iter_batches(batch_size=READ, row_groups=[images.group], columns=[images.column])
    except OSError as error:
        raise DataError(f"{images.file} cannot be read: {' '.join(str(error).split())[:300]}") from error


def _encoded(content: Any) -> bytes:
    """The bytes of an image; none where the row has none, which is an error of this image alone."""
    value = content.get("bytes") if isinstance(content, dict) else content
    return value or b""


def parquet_rows(path: str, *, image_column: str, id_column: str | None) -> tuple[list[ImageRow], list[StoredImages]]:
    """The images that a Parquet file lists, and those that it stores, of which only the ids are read.

    Raises ConfigError for a column that is not there or cannot hold images, DataError for a file that cannot be read.
    """
    with _opened(path) as file:
        from pyarrow import types

        schema, name = file.schema_arrow, text_of(path)
        for column in (image_column, *([id_column] if id_column else [])):
            if column not in schema.names:
                option = "--image-column" if column == image_column else "--id-column"
                known = ", ".join(schema.names[:12])
                raise ConfigError(f"{name} has no column {column!r}; give {option} with one of: {known}")
        kind = schema.field(image_column).type
        ids = _ids(file, name, id_column)
        if types.is_string(kind) or types.is_large_string(kind):
            paths = file.read(columns=[image_column]).column(0).to_pylist()
            pairs = zip(ids, paths, strict=True)
            return [ImageRow(key, each or key, each or None, None if each else b"") for key, each in pairs], []
        if not _holds_images(kind):
            raise ConfigError(
                f"{name}: column {image_column!r} is {kind}; expected paths (string), encoded images (binary), or a "
                "struct with a field bytes"
            )
        return [], list(_groups(file, path, image_column, ids))


def _groups(file: Any, path: str, column: str, ids: list[str]) -> Iterator[StoredImages]:
    start = 0
    for group in range(file.metadata.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        own = tuple(ids[start : start + count])
        yield StoredImages(file=path, group=group, column=column, ids=own, rows=tuple(range(count)))
        start += count


def _holds_images(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_images(field.type) for field in kind)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _ids(file: Any, name: str, column: str | None) -> list[str]:
    if column is None:
        return [f"{name}#{row}" for row in range(file.metadata.num_rows)]
    found = file.read(columns=[column]).column(0).to_pylist()
    if None in found:
        raise DataError(f"{name}: row {found.index(None)} has no id in column {column!r}; expected one in every row")
    return [str(each) for each in found]


def _opened(path: str) -> Any:
    """A Parquet file, ready to be read; raises DataError for what is none."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError.of("pyarrow", "ray", "for Parquet files") from None
    try:
        if stores.is_address(path):
            place = stores.place_of(path)
            return parquet.ParquetFile(place.path, filesystem=place.files)
        return parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{text_of(path)} cannot be read as a Parquet file: {reason}") from error
