"""What the verbs write: files that appear whole or not at all, tables, JSON, and text that is safe on a terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files
from ..errors import ConfigError
from ..files import UNSAFE, printable, why_no_path

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.text import Text

_WIDTH = 160  # columns when the output is no terminal


def say(text: object = "", *, error: bool = False) -> None:
    """Print one line, made `printable`, on stdout or stderr."""
    print(printable(text), file=sys.stderr if error else sys.stdout, flush=True)


def one_line(text: object) -> str:
    """A message of several lines on one."""
    return " ".join(str(text).split())


def cell(text: object) -> Text:
    """A cell of a table that shows a name as it is: no markup, no emoji codes, `printable`."""
    from rich.text import Text

    return Text(printable(text))


def check_writable(path: str | Path | None, *suffixes: str) -> None:
    """Before hours of work: raises ConfigError when `path` cannot become a file, or has another suffix than these."""
    if path is None:
        return
    if reason := why_no_path(path):
        raise ConfigError(f"cannot write {str(path)!r}: it {reason}; give a file name")
    if is_stream(Path(path)):
        return
    path = Path(path)
    if not path.name:
        raise ConfigError("cannot write a file without a name; give one")
    if path.is_dir():
        raise ConfigError(f"cannot write {path}: a folder is there; give a file name")
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: there is no folder {path.parent}; create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot write {path}: the folder {path.parent} is not writable; choose another")
    if suffixes and path.suffix and path.suffix.lower() not in suffixes:
        raise ConfigError(f"{path}: {path.suffix} is not what is written there; name it *{' or *'.join(suffixes)}")


def write_file(path: str | Path, content: str | bytes) -> None:
    """`van.files.write_file`, also for what is no file, as /dev/stdout; raises ConfigError when that fails."""
    if is_stream(Path(path)):
        Path(path).write_bytes(content.encode(errors="surrogateescape") if isinstance(content, str) else content)
    else:
        files.write_file(path, content, follow_links=True)


def to_json(value: Any, indent: int = 0) -> str:
    """JSON that reads well: what holds no further list or object takes one line, a confusion matrix one per row."""
    children = list(value.values() if isinstance(value, dict) else value) if isinstance(value, dict | list) else []
    if not any(isinstance(child, dict | list) for child in children):
        return json_line(value)
    keys = [f"{json_line(str(key))}: " for key in value] if isinstance(value, dict) else [""] * len(children)
    lines = [" " * (indent + 2) + key + to_json(child, indent + 2) for key, child in zip(keys, children, strict=True)]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + ",\n".join(lines) + "\n" + " " * indent + closing


def json_line(value: Any) -> str:
    """JSON on one line.

    A byte of a name that is not UTF-8 is a lone surrogate, `\\udc80` to `\\udcff`: `os.fsencode` gives the byte back.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def to_csv(header: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> str:
    """CSV text, with a header line if one is given."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([header] if header else [])
    writer.writerows(rows)
    return buffer.getvalue()


def print_table(table: Any) -> None:
    """Print a rich table on stdout, in colour on a terminal."""
    if not sys.stdout.isatty():
        sys.stdout.write(table_text(table))
        return
    from rich.console import Console

    Console(highlight=False).print(table)


def table_text(table: Any) -> str:
    """A rich table as plain text, wide enough for paths."""
    from rich.console import Console

    buffer = io.StringIO()
    Console(file=buffer, width=_WIDTH, highlight=False, color_system=None).print(table)
    return "".join(line.rstrip() + "\n" for line in buffer.getvalue().splitlines())


def progress_bar() -> Progress:
    """A progress bar with ETA on stderr; silent when that is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    return Progress(
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # it would lead what is printed there to stderr
        disable=not sys.stderr.isatty(),
    )


def is_stream(path: Path) -> bool:
    """Whether `path` is something like /dev/stdout, which must not be replaced by a file."""
    return path.exists() and not path.is_file() and not path.is_dir()
