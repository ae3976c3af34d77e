"""Lists of millions of image files: compact in memory, and kept in a file so that they are not made at every start.

The index of a data set holds, class by class, its folders with their modification times and the names of their images.
A class of which every folder still has its time is taken from the index; any other is listed again. Adding, removing
or renaming a file changes its folder's time; a folder that changed less than RACY_NS before it was listed is not
believed the next time, because a second change in the same tick would not show.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from ..errors import VanNotice
from ..files import parse_json, why_no_file, why_no_path, write_file

RACY_NS = 2_000_000_000
_MAGIC = "van image index 1"


@dataclass(frozen=True)
class Folder:
    """One folder of a class: path relative to the root, modification time (ns, -1: never believed), names of images.

    others: how many other visible files it has, and the first of them.
    """

    path: str
    time_ns: int
    names: tuple[str, ...]
    others: tuple[int, str] = (0, "")


class PathTable(Sequence[Path]):
    """Paths of files in few folders, some 20 bytes each instead of a Path's hundreds."""

    def __init__(self, root: Path, folders: Iterable[Folder]) -> None:
        kept = list(folders)
        self.root, self.folders = root, [folder.path for folder in kept]
        encoded = [os.fsencode(name) for folder in kept for name in folder.names]
        self.owner = np.repeat(np.arange(len(kept), dtype=np.int32), [len(folder.names) for folder in kept])
        self.ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self.names = b"".join(encoded)
        self.chosen = np.arange(len(encoded), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, place: int) -> Path: ...
    @overload
    def __getitem__(self, place: slice) -> PathTable: ...
    def __getitem__(self, place: int | slice) -> Path | PathTable:
        if isinstance(place, slice):
            return self.subset(self.chosen[place].tolist(), absolute=True)
        return self.root / self.relative(place)

    def relative(self, place: int) -> str:
        """A path as it counts from the root."""
        i = int(self.chosen[place])
        start = int(self.ends[i - 1]) if i else 0
        return os.path.join(self.folders[self.owner[i]], os.fsdecode(self.names[start : int(self.ends[i])]))  # noqa: PTH118

    def subset(self, places: Sequence[int], *, absolute: bool = False) -> PathTable:
        """Some of the paths, in the order of `places`; names are shared, not copied."""
        part = object.__new__(PathTable)
        part.__dict__.update(self.__dict__)
        picked = np.asarray(places, dtype=np.int64)
        part.chosen = picked if absolute else self.chosen[picked]
        return part


def list_classes(
    root: Path, classes: Sequence[str], list_class: Callable[[str], list[Folder]], *, index: Path | None
) -> dict[str, list[Folder]]:
    """The folders of every class, by `list_class` or, where nothing changed, from the index in the folder `index`."""
    if index is None:
        return {name: list_class(name) for name in classes}
    file = index / f"{hashlib.blake2b(os.fsencode(root.resolve()), digest_size=8).hexdigest()}.index"
    known = _read(file, root)
    found = {name: known.get(name, []) for name in classes}
    stale = [name for name, folders in found.items() if not folders or not _unchanged(root, folders)]
    for name in stale:
        found[name] = list_class(name)
    if stale or found.keys() != known.keys():
        _write(file, root, found)
    return found


def believable(path: Path, now_ns: int) -> int:
    """The modification time of a folder that was listed at `now_ns`, or -1 when it is too recent to show changes."""
    changed = path.stat().st_mtime_ns
    return changed if now_ns - changed > RACY_NS else -1


def _unchanged(root: Path, folders: list[Folder]) -> bool:
    try:
        return all((root / folder.path).stat().st_mtime_ns == folder.time_ns for folder in folders)
    except OSError:
        return False


def _write(file: Path, root: Path, found: dict[str, list[Folder]]) -> None:
    """A line of JSON about the file and one about the folders, then all names; whole or not at all."""
    rows = {
        name: [[folder.path, folder.time_ns, len(folder.names), folder.others] for folder in folders]
        for name, folders in found.items()
    }
    names = b"\0".join(os.fsencode(name) for folders in found.values() for each in folders for name in each.names)
    body = json.dumps(rows).encode() + b"\n" + names
    head = {"format": _MAGIC, "root": str(root.resolve()), "digest": hashlib.blake2b(body).hexdigest()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, json.dumps(head).encode() + b"\n" + body, error=None)
    except OSError as error:
        warnings.warn(f"cannot write {file}: {error.strerror}; the files will be listed again next time", VanNotice, 4)


def _read(file: Path, root: Path) -> dict[str, list[Folder]]:
    """What `_write` wrote for this root; empty when there is no such file, and with a notice when it is damaged."""
    try:
        if why_no_file(file):
            return {}
        head, _, body = file.read_bytes().partition(b"\n")
    except OSError:
        return {}
    try:
        facts: dict[str, Any] = parse_json(head)
        if facts["format"] != _MAGIC or facts["root"] != str(root.resolve()):
            return {}
        if facts["digest"] != hashlib.blake2b(body).hexdigest():
            raise ValueError("its contents do not match its digest")
        rows, _, joined = body.partition(b"\n")
        return _folders(parse_json(rows), joined.split(b"\0"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(f"{file} is damaged ({error}); the files are listed again", VanNotice, stacklevel=4)
        return {}


def _folders(rows: dict[str, list[Any]], names: list[bytes]) -> dict[str, list[Folder]]:
    found: dict[str, list[Folder]] = {}
    start = 0
    for name, folders in rows.items():
        found[name] = []
        for path, time_ns, count, others in folders:
            if (
                why_no_path(path)
                or Path(path).is_absolute()
                or ".." in Path(path).parts
                or type(count) is not int
                or count < 0
            ):
                raise ValueError(f"it leads to {path!r:.80}")
            if type(time_ns) is not int or [type(each) for each in others] != [int, str]:
                raise ValueError("its folders have no times or counts")
            part = tuple(os.fsdecode(each) for each in names[start : start + count])
            found[name].append(Folder(path, time_ns, part, tuple(others)))
            start += count
    return found


def now_ns() -> int:
    """The clock that file systems stamp with."""
    return time.time_ns()
