"""One training per folder: a lock file in it, which says who holds it.

The kernel drops the lock with its process, however that ends, so a run that was killed resumes at once. Some network
file systems keep such locks on one machine only; there the holder's heartbeat, the file's time, says that it lives.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import ConfigError, VanNotice

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"
BEAT_S, WATCH_S = 5.0, 30.0
_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_held: set[int] = set()  # descriptors


class RunLock:
    """The lock of a run's folder; taken once, let go at the end of the block."""

    def __init__(self) -> None:
        self.path, self.descriptor = Path(), -1
        self.ended = threading.Event()

    def __enter__(self) -> RunLock:
        return self

    def take(self, folder: Path) -> None:
        """Take the lock of a folder; again does nothing. Raises ConfigError that names the process that has it."""
        if self.descriptor >= 0:
            return
        path = folder / LOCK
        descriptor, kernel_knows = _locked(path)
        holder = _read(path)
        if holder is not None and _lives(holder, path, kernel_knows):
            os.close(descriptor)
            raise ConfigError(_refusal(path, holder))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_self()).encode(), 0)
        _held.add(descriptor)
        self.path, self.descriptor = path, descriptor
        threading.Thread(target=self._beat, name="run lock", daemon=True).start()

    def __exit__(self, *_: Any) -> None:
        if self.descriptor < 0:
            return
        self.ended.set()
        _held.discard(self.descriptor)
        if _is_at(self.descriptor, self.path):  # nobody removed it and took its place
            with suppress(OSError):  # the folder can no longer be written to, which an error says
                self.path.unlink(missing_ok=True)
        os.close(self.descriptor)
        self.descriptor = -1

    def _beat(self) -> None:
        descriptor = self.descriptor
        while not self.ended.wait(BEAT_S):
            try:
                os.utime(descriptor)
            except OSError:  # the file system is gone; the next checkpoint says so
                return


def _locked(path: Path) -> tuple[int, bool]:
    """An open lock file that is this process's, as far as its kernel knows, and whether the kernel does know.

    Raises ConfigError when another process has it.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ConfigError(f"cannot write to the output folder {path.parent}: {error.strerror}") from error
        try:
            if fcntl is None:
                return descriptor, False
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return descriptor, False
            os.close(descriptor)
            raise ConfigError(_refusal(path, _read(path, patiently=True))) from None
        if _is_at(descriptor, path):
            return descriptor, True
        os.close(descriptor)  # its holder removed it meanwhile


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _read(path: Path, *, patiently: bool = False) -> dict[str, Any] | None:
    """Who wrote the file; None when it says nothing (yet)."""
    for _ in range(10 if patiently else 1):
        try:
            holder = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(holder, dict) and {"host", "process", "started"} <= holder.keys():
                return holder
        except (OSError, ValueError, RecursionError):
            pass
        if patiently:
            time.sleep(0.1)
    return None


def _lives(holder: dict[str, Any], path: Path, kernel_knows: bool) -> bool:
    """Whether the process that wrote the file still runs, where the kernel gave the lock to this one nevertheless."""
    if holder["host"] == socket.gethostname():
        return not kernel_knows and _is_alive(holder["process"])
    warnings.warn(
        f"{path} was left by process {holder['process']} on {holder['host']}; watching for {WATCH_S:.0f} s whether it "
        "still runs",
        VanNotice,
        stacklevel=5,
    )
    first, end = _time_of(path), time.monotonic() + WATCH_S
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH_S))
        if _time_of(path) != first:
            return True
    return False


def _time_of(path: Path) -> int:
    """Modification time; the file is opened for it, because network file systems remember such times otherwise."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return -1


def _is_alive(process: Any) -> bool:
    if not isinstance(process, int) or not 0 < process < 2**31 or process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True


def _self() -> dict[str, Any]:
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return {"host": socket.gethostname(), "process": os.getpid(), "started": started}


def _refusal(path: Path, holder: dict[str, Any] | None) -> str:
    who = "" if holder is None else f": process {holder['process']} on {holder['host']}, since {holder['started']}"
    return (
        f"{path.parent} is in use by another training{who}; wait for it, stop it, or choose another trainer.out (where "
        f"that process is long gone, remove {path})"
    )


def _close_in_child() -> None:
    """A data worker must not keep the lock of a training that was killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
