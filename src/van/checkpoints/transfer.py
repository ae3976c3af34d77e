"""Files from plain links: an interrupted download goes on where it stopped, and only a whole file gets its name.

What has arrived lies beside the target as `.NAME.<8 digits>.part`, one for each link, with a record of what the server
said in `.NAME.<8 digits>.json`. Both are removed where the server cannot go on in the middle of a file.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http.cookiejar import CookieJar
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ..errors import CheckpointError
from ..files import fitting_stem, read_json
from . import drive

try:
    import fcntl
except ImportError:  # Windows: two processes that download one file at once are not kept apart
    fcntl = None  # type: ignore[assignment]

TIMEOUT_S = 60.0  # without a byte
ATTEMPTS = 5  # in a row that bring no byte, before a download that had begun is given up
PAUSE_S = 1.0  # before the next attempt, doubled each time
BLOCK = 1 << 20
_TEMPORARY_STATUS = (408, 429, 500, 502, 503, 504)
_RANGE_NOT_SATISFIABLE = 416
_ADVICE = "; try again, or download it yourself"

# (bytes that have arrived, bytes in all; None: the server does not say)
Progress = Callable[[int, int | None], None]


class WrongFileError(CheckpointError):
    """A whole file arrived, with another hash than the published one.

    found: its sha256. kept: where it is, None when it was deleted.
    """

    def __init__(self, message: str, *, found: str, kept: Path | None) -> None:
        super().__init__(message)
        self.found, self.kept = found, kept


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """The file or folder of published weights; link: where it came from, None: it was on this machine already.

    failures: what went wrong with the links before that one.
    """

    path: Path
    link: str | None = None
    failures: tuple[str, ...] = ()


def fetch_first(
    links: Iterable[str],
    target: Path,
    *,
    sha256: str | None = None,
    keep_wrong: bool = False,
    progress: Progress | None = None,
    failures: Iterable[str] = (),
) -> Fetched:
    """The file from the first link that gives it; options as those of `fetch`.

    failures: of other ways to get it, tried before. Raises CheckpointError, with the reasons of all links, where none
    does; WrongFileError where one of them gave another file.
    """
    reasons, wrong, tried = list(failures), None, list[str]()
    for link in links:
        try:
            path = fetch(link, target, sha256=sha256, keep_wrong=keep_wrong, progress=progress)
            for other in tried:
                _remove(part_path(target, other))
            return Fetched(path=path, link=link, failures=tuple(reasons))
        except WrongFileError as error:
            wrong = wrong or error
            reasons.append(str(error))
        except CheckpointError as error:
            reasons.append(str(error).removesuffix(_ADVICE))
        tried.append(link)
    message = "; ".join(reasons)
    if wrong is not None:
        raise WrongFileError(message, found=wrong.found, kept=wrong.kept)
    raise CheckpointError(message)


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    keep_wrong: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Download `url` to the file `target` unless it is there; it appears whole or not at all.

    A download that was interrupted, of this process or an earlier one, goes on where it stopped if the server can.
    sha256: of the file, or its first digits. keep_wrong: a file with another hash stays, as `NAME.wrong-<8 digits>`.
    progress: called as bytes arrive. Raises WrongFileError for a file with another hash, CheckpointError when the
    download fails.
    """
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _Part(target, url) as part:
            if not target.exists():  # another process may have brought it while this one waited
                _bring(part, url, sha256, progress)
                part.become(target, url, sha256, keep_wrong)
    except (OSError, ValueError, http.client.HTTPException) as error:
        kept = ""
        if part_bytes := _bytes_of(part_path(target, url)):
            kept = f" ({part_bytes:,} bytes have arrived and are kept: the next attempt goes on from there)"
        raise CheckpointError(f"download of {url} failed: {one_line(error)}{kept}{_ADVICE}") from error
    return target


def check_sha256(path: Path, wanted: str | None) -> None:
    """Raise WrongFileError unless a file that is on this machine has a hash that begins so."""
    if wanted and not (found := sha256_of(path)).startswith(wanted):
        raise WrongFileError(
            f"{path.name} is not the published file: its sha256 is {found}, not {wanted}…; delete it",
            found=found,
            kept=path,
        )


def sha256_of(path: Path) -> str:
    """The sha256 of a file, 64 digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def one_line(error: Exception) -> str:
    """An error's type and text on one line of bearable length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def part_path(target: Path, url: str) -> Path:
    """Where what has arrived of `target` from this link lies until it is whole."""
    ending = f".{zlib.crc32(url.encode()):08x}.part"
    return target.with_name(fitting_stem(f".{target.name}", longest=ending) + ending)


# ---- what has arrived


class _Part:
    """The part file of a download, this process's alone while it is open.

    size: bytes in it. total: bytes of the whole file, None when unknown. validator: of the file that is on the server,
    for If-Range. resumable: the server can go on in the middle. continued: some bytes are an earlier process's.
    """

    def __init__(self, target: Path, url: str) -> None:
        self.path, self.url = part_path(target, url), url
        self.record = _record(self.path)

    def __enter__(self) -> Self:
        self.file = _alone(self.path)
        self.total: int | None = None
        self.validator, self.resumable = "", False
        with suppress(OSError, ValueError):  # without a record, or with half of one, the download starts over
            stated = read_json(self.record)
            if isinstance(stated, dict) and stated.get("url") == self.url:
                self.total = stated["total"] if isinstance(stated.get("total"), int) else None
                self.validator, self.resumable = str(stated.get("validator") or ""), True
        self.size = self.file.seek(0, os.SEEK_END) if self.resumable else 0
        self.continued = self.size > 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.file.closed:  # it has another name by now
            return
        useless = not (self.resumable and self.size) and _is_at(self.file, self.path)
        self.file.close()
        if useless:
            _remove(self.path)

    def restart(self) -> None:
        """Forget what has arrived."""
        self.file.seek(0)
        self.file.truncate()
        self.size, self.total, self.validator, self.resumable, self.continued = 0, None, "", False, False

    def note(self, headers: Message, total: int | None, *, resumable: bool) -> None:
        """Remember which file this is the beginning of, before the first byte of it is written."""
        self.total, self.resumable = total, resumable
        tag = headers.get("ETag") or ""
        self.validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified") or ""
        if resumable:
            self.record.write_text(json.dumps({"url": self.url, "total": total, "validator": self.validator}))

    def append(self, block: bytes) -> None:
        self.file.seek(self.size)
        self.file.truncate()
        self.file.write(block)
        self.file.flush()
        self.size += len(block)

    def become(self, target: Path, url: str, sha256: str | None, keep_wrong: bool) -> None:
        """Take the name of the target; raises WrongFileError where the hash is another's."""
        if fcntl is None:  # Windows renames no open file
            self.file.close()
        found = sha256_of(self.path) if sha256 else ""
        self.record.unlink(missing_ok=True)
        if not sha256 or found.startswith(sha256):
            self.path.replace(target)
            return
        kept = target.with_name(f"{target.name}.wrong-{found[:8]}") if keep_wrong else None
        if kept is None:
            self.path.unlink()
        else:
            self.path.replace(kept)
        end = f"it is kept as {kept}" if kept else "it was deleted"
        raise WrongFileError(
            f"what {url} gave is not the published file: its sha256 is {found}, not {sha256}…; {end}",
            found=found,
            kept=kept,
        )


def _alone(path: Path) -> IO[bytes]:
    """The part file, locked: waits while another process downloads the same."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b", buffering=0)
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        if _is_at(file, path):
            return file
        file.close()  # its holder renamed or removed it meanwhile


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _record(part: Path) -> Path:
    return part.with_suffix(".json")


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _record(part).unlink(missing_ok=True)


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# ---- the way there


def _bring(part: _Part, url: str, sha256: str | None, progress: Progress | None) -> None:
    """The whole file into the part file, with pauses and new attempts where the connection breaks."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    failures = 0
    while True:
        before = part.size
        try:
            _receive(part, opener, url, progress)
        except (OSError, http.client.HTTPException) as error:
            failures = 0 if part.size > before else failures + 1
            if not (part.resumable and part.size) or failures >= ATTEMPTS or _is_final(error):
                raise
            time.sleep(PAUSE_S * 2**failures)
            continue
        if sha256 and part.continued and not sha256_of(part.path).startswith(sha256):
            part.restart()  # the earlier process had begun another file, or a damaged one
            continue
        return


def _is_final(error: Exception) -> bool:
    """Whether another attempt would meet the same answer."""
    return isinstance(error, urllib.error.HTTPError) and error.code not in _TEMPORARY_STATUS


def _receive(part: _Part, opener: urllib.request.OpenerDirector, url: str, progress: Progress | None) -> None:
    """One request; raises OSError when the connection ends before the file does."""
    headers = {"User-Agent": "visual-attention-network"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        headers |= {"If-Range": part.validator} if part.validator else {}
    try:
        reply = drive.open_link(opener, url, headers, TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != _RANGE_NOT_SATISFIABLE or not part.size:
            raise
        error.close()
        if part.size != part.total:
            part.restart()
            _receive(part, opener, url, progress)
        return
    with reply:
        if not _begin(part, reply):
            part.restart()
            _receive(part, opener, url, progress)
            return
        while True:
            if progress is not None:
                progress(part.size, part.total)
            if not (block := reply.read1(BLOCK)):
                break
            part.append(block)
    if part.total is not None and part.size != part.total:
        raise OSError(f"{part.size:,} of {part.total:,} bytes arrived")


def _begin(part: _Part, reply: http.client.HTTPResponse) -> bool:
    """Get ready for the body of a reply; False where it is not the rest of what is there."""
    length = reply.headers.get("Content-Length")
    if reply.status != http.client.PARTIAL_CONTENT:
        part.restart()
        resumable = (reply.headers.get("Accept-Ranges") or "").lower() == "bytes"
        part.note(reply.headers, int(length) if length else None, resumable=resumable)
        return True
    stated = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", (reply.headers.get("Content-Range") or "").strip())
    if stated is None or int(stated[1]) != part.size:
        return False
    total = int(stated[2]) if stated[2] != "*" else None
    if part.total is not None and total is not None and total != part.total:
        return False
    part.note(reply.headers, total if total is not None else part.total, resumable=True)
    return True
