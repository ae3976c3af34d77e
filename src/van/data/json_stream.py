"""JSON files of hundreds of megabytes, one record at a time: the text is held once, and no tree is built of it."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..errors import DataError
from ..files import why_no_file

_SPACE = re.compile(r"[ \t\r\n]*")
# Called with the record's place in its list, from 0, and the record.
Take = Callable[[int, object], None]


def read_lists(path: Path, take: Mapping[str, Take], *, expected: str) -> set[str]:
    """Hand every record of the lists named in `take` to its function; returns the keys of the top level.

    expected: what the file should hold, for errors. Raises DataError, naming the file and the place, for text that is
    no JSON, and for anything but an object in which these are lists.
    """
    reader = _Reader(_text(path, expected))
    found: set[str] = set()
    try:
        if reader.next() != "{":
            raise DataError(f"{path} holds no object ({reader.text[:20].strip()!r} …); expected {expected}")
        for key in reader.key_by_key():
            if key in found:
                raise DataError(f"{path} has {key!r} twice; expected {expected}")
            found.add(key)
            if key not in take:
                reader.value()
                continue
            if reader.next() != "[":
                raise DataError(f"{path}: {key!r} is no list; expected {expected}")
            for place, record in enumerate(reader.item_by_item()):
                take[key](place, record)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is no valid JSON: {error.msg} (line {error.lineno}, column {error.colno}); the file may be "
            f"incomplete: copy or export it again"
        ) from error
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply; expected {expected}") from error
    return found


def mentions(path: Path, *keys: str) -> bool:
    """Whether all of these keys occur in a JSON file, which is not parsed; False for what cannot be read."""
    if why_no_file(path) or not path.stat().st_size:
        return False
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(content.find(f'"{key}"'.encode()) >= 0 for key in keys)
    except OSError:
        return False


def _text(path: Path, expected: str) -> str:
    if reason := why_no_file(path):
        raise DataError(f"{path} {reason}; expected {expected}")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason} at byte {error.start:,}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; expected {expected}") from error


class _Reader:
    """A place in a JSON text."""

    def __init__(self, text: str) -> None:
        self.text, self.place = text, 0
        self.decoder = json.JSONDecoder()

    def next(self) -> str:
        """The next character that is no space; "" at the end."""
        found = _SPACE.match(self.text, self.place)
        self.place = self.place if found is None else found.end()
        return self.text[self.place : self.place + 1]

    def pass_over(self, *characters: str) -> str:
        """The next character, one of these, and go on behind it."""
        if (character := self.next()) not in characters or not character:
            raise json.JSONDecodeError(f"expected {' or '.join(map(repr, characters))}", self.text, self.place)
        self.place += 1
        return character

    def value(self) -> object:
        self.next()
        value, self.place = self.decoder.raw_decode(self.text, self.place)
        return value

    def key_by_key(self) -> Iterator[str]:
        """Keys of an object; whoever asks for the next has passed over the value."""
        self.pass_over("{")
        if self.next() != "}":
            while True:
                if self.next() != '"':
                    raise json.JSONDecodeError("expected a key in quotes", self.text, self.place)
                key = str(self.value())
                self.pass_over(":")
                yield key
                if self.pass_over(",", "}") == "}":
                    break
        if self.next():
            raise json.JSONDecodeError("expected the end of the file", self.text, self.place)

    def item_by_item(self) -> Iterator[object]:
        """Values of a list."""
        self.pass_over("[")
        if self.next() == "]":
            self.place += 1
            return
        while True:
            yield self.value()
            if self.pass_over(",", "]") == "]":
                return
