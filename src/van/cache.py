"""The folder for what this machine makes for itself: the compiled kernel, and which exported files it wrote.

What lies there is executed or believed later, so it counts only where nobody else can write.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


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
