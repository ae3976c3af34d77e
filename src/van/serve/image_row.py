"""An image of a batch job: its id, and where it is read from when its turn comes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from . import stores

if TYPE_CHECKING:
    from ..images.sources import Picture


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image that waits to be read. id: its own; image: what it is called in results.

    path: of a file, or an address of a store; data: an encoded image instead.
    """

    id: str
    image: str
    path: str | None = None
    data: bytes | None = None

    @property
    def picture(self) -> Picture:
        """What a Predictor takes; nothing is read before it is used."""
        if self.path is not None and not stores.is_address(self.path):
            return Path(self.path)
        return LazyFile(self)  # type: ignore[return-value]

    def content(self) -> bytes:
        """The encoded image; raises DataError where it cannot be read, or is missing."""
        if self.path is not None:
            return stores.read(self.path)
        if not self.data:
            raise DataError(f"{self.image}: the row holds no image")
        return self.data


class LazyFile:
    """An open file, as readers of images expect one, that gets its content when it is first read: in their threads."""

    def __init__(self, row: ImageRow) -> None:
        self.row, self.name = row, row.image
        self._file: io.BytesIO | None = None

    def __repr__(self) -> str:  # in what decoders say of it
        return repr(self.name)

    def _opened(self) -> io.BytesIO:
        if self._file is None:
            self._file = io.BytesIO(self.row.content())
        return self._file

    def read(self, size: int = -1) -> bytes:
        """As of any file."""
        return self._opened().read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of any file."""
        return self._opened().seek(offset, whence)

    def tell(self) -> int:
        """As of any file."""
        return self._opened().tell()


def text_of(path: str) -> str:
    """A path as text that every file of results can hold: bytes that are not UTF-8 as `\\xff`."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def arrow_table(rows: Sequence[ImageRow], error: str | None = None) -> Any:
    """Rows as a table of Arrow, to be sent elsewhere; paths as bytes, for they may not be UTF-8.

    error: why there are no images, in each row.
    """
    import pyarrow

    columns = {
        "id": [row.id for row in rows],
        "image": [row.image for row in rows],
        "path": [None if row.path is None else row.path.encode(errors="surrogateescape") for row in rows],
        "data": [row.data for row in rows],
        "error": [error] * len(rows),
    }
    return pyarrow.table(columns, schema=arrow_schema())


def arrow_schema() -> Any:
    """Of `arrow_table`."""
    import pyarrow

    kinds = {"id": "string", "image": "string", "path": "binary", "data": "large_binary", "error": "string"}
    return pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in kinds.items()])


def rows_of(table: Any) -> list[ImageRow]:
    """The rows of such a table."""
    return [
        ImageRow(
            each["id"],
            each["image"],
            None if each["path"] is None else each["path"].decode(errors="surrogateescape"),
            each["data"],
        )
        for each in table.to_pylist()
    ]
