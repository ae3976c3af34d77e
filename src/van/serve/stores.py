"""Files in object stores, by their address: s3://bucket/photos, gs://…, file:///…, and whatever fsspec knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import ConfigError, DataError, MissingExtraError

_ADDRESS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)://([^/]*)(.*)", re.DOTALL)
_WEB = ("http", "https", "ftp")


class Place(NamedTuple):
    """A file or folder of a store. files: pyarrow's file system; path: in it; root: what an address begins with."""

    files: Any
    path: str
    root: str
    base: str

    def address(self, path: str) -> str:
        """The address of another path of this store."""
        return self.root + path[len(self.base) :]


def is_address(text: str) -> bool:
    """Whether a text is the address of a store; pages of the web are not."""
    found = _ADDRESS.match(text)
    return found is not None and found[1].lower() not in _WEB


def place_of(address: str) -> Place:
    """Where an address leads; raises ConfigError for a store that nobody here knows."""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ConfigError(f"{address} is no address; expected one such as s3://bucket/photos")
    root = f"{found[1]}://{found[2]}"
    files, base = _store(root)
    base = base.rstrip("/")
    return Place(files, f"{base}/{found[3].strip('/')}".rstrip("/") or "/", root, base)


def read(address: str) -> bytes:
    """The content of a file; raises DataError where it cannot be read."""
    place = place_of(address)
    try:
        with place.files.open_input_stream(place.path) as file:
            return bytes(file.read())
    except OSError as error:
        raise DataError(f"{address} cannot be read: {_reason(error)}") from error


def files_in(address: str) -> Iterator[str]:
    """Addresses of a file, or of the visible files of a folder at any depth, in alphabetical order.

    Raises DataError where nothing is there, or the store does not answer.
    """
    place = place_of(address)
    from pyarrow import fs

    try:
        kind = place.files.get_file_info(place.path).type
        if kind == fs.FileType.File:
            yield address
            return
        if kind == fs.FileType.NotFound:
            raise DataError(f"{address}: no such file or folder")
        inside = place.files.get_file_info(fs.FileSelector(place.path, recursive=True))
    except OSError as error:
        raise DataError(f"{address} cannot be listed: {_reason(error)}") from error
    paths = sorted(each.path for each in inside if each.type == fs.FileType.File)
    for path in paths:
        if not any(part.startswith((".", "_")) for part in path[len(place.path) :].split("/")):
            yield place.address(path)


@lru_cache(maxsize=64)
def _store(root: str) -> tuple[Any, str]:
    """pyarrow's file system for the beginning of an address, and the path that this beginning is there."""
    try:
        import pyarrow
        from pyarrow import fs
    except ImportError:
        raise MissingExtraError.of("pyarrow", "ray", f"for {root}") from None
    try:
        files, base = fs.FileSystem.from_uri(f"{root}/" if root.endswith("://") else root)
        return files, base
    except (pyarrow.ArrowException, ImportError, ValueError):
        pass  # a scheme that it does not know
    except OSError as error:
        raise DataError(f"{root} cannot be reached: {_reason(error)}") from error
    try:
        import fsspec

        other, base = fsspec.core.url_to_fs(root)
        return fs.PyFileSystem(fs.FSSpecHandler(other)), base
    except ImportError as error:
        raise ConfigError(f"{root}: {_reason(error)}; install what serves such addresses") from None
    except (ValueError, OSError) as error:
        raise ConfigError(f"{root} cannot be opened: {_reason(error)}; expected s3://, gs://, file:// …") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
