"""Files: paths before they are opened, the user's own cache, atomic writing, text that is safe to show, JSON."""

from __future__ import annotations

import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import ConfigError, VanError

# ---- paths: a pipe would wait for ever, and an empty path is the current folder
_KINDS = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a named pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)


def why_no_path(path: str | Path) -> str:
    """Why a given text names no file or folder, in words; "" when it may."""
    text = os.fspath(path)
    if not text.strip():
        return "is an empty path"
    return "holds a NUL character, which no path can" if "\0" in text else ""


def why_no_file(path: str | Path) -> str:
    """Why a path is no file that can be read from start to end, in words; "" when it is one."""
    if reason := why_no_path(path):
        return reason
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except (OSError, ValueError) as error:  # also a name that is too long, or a link to itself
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    return "" if stat.S_ISREG(mode) else next((words for kind, words in _KINDS if kind(mode)), "is no regular file")


# ---- writing


@contextmanager
def atomic_output(path: str | Path, *, error: type[VanError] = ConfigError) -> Iterator[Path]:
    """A temporary file in the same folder that takes the place of `path` when the block ends well.

    Of a symbolic link, the target is replaced. error: raised, naming the file, where it cannot be written.
    """
    target = Path(path).resolve()
    if target.is_dir():
        raise error(f"cannot write {path}: a folder is there; give a file name")
    try:
        # the name itself may be as long as a file system allows
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=target.parent)
        os.close(handle)
    except OSError as reason:
        raise error(f"cannot write {path}: {reason.strerror or reason} ({target.parent})") from reason
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as reason:
        raise error(f"cannot write {path}: {reason.strerror or reason}") from reason
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ---- the cache: what lies there is executed or believed later, so it counts only where nobody else can write


def cache_folder() -> Path:
    """VAN_CACHE, else `van` in XDG_CACHE_HOME, else ~/.cache/van, as an absolute path; it need not exist.

    Raises FileNotFoundError, with the remedy, for a user without a home.
    """
    given, shared = os.environ.get("VAN_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(given) if given else (Path(shared) if shared else Path.home() / ".cache") / "van"
        return folder.expanduser().absolute()  # a library named without its folder is looked for elsewhere
    except RuntimeError:  # a user without a home, as in containers
        raise FileNotFoundError("this user has no home folder; set VAN_CACHE to a folder of your own") from None


def private_cache() -> Path:
    """The cache folder, made where it is missing (mode 700).

    Raises PermissionError, with the remedy, where other users of the machine can write to it; OSError where it cannot
    be made.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if reason := why_not_private(folder):
        raise PermissionError(f"{folder} {reason}; chmod go-w it, or set VAN_CACHE to a folder of your own")
    return folder


def why_not_private(path: Path) -> str:
    """Why a file or folder cannot be trusted, in words; "" when only this user and root can write it.

    A group may write when it is this process's own, as where every user has a group to himself.
    """
    if not hasattr(os, "getuid"):  # Windows keeps a user's profile to that user
        return ""
    status = path.stat()
    if status.st_uid not in (os.getuid(), 0):
        return f"belongs to another user (uid {status.st_uid})"
    if status.st_mode & stat.S_IWOTH:
        return "can be written by every user"
    if status.st_mode & stat.S_IWGRP and status.st_gid != os.getgid():
        return f"can be written by another group (gid {status.st_gid})"
    return ""


# ---- text

# What steers a terminal or cannot be encoded: control characters, line and paragraph separators, marks and overrides of
# the writing direction, and the surrogates that stand for the bytes of a name that is not UTF-8.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """Text on one line, safe to show: what steers a terminal, or cannot be encoded, as `\\x1b`, `\\u202e`, `\\n`."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


# ---- JSON that others wrote

MAX_JSON_BYTES = 2**27  # an index of a model with many shards has some hundred kilobytes
MAX_JSON_DEPTH = 100


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises ValueError where it is no JSON, nested deeper than MAX_JSON_DEPTH, longer than MAX_JSON_BYTES, names a key
    twice, or holds a number or a text that Python could not write again.
    """
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"{len(text):,} characters of JSON; expected at most {MAX_JSON_BYTES:,}")
    try:
        value = json.loads(text, object_pairs_hook=_each_name_once, parse_float=_finite_number)
    except RecursionError:
        raise ValueError(f"nested too deeply; expected at most {MAX_JSON_DEPTH} levels") from None
    _check_depth_and_text(value)
    return value


def read_json(path: Path) -> Any:
    """The value in a JSON file; raises ValueError as `parse_json` does, OSError for a file that cannot be read."""
    if path.exists() and (reason := why_no_file(path)):
        raise ValueError(f"it {reason}")
    with path.open("rb") as file:
        return parse_json(file.read(MAX_JSON_BYTES + 1))


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} stands there twice")
    return found


def _finite_number(text: str) -> float:
    """1e999 would become infinite; NaN and Infinity, as Python writes them, are spelled otherwise and stay."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:40]} is beyond what a float holds")
    return number


def _check_depth_and_text(value: Any) -> None:
    """Depth, and texts that are no Unicode (half of a surrogate pair), but for names that were bytes, not UTF-8."""
    waiting = [(value, 0)]
    while waiting:
        here, depth = waiting.pop()
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"nested too deeply; expected at most {MAX_JSON_DEPTH} levels")
        if isinstance(here, dict):
            waiting += [(name, depth) for name in here] + [(each, depth + 1) for each in here.values()]
        elif isinstance(here, list):
            waiting += [(each, depth + 1) for each in here]
        elif isinstance(here, str) and not here.isascii():
            here.encode(errors="surrogateescape")  # UnicodeEncodeError is a ValueError


def fitting_stem(stem: str, *, longest: str) -> str:
    """A stem to which `longest` can be added: cut, with a checksum of the whole, where a file system would refuse."""
    room = LONGEST_NAME - len(longest)
    if len(os.fsencode(stem)) <= room:
        return stem
    end = f"-{zlib.crc32(os.fsencode(stem)):08x}"
    while len(os.fsencode(stem)) > room - len(end):
        stem = stem[:-1]
    return stem + end
