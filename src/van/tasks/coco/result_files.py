"""Results of an evaluation as files in COCO's formats, written as they come.

Every process appends what it finds, a line of JSON per image, to a file of its own in `.results.PID.part`, a folder in
the output folder; at the end the lines become COCO's files, under their own names at once, and that folder goes. An
evaluation that fails leaves it there with all that was found.
"""

from __future__ import annotations

import heapq
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ...errors import ConfigError
from ...files import atomic_output
from ..base import Json

Lines = Mapping[str, Sequence[Json]]  # name of a result file -> its records of one image


@dataclass(frozen=True)
class ResultFiles:
    """Files of a folder that grow image by image; goes to other processes with what finds them.

    folder: where the files go. names: of the files, each a JSON list of records, or of what `head` makes of it.
    """

    folder: str
    names: tuple[str, ...]
    parts: str

    @classmethod
    def begin(cls, folder: str | Path, names: Sequence[str]) -> ResultFiles:
        """Make the folder; raises ConfigError where it cannot be written."""
        target = Path(folder)
        parts = target / f".results.{os.getpid()}.part"
        try:
            if target.exists() and not target.is_dir():
                raise ConfigError(f"cannot write into {target}: a file is there; give a folder")
            shutil.rmtree(parts, ignore_errors=True)
            parts.mkdir(parents=True)
        except OSError as error:
            raise ConfigError(f"cannot write into {target}: {error.strerror or error}") from error
        return cls(str(target), tuple(names), str(parts))

    def add(self, index: int, records: Lines) -> None:
        """The records of an image; index: its place in the data set."""
        line = json.dumps([index, {name: records[name] for name in self.names}], allow_nan=False)
        path = Path(self.parts) / f"{os.getpid()}.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error

    def finish(self, heads: Mapping[str, Mapping[str, Json]] | None = None) -> None:
        """Give the files their names, the images in the order of the data set.

        heads: name of a file -> what stands before its records, whose key is "annotations" then.
        """
        for name in self.names:
            head = (heads or {}).get(name)
            with atomic_output(Path(self.folder) / name) as temporary, temporary.open("w", encoding="utf-8") as file:
                self._write(file, name, head)
        shutil.rmtree(self.parts, ignore_errors=True)

    def _write(self, file: IO[str], name: str, head: Mapping[str, Json] | None) -> None:
        if head is not None:
            file.write("{" + "".join(f"{json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items()))
            file.write('"annotations": ')
        file.write("[")
        first = True
        for _, records in self._images():
            for record in records[name]:
                file.write(("\n" if first else ",\n") + json.dumps(record))
                first = False
        file.write("\n]" + ("}\n" if head is not None else "\n"))

    def _images(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Every image once, in order: a process has its own in order."""
        files = [_read(path) for path in sorted(Path(self.parts).glob("*.jsonl"))]
        yield from heapq.merge(*files, key=lambda each: each[0])


def _read(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            index, records = json.loads(line)
            yield index, records
