"""The folders of a data set's parts, found under every usual name: `train`, `Training`, `VAL`, `valid`, `test` …"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DataError

# Names of the same rank are one name in different spellings; a lower rank counts only where there is none of a higher.
TRAIN_NAMES = (("train", "training", "trn"),)
VAL_NAMES = (("val", "valid", "validation", "validate"), ("test", "testing", "eval", "evaluation", "dev"))
PARTS = {"train": TRAIN_NAMES, "val": VAL_NAMES}


def is_split_name(name: str, split: str) -> bool:
    """Whether a folder's name is one of those of "train" or "val"."""
    return any(name.casefold() in names for names in PARTS[split])


def split_folder(root: Path, split: str) -> Path | None:
    """The folder of a part, "train" or "val" (which may be called test), or None.

    Raises DataError where two folders could be meant.
    """
    return _find(root, folder_names(root), split)


def split_tar(root: Path, split: str) -> Path | None:
    """The tar file of a part, `train.tar`, `Valid.tar`, or None; raises DataError where two could be meant."""
    files = sorted(path.name for path in root.iterdir() if path.suffix == ".tar") if root.is_dir() else []
    return _find(root, files, split)


def _find(root: Path, there: list[str], split: str) -> Path | None:
    for names in PARTS[split]:
        found = [name for name in there if name.casefold().removesuffix(".tar") in names]
        if found:
            return root / _only(root, found, f"the {split} images")
    return None


def folder_of(root: Path, path: str) -> Path | None:
    """`root / path`, whose folders may be spelled in any case, or None where one of them is missing.

    Raises DataError where two spellings are there and none of them is exactly the one that is asked for.
    """
    here = root
    for part in path.split("/"):
        if (here / part).is_dir():
            here = here / part
            continue
        found = [name for name in folder_names(here) if name.casefold() == part.casefold()]
        if not found:
            return None
        here = here / _only(here, found, part)
    return here


def folder_names(root: Path) -> list[str]:
    """Sorted names of the visible folders of a folder; none where it is no folder."""
    if not root.is_dir():
        return []
    try:
        return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot read the folder {root}: {error.strerror}") from error


def _only(root: Path, found: list[str], what: str) -> str:
    if len(found) > 1:
        raise DataError(f"{root} holds {' and '.join(found)}; one of them can be {what}: remove or rename the others")
    return found[0]
