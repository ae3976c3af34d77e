"""Which checkpoints a list, a folder or a pattern stands for."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..checkpoints.files import FOLDER_WEIGHTS, SUFFIXES, is_weights
from ..errors import CheckpointError


def matching(pattern: str) -> list[str]:
    """Paths that a glob stands for, sorted; a path that exists stands for itself, brackets in its name and all."""
    return [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207


def find_checkpoints(patterns: Iterable[str | Path]) -> list[str]:
    """Checkpoints that files, folders (at any depth), globs ("runs/*/best.*") and hub ids stand for, each once.

    A folder that holds one set of weights as the hub lays it out is one checkpoint.
    Raises CheckpointError for a pattern or folder in which there is none.
    """
    found: dict[str, None] = {}
    for pattern in map(str, patterns):
        matches = matching(pattern) if glob.has_magic(pattern) else [pattern]  # a hub id is no path
        checkpoints = [name for match in matches for name in _inside(match)]
        if not checkpoints:
            what = "the folder holds no checkpoint" if matches else "nothing matches the pattern"
            raise CheckpointError(f"{what}: {pattern}; looked for files ending in {', '.join(SUFFIXES)}")
        found |= dict.fromkeys(checkpoints)
    return list(found)


def _inside(match: str) -> Iterator[str]:
    if not Path(match).is_dir():
        yield match
        return
    for folder, inner, names in os.walk(match):
        inner.sort()
        if any(name in FOLDER_WEIGHTS for name in names):
            yield folder
        else:
            yield from (str(path) for path in sorted(Path(folder, name) for name in names) if is_weights(path))
