"""Which exported programs (.pt2) this machine wrote: their SHA-256 in the private cache, one empty file each.

PyTorch's reader runs what such a file holds, so only files that `van export` wrote here open without `trust`, also
under another name. A folder that other users can write to proves nothing and is not believed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

from ...files import cache_folder, private_cache, why_not_private

FOLDER = "exported"


def note(path: Path) -> None:
    """Remember that this machine wrote a file.

    Raises PermissionError, with the remedy, where others can write to the cache; OSError where nobody can.
    """
    folder = private_cache() / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    with path.open("rb") as file:
        (folder / digest(file)).touch(mode=0o600)


def is_ours(file: IO[bytes]) -> bool:
    """Whether this machine wrote what is in an open file."""
    folder = cache_folder() / FOLDER
    entry = folder / digest(file)
    try:
        return entry.is_file() and not any(map(why_not_private, (folder.parent, folder, entry)))
    except OSError:
        return False


def digest(file: IO[bytes]) -> str:
    """SHA-256 of an open file, which stands at its start again afterwards."""
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.seek(0)
    return found
