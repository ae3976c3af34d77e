"""Which checkpoints a list, a folder or a pattern means."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import CheckpointError
from . import folders
from .files import SUFFIXES, is_weights


def matching(pattern: str) -> list[str]:
    """Paths that a glob matches, sorted; a path that exists is taken literally, brackets in its name included."""
    return [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207


def find_checkpoints(patterns: Iterable[str | Path]) -> list[str]:
    """Checkpoints that files, folders (at any depth), globs ("runs/*/best.*") and hub ids mean, each once.

    The folder of a run, of a repository of the hub or of an unpacked .keras is one checkpoint (`folders.is_one`); of
    any other folder every checkpoint in it counts, in the order of their names.
    Raises CheckpointError for a pattern or folder in which there is none.
    """
    found: dict[str, None] = {}
    for pattern in map(str, patterns):
        plain = "://" in pattern or not glob.has_magic(pattern)  # a hub id is no path
        matches = [pattern] if plain else matching(pattern)
        checkpoints = [name for match in matches for name in _inside(match)]
        if not checkpoints:
            if any(Path(match, folders.RECIPE).is_file() for match in matches):
                raise CheckpointError(f"the run in {pattern} has written no model yet; wait for its first checkpoint")
            what = "the folder holds no checkpoint" if matches else "nothing matches the pattern"
            raise CheckpointError(f"{what}: {pattern}; looked for files ending in {', '.join(SUFFIXES)}")
        found |= dict.fromkeys(checkpoints)
    return list(found)


def _inside(match: str) -> Iterator[str]:
    if not Path(match).is_dir():
        yield match
        return
    seen: set[str] = set()
    for folder, inner, names in os.walk(match, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up, or to a folder that was there before
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if folders.is_one(names):
            inner.clear()  # its history, its checkpoint-500
            yield folder
        else:
            yield from (str(path) for path in sorted(Path(folder, name) for name in names) if is_weights(path))
