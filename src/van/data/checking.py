"""Images that cannot be read, found before training: every file is decoded once, and what was whole is remembered.

An image is known by the path, size and modification time of its files. The memory lies beside the data set's index
where there is one (`data.index`), else in the cache folder: eight bytes per whole image, so that the next start only
asks for their times.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import DataError
from ..files import atomic_output, private_cache

# What the check of an ordinary run may take at most; the rest is left to training, and to the next start.
LIMIT_S = 300.0
# A file that changed less than this before it was read may change again without another time.
_FRESH_NS = 100_000_000


class Files(Protocol):
    """A data set of files; see `labelled_images` and `labelled_pixels`."""

    def __len__(self) -> int: ...

    def key(self, index: int) -> str: ...

    def files(self, index: int) -> tuple[Path, ...]: ...

    @property
    def root(self) -> Path | None: ...

    def verify(self, index: int) -> None: ...


@dataclass
class Checked:
    """What a check found: index -> why it cannot be read; how many were decoded, known from before, and left out."""

    unreadable: dict[int, str] = field(default_factory=dict)
    decoded: int = 0
    known: int = 0
    left: int = 0
    seconds: float = 0.0

    @property
    def images_per_s(self) -> float:
        """How fast they were decoded."""
        return self.decoded / max(self.seconds, 1e-9)


def check_images(
    data: Files,
    *,
    index: Path | None = None,
    limit_s: float | None = LIMIT_S,
    threads: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Decode every image of a data set that was not found whole before.

    limit_s: stop after so many seconds; None: check all. stop: called from time to time, ends the check early.
    progress: called with (images done, images in all).
    """
    memory = _Memory(data, index)
    found, started = Checked(), time.monotonic()
    todo = [place for place in range(len(data)) if not memory.knows(place)]
    found.known = len(data) - len(todo)
    try:
        for place, reason in _decoded(data, todo, threads or min(32, os.cpu_count() or 1)):
            found.decoded += 1
            if reason:
                found.unreadable[place] = reason
            else:
                memory.learn(place)
            if progress is not None:
                progress(found.known + found.decoded, len(data))
            late = limit_s is not None and time.monotonic() - started > limit_s
            if late or stop():
                break
    finally:  # also of a check that was interrupted
        found.seconds = time.monotonic() - started
        found.left = len(todo) - found.decoded
        memory.write()
    found.unreadable = dict(sorted(found.unreadable.items()))
    return found


def _decoded(data: Files, places: Iterable[int], threads: int) -> Iterable[tuple[int, str]]:
    """(place, what is wrong with the image or "") as they are done; PIL decodes beside Python's lock."""
    waiting, pending = iter(places), set[Future[tuple[int, str]]]()
    pool = ThreadPoolExecutor(threads)
    try:
        while True:
            while len(pending) < 4 * threads and (place := next(waiting, None)) is not None:
                pending.add(pool.submit(_why_unreadable, data, place))
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (each.result() for each in done)
    finally:
        pool.shutdown(cancel_futures=True)


def _why_unreadable(data: Files, place: int) -> tuple[int, str]:
    try:
        data.verify(place)
    except DataError as error:
        return place, str(error)
    return place, ""


class _Memory:
    """The images of a data set that were whole: digests of path, size and time."""

    def __init__(self, data: Files, index: Path | None) -> None:
        self.data, self.file = data, _file(data, index)
        self.whole = _read(self.file)
        self.digests: dict[int, int] = {}
        self.fresh: list[int] = []  # learnt now

    def knows(self, place: int) -> bool:
        """Whether the file is as it was when it was found whole."""
        try:
            states = [path.stat() for path in self.data.files(place)]
        except OSError:
            return False
        if time.time_ns() - max(state.st_mtime_ns for state in states) < _FRESH_NS:
            return False
        facts = [f"{state.st_size}\0{state.st_mtime_ns}" for state in states]
        key = "\0".join((self.data.key(place), *facts)).encode("utf-8", "surrogateescape")
        digest = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")
        position = int(np.searchsorted(self.whole, np.uint64(digest)))
        if position < len(self.whole) and int(self.whole[position]) == digest:
            return True
        self.digests[place] = digest
        return False

    def learn(self, place: int) -> None:
        """The image is whole."""
        if place in self.digests:
            self.fresh.append(self.digests[place])

    def write(self) -> None:
        """Keep what was learnt, whole or not at all; a memory that cannot be kept costs time only."""
        if self.file is None or not self.fresh:
            return
        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_output(self.file, error=None) as temporary, temporary.open("wb") as file:
                np.save(file, np.union1d(self.whole, np.array(self.fresh, np.uint64)))


def _file(data: Files, index: Path | None) -> Path | None:
    if data.root is None:
        return None
    name = hashlib.blake2b(os.fsencode(data.root.resolve()), digest_size=8).hexdigest()
    try:
        return (index or private_cache() / "images") / f"{name}.whole.npy"
    except OSError:  # nowhere to remember anything
        return None


def _read(file: Path | None) -> np.ndarray:
    nothing = np.empty(0, np.uint64)
    if file is None or not file.is_file():
        return nothing
    try:
        known = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return nothing
    return known if known.dtype == np.uint64 and known.ndim == 1 and (known[1:] > known[:-1]).all() else nothing
