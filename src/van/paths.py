"""What a path is before it is opened: a pipe would wait for ever, and an empty path is the current folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

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
