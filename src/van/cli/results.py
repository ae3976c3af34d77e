"""What `van predict` found, written as it comes: CSV, JSON, JSON lines, tables.

A file grows under a temporary name, NAME.PID.part, and gets its own at the end; a run that is interrupted or fails
leaves a file with the images done so far under that name too. Failures are reported on stderr, twenty at most.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import ConfigError, DataError, UnknownNameError
from ..files import printable
from .output import is_stream, json_line, print_table, say, table_text, to_csv, to_json
from .tables import rich_table

if TYPE_CHECKING:
    from ..inference.predictor import Failure
    from ..tasks.base import ResultTable

Entry = dict[str, Any]

FORMATS = ("table", "json", "jsonl", "csv")
SUFFIXES = {".txt": "table", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
RESUMABLE = ("jsonl", "csv")
COMPLAINTS = 20  # bad images named one by one
_BLOCK = 1000  # rows of a table that are laid out together


def result_format(out: str | None, wanted: str | None) -> str:
    """One of FORMATS: as wanted, else by the suffix of the file; raises ConfigError for a suffix that means none."""
    if wanted is not None:
        if wanted not in FORMATS:
            raise UnknownNameError.of("format", wanted, (*FORMATS, "parquet"))
        return wanted
    suffix = Path(out or "").suffix.lower()
    if out is None or (not suffix and is_stream(Path(out))):
        return "table"
    if suffix not in SUFFIXES:
        raise ConfigError(
            f"--out {out}: {suffix or 'a name without a suffix'} is no format of results; expected a name that ends in "
            f"{', '.join(SUFFIXES)}, or --format with one of {', '.join(FORMATS)}"
        )
    return SUFFIXES[suffix]


class Results:
    """Takes entries and failures one by one; a context that ends the file well, whatever happens inside.

    out: a file, None for stdout; form: one of FORMATS; head: keys before "predictions" in JSON; total: images in all.
    At the end without a single entry DataError is raised, and no file is left.
    """

    def __init__(self, table: ResultTable, form: str, out: str | None, *, head: Entry, total: int) -> None:
        self.table, self.form, self.head, self.total = table, form, head, total
        self.path = None if out is None else Path(out)
        self.failures: list[Failure] = []
        self.count = 0
        self._rows: list[Entry] = []  # of a table, until they are laid out
        self._headed = False  # whether a table's header, or the start of another text, is out
        self._done_with: Path | None = None
        self._part: Path | None = None
        self._file: IO[bytes] | None = None
        self._lost = False  # the file cannot be written any more
        self._copying = False  # the earlier file still has more than this one
        self._stdout = sys.stdout
        if self.path is not None:
            self._open(self.path)

    def add(self, entry: Entry) -> None:
        """Write one entry."""
        if self.form == "table":
            self._rows.append(entry)
            if len(self._rows) == _BLOCK and not self._terminal():
                self._lay_out()
        elif self.form == "csv":
            self._write(self._csv_header() + to_csv(None, self.table.rows(entry)))
        elif self.form == "jsonl":
            self._write(json_line(entry) + "\n")
        else:
            self._write((",\n    " if self.count else self._opening()) + to_json(entry, 4))
        self.count += 1

    def resume(self, images: list[Path], earlier: Earlier | None) -> list[Path]:
        """Write what an earlier run did, whose left-over goes when this file has its name; the images still to do."""
        if earlier is None:
            return images
        self._copying, named = True, {str(image) for image in images}
        for image, text in earlier.entries():
            self._write((self._csv_header() if self.form == "csv" else "") + text)
            self.count += 1
            named.discard(image)
        self._copying, self._done_with = False, earlier.source
        say(f"van: note: {self.count} image(s) are in {earlier.source} already; {len(named)} to do", error=True)
        return [image for image in images if str(image) in named]

    def fail(self, failure: Failure) -> None:
        """Say it, and keep it for the end of JSON."""
        self.failures.append(failure)
        if len(self.failures) <= COMPLAINTS:
            known = failure.image in failure.reason
            say(f"van: skipped: {failure.reason if known else f'{failure.image}: {failure.reason}'}", error=True)
        if self.form == "jsonl" and self.path is not None:
            self._write(json_line({"image": failure.image, "reason": failure.reason}) + "\n")

    def __enter__(self) -> Results:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if len(self.failures) > COMPLAINTS:
            say(f"van: skipped: … {len(self.failures)} in all", error=True)
        if kind is not None and issubclass(kind, BrokenPipeError):
            return
        self._finish()
        if kind is not None and self.count and not self._copying:
            where = f"in {self.path}" if self.path else "written"
            more = "; --resume goes on from there" if self.path and self.form in RESUMABLE else ""
            say(f"van: kept: {self.count} of {self.total} image(s) done so far are {where}{more}", error=True)
        if kind is None and not self.count:
            raise DataError(f"none of {self.total} image(s) could be predicted; the first: {self.failures[0].reason}")

    def _finish(self) -> None:
        """End the text and give the file its name."""
        if self._lost:
            return
        if self._rows:
            self._lay_out()
        if self.form == "json" and self.count:
            failures = [{"image": each.image, "reason": each.reason} for each in self.failures]
            self._write(f'\n  ],\n  "failures": {to_json(failures, 2)}\n}}\n')
        if self._file is not None:
            self._file.close()
        if self._part is not None and self.path is not None:
            if self.count and not self._copying:
                _replace(self._part, self.path)
                if self._done_with is not None and self._done_with != self.path.resolve():
                    self._done_with.unlink(missing_ok=True)
            else:
                self._part.unlink(missing_ok=True)

    def _csv_header(self) -> str:
        return "" if self.count else to_csv(self.table.columns, ())

    def _opening(self) -> str:
        lines = [f"  {json_line(key)}: {to_json(value, 2)}" for key, value in self.head.items()]
        return "{\n" + ",\n".join([*lines, '  "predictions": [\n    '])

    def _lay_out(self) -> None:
        table = rich_table(self.table.table(self._rows))
        table.show_header = not self._headed
        self._headed = True
        if self._terminal():
            print_table(table)
        else:
            self._write(table_text(table))
        self._rows = []

    def _terminal(self) -> bool:
        return self._file is None and self._stdout.isatty()

    def _open(self, path: Path) -> None:
        try:
            if is_stream(path):
                self._file = path.open("wb")
                return
            path = path.resolve()  # of a symbolic link, the target is replaced
            self._part = path.with_name(f"{path.name}.{os.getpid()}.part")
            self._file = self._part.open("wb")
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error

    def _write(self, text: str) -> None:
        """At once, so that a process that is killed leaves what it did; names that are not UTF-8 as their own bytes."""
        if self._file is not None:
            try:
                self._file.write(text.encode(errors="surrogateescape"))
                self._file.flush()
            except OSError as error:
                if isinstance(error, BrokenPipeError):
                    raise
                where = f"; what was done so far is in {self._part}" if self._part else ""
                self._lost = True
                raise ConfigError(f"cannot write {self.path}: {error.strerror or error}{where}") from error
            return
        if self._terminal():
            text = "".join(f"{printable(line)}\n" for line in text.split("\n"))[:-1]
            self._stdout.write(text)
        elif not hasattr(self._stdout, "buffer"):  # a notebook's, or io.StringIO
            self._stdout.write(text)
        else:
            self._stdout.flush()
            self._stdout.buffer.write(text.encode(errors="surrogateescape"))
        self._stdout.flush()


def _replace(part: Path, path: Path) -> None:
    try:
        part.replace(path.resolve())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}; the results are in {part}") from error


@dataclass(frozen=True)
class Earlier:
    """An earlier run's file: the one under its own name, or what a killed process left, whichever is newer."""

    source: Path
    form: str
    table: ResultTable

    @classmethod
    def find(cls, table: ResultTable, form: str, out: str | None) -> Earlier | None:
        """None when there is no such file; raises ConfigError for what cannot be resumed."""
        if out is None or form not in RESUMABLE or is_stream(Path(out)):
            raise ConfigError("--resume goes on with a file of JSON lines or CSV; give --out NAME.jsonl or NAME.csv")
        path = Path(out).resolve()
        start, end = f"{path.name}.", ".part"
        left = [
            each
            for each in path.parent.iterdir()
            if each.name.startswith(start) and each.name.endswith(end) and each.name[len(start) : -len(end)].isdecimal()
        ]
        files = [each for each in (path, *left) if each.is_file()]
        return cls(max(files, key=lambda each: each.stat().st_mtime), form, table) if files else None

    def entries(self) -> Iterator[Any]:
        """(image, text) of every image that is completely there."""
        yield from self._lines() if self.form == "jsonl" else self._groups()

    def _lines(self) -> Iterator[tuple[str, str]]:
        with self.source.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                    if "reason" not in entry:  # what failed is tried again
                        yield entry["image"], line
                except (ValueError, KeyError, TypeError) as error:
                    if line.endswith("\n"):
                        raise self._foreign() from error

    def _groups(self) -> Iterator[tuple[str, str]]:
        with self.source.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            if tuple(next(reader, self.table.columns)) != self.table.columns:
                raise self._foreign()
            waiting: tuple[str, str] | None = None
            for image, rows in groupby(reader, key=lambda row: row[0] if row else ""):
                if waiting is not None:
                    yield waiting
                waiting = image, to_csv(None, rows)
            if waiting is not None and not self.source.name.endswith(".part"):  # there the last may be cut
                yield waiting

    def _foreign(self) -> ConfigError:
        return ConfigError(f"{self.source} is no file of this command; leave --resume out, or give another --out")
