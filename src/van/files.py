"""Files: paths before they are opened, the user's own cache, atomic writing, text that is safe to show, JSON."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    return "contains a NUL character, which is not allowed in a path" if "\0" in text else ""


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
    return "" if stat.S_ISREG(mode) else next((words for kind, words in _KINDS if kind(mode)), "is not a regular file")


# ---- writing: under a temporary name in the same folder, then renamed, so that a file is there whole or not at all

_LONGEST_NAME = 255  # bytes that file systems take
# What follows the name of the file in the name of its temporary one.
_TEMPORARY = r"\.[a-z0-9_]{8}\.part"


@contextmanager
def atomic_output(
    path: str | Path,
    *,
    error: type[VanError] | None = ConfigError,
    fsync: bool = False,
    backup: str | None = None,
    mode: int | None = None,
    follow_links: bool = False,
) -> Iterator[Path]:
    """A temporary file in the same folder that takes the place of `path` when the block ends well.

    error: raised, naming the file, where it cannot be written; None: the OSError itself.
    fsync: the content is on the disk before the file gets its name.
    backup: the name, in the same folder, under which the file before it stays.
    mode: permissions; None: those that the umask gives every new file.
    follow_links: of a symbolic link, replace what it leads to; otherwise the link itself is replaced.
    """
    target = Path(path).resolve() if follow_links else Path(path)
    with _writing(target, error):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder is there; give a file name")
        handle, name = tempfile.mkstemp(prefix=f".{_fitting(target.name)}.", suffix=".part", dir=target.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        with _writing(target, error):
            yield temporary
            temporary.chmod(0o666 & ~_umask() if mode is None else mode)
            if fsync:
                _flush_to_disk(temporary)
            if backup is not None and target.exists():
                target.replace(target.with_name(backup))
            temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_outputs(*paths: Path, error: type[VanError] = ConfigError) -> Iterator[tuple[Path, ...]]:
    """Files that belong together, all in one folder: under their own names in a temporary folder beside them.

    They are moved in the order given when the block ends well. error: raised where they cannot be written.
    """
    first = paths[0]
    with _writing(first, error):
        folder = Path(tempfile.mkdtemp(prefix=f".{_fitting(first.name)}.", suffix=".part", dir=first.parent))
    try:
        yield tuple(folder / path.name for path in paths)
        for path in paths:
            with _writing(path, error):
                (folder / path.name).replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_file(
    path: str | Path, content: str | bytes, *, error: type[VanError] | None = ConfigError, follow_links: bool = False
) -> None:
    """Write text or bytes; options as those of `atomic_output`.

    Text is UTF-8; names in it that are not UTF-8 are written with their own bytes.
    """
    with atomic_output(path, error=error, follow_links=follow_links) as temporary:
        temporary.write_bytes(content.encode(errors="surrogateescape") if isinstance(content, str) else content)


def is_temporary(path: Path, *names: str) -> bool:
    """Whether `path` is called as `atomic_output` calls its temporary file of one of these names, regular expressions.

    Such a file is left behind by a process that was killed while it wrote.
    """
    return re.fullmatch(rf"\.(?:{'|'.join(names)}){_TEMPORARY}", path.name) is not None


@contextmanager
def _writing(path: Path, error: type[VanError] | None) -> Iterator[None]:
    """Raises `error`, where there is one, for an OSError."""
    try:
        yield
    except OSError as reason:
        if error is None:
            raise
        where = "" if path.parent.is_dir() else f" ({path.parent})"
        raise error(f"cannot write {path}: {reason.strerror or reason}{where}") from reason


def _fitting(name: str) -> str:
    """As much of a name as leaves room for the rest of a temporary name."""
    while len(os.fsencode(name)) > _LONGEST_NAME - 16:
        name = name[:-1]
    return name


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    room = _LONGEST_NAME - len(longest)
    if len(os.fsencode(stem)) <= room:
        return stem
    end = f"-{zlib.crc32(os.fsencode(stem)):08x}"
    while len(os.fsencode(stem)) > room - len(end):
        stem = stem[:-1]
    return stem + end
