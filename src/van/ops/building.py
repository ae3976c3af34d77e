"""Compile the C kernel, and keep it in the user's cache, from where only what they wrote themselves is loaded.

A kept file's name ends in the digest of its content, so that damage is found before anything of the file runs.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import VanNotice
from ..files import atomic_output, cache_folder, private_cache, why_not_private

SOURCES = Path(__file__).parent / "csrc"
COMPILER_TIMEOUT_S = 60
# So long a compiler that did not end is not started again.
HANG_REMEMBERED_S = 24 * 3600
LARGEST_FILE_BYTES = 64 * 1024 * 1024


class NoKernelError(Exception):
    """Why the plain path is used."""


class CompilerHangsError(NoKernelError):
    """The compiler did not end in time, now or the last time it was tried."""


def open_kernel(name: str, flags: Sequence[str], load: Callable[[Path], Any]) -> tuple[Any, str]:
    """`load` of the compiled kernel, from the cache or made now; and in words what was unusual about it, else "".

    Where the cache cannot be used, the kernel is compiled for this process alone.
    Raises NoKernelError when there is none to be had.
    """
    try:
        return load(_cached(private_cache(), name, flags)), ""
    except OSError as error:
        why = str(error)
        if error.strerror:
            why = f"the cache {cache_folder()} cannot be used ({error.strerror}); set VAN_CACHE"
    try:
        with tempfile.TemporaryDirectory(prefix="van-") as folder:
            handle = load(compiled(Path(folder), flags))
    except OSError as error:
        raise NoKernelError(f"{why}; nor can it be built in {tempfile.gettempdir()}: {error}") from None
    why = f"compiled for this process alone, as at every start: {why}"
    warnings.warn(f"the C kernel was {why}", VanNotice, stacklevel=2)
    return handle, why


def compiled(folder: Path, flags: Sequence[str]) -> Path:
    """The kernel, compiled into a folder.

    Raises NoKernelError when there is no compiler, or none that works.
    """
    compiler, made, words = _compiler(), folder / "kernel.so", folder / "stderr"
    command = [*compiler, *flags, str(SOURCES / "kernel.c"), "-o", str(made), "-lm", "-lpthread"]
    with words.open("wb") as errors:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": errors}
        try:
            process = subprocess.Popen(command, **streams, start_new_session=True)
        except OSError as error:
            raise NoKernelError(f"{compiler[0]} did not run: {error}") from None
        try:
            status = process.wait(COMPILER_TIMEOUT_S)
        except BaseException as error:  # its children too: they would go on
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise CompilerHangsError(f"{compiler[0]} did not end in {COMPILER_TIMEOUT_S} s") from None
            raise
    output = words.read_bytes().decode(errors="replace").strip() or "no output"
    if status:
        raise NoKernelError(f"{compiler[0]} failed: {output.splitlines()[0]}")
    if not made.is_file():
        raise NoKernelError(f"{compiler[0]} ended well and made no file")
    return made


def _compiler() -> list[str]:
    given = os.environ.get("CC", "")
    try:
        compiler = shlex.split(given) or [name for name in ("cc", "gcc", "clang") if shutil.which(name)][:1]
    except ValueError as error:
        raise NoKernelError(f"CC is {given!r}, which is no command ({error}); correct it or unset it") from None
    if not compiler:
        raise NoKernelError("no C compiler was found; install one or set CC")
    return compiler


# --- the cache


def _cached(folder: Path, name: str, flags: Sequence[str]) -> Path:
    """The kept kernel, made where it is missing or damaged; one process compiles, others wait for it."""
    path, _ = _kept(folder, name)
    if path is None:
        with _locked(folder / f"{name}.lock"):
            path, damaged = _kept(folder, name)  # another process may have made it meanwhile
            if path is None:
                try:
                    path = _keep(folder, name, flags)
                finally:
                    if damaged:
                        then = "could not be compiled again" if path is None else "was compiled again"
                        warnings.warn(f"{'; '.join(damaged)}: the C kernel {then}", VanNotice, stacklevel=2)
    return path


def _kept(folder: Path, name: str) -> tuple[Path | None, list[str]]:
    """The file that may be loaded, and in words what is wrong with others of the name."""
    wrong: list[str] = []
    for path in sorted(folder.glob(f"{name}-*.so")):
        reason = _why_not_loaded(path)
        if not reason:
            return path, wrong
        wrong.append(f"{path} {reason}")
    return None, wrong


def _why_not_loaded(path: Path) -> str:
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_FILE_BYTES:
            return "is not a library"
        return why_not_private(path) or ("" if path.stem.endswith(_digest(path.read_bytes())) else "is damaged")
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _keep(folder: Path, name: str, flags: Sequence[str]) -> Path:
    """Compile into the cache, under a temporary name first, in place of all that has the name already."""
    hang = folder / f"compiler-{_digest(repr((_compiler(), os.environ.get('PATH'))).encode())}.hangs"
    if hang.exists() and time.time() - hang.stat().st_mtime < HANG_REMEMBERED_S:
        raise CompilerHangsError(f"{_compiler()[0]} did not end when it was tried last; set CC, or remove {hang}")
    with _workplace(folder) as place:
        try:
            made = compiled(place, flags)
        except CompilerHangsError as error:
            hang.touch()
            warnings.warn(f"there is no C kernel: {error}", VanNotice, stacklevel=2)
            raise
        for path in folder.glob(f"{name}-*.so"):
            path.unlink()
        content = made.read_bytes()
        target = folder / f"{name}-{_digest(content)}.so"
        with atomic_output(target, error=None, mode=0o600) as temporary:
            temporary.write_bytes(content)
    hang.unlink(missing_ok=True)
    return target


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A temporary folder of the system's, or in the cache where the system has none."""
    try:
        place = tempfile.TemporaryDirectory(prefix="van-")
    except OSError:
        place = tempfile.TemporaryDirectory(dir=folder)
    with place as name:
        yield Path(name)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; raises OSError where another holds it for longer than a compiler may take."""
    try:
        import fcntl
    except ImportError:
        raise NoKernelError(f"the kernel is not built on {platform.system()}") from None
    give_up = time.monotonic() + 2 * COMPILER_TIMEOUT_S
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise OSError(f"another process holds {path} for too long; end it, or set VAN_CACHE") from None
                time.sleep(0.05)
        yield
