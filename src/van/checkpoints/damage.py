"""The one place where whatever a damaged or hostile file makes a library raise becomes an error that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CheckpointError, VanError

MOST_LETTERS = 2_000  # of an error: a file's names may have any length


@contextmanager
def named_damage(
    path: str | Path, what: str = "is truncated, corrupt or not a checkpoint", remedy: str = "download or save it again"
) -> Iterator[None]:
    """Everything that is raised while `path` is read, as a CheckpointError of one line; errors of this package pass.

    zipfile, zlib, h5py, safetensors, numpy and the runtimes of exported files raise nearly anything on damaged bytes,
    so no list of exceptions is kept here. A CheckpointError that does not name the file yet gets its path.
    """
    try:
        yield
    except CheckpointError as error:
        text = str(error) if str(path) in str(error) else f"{path}: {error}"
        if text == str(error) and len(text) <= MOST_LETTERS:
            raise
        raise type(error)(text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]} …") from error
    except VanError:
        raise
    except MemoryError as error:
        raise CheckpointError(
            f"{path} needs more memory than there is; it is damaged, or too large for this machine"
        ) from error
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise CheckpointError(f"{path} {what}: {reason}; {remedy}") from error
    except Exception as error:
        raise CheckpointError(f"{path} {what}: {one_line(error) or type(error).__name__}; {remedy}") from error


def one_line(error: BaseException) -> str:
    """The text of an exception without line breaks, and not longer than a few lines."""
    return " ".join(str(error).split())[:300]


def growth_limit(file_bytes: int) -> int:
    """What a file of so many bytes may become in memory: weights hardly compress, and few of them are shared."""
    return 16 * file_bytes + 2**26
