"""Where a COCO data set keeps its annotation files, and the folders that these speak of.

Known are `annotations/instances_train2017.json` beside `train2017/`, any other `annotations/*train*.json`, a folder per
part with one JSON file in it (`train/_annotations.coco.json`), and a single JSON file beside a folder of images.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import DataError
from .json_stream import mentions
from .split_folders import PARTS, folder_of, split_folder

Kind = Literal["objects", "segments"]
# Words in the names of COCO's other files.
_OTHERS = frozenset(("captions", "keypoints", "stuff", "info", "results"))
_MARKS: Mapping[Kind, str] = {"objects": "instances", "segments": "panoptic"}
_RANKS = {name: (split, rank) for split, ranks in PARTS.items() for rank, names in enumerate(ranks) for name in names}
_PART = re.compile("(?<![a-z])(?:" + "|".join(sorted(_RANKS, key=len, reverse=True)) + ")(?![a-z])")


@dataclass(frozen=True)
class AnnotationFiles:
    """The annotation files of a data set. files: by split, "train" and "val", or "all" of a data set that has one."""

    root: Path
    files: Mapping[str, Path]

    def of(self, split: str) -> tuple[Path, bool]:
        """The file of a split, and whether the split is a drawn part of it; raises DataError where there is none."""
        if "all" in self.files:
            return self.files["all"], True
        if "val" not in self.files:
            return self.files["train"], True
        if split not in self.files:
            raise DataError(f"{self.root} has no {split} part, only {self.files['val'].name}; add a file named {split}")
        return self.files[split], False


def annotation_files(data: Path, kind: Kind) -> AnnotationFiles | None:
    """Those of a folder or of a JSON file; None where there are none; raises DataError where several could be meant."""
    if data.suffix.lower() == ".json":
        return _beside(data, kind)
    if not data.is_dir():
        return None
    if data.name.casefold() == "annotations":
        data = data.absolute().parent
    inner = folder_of(data, "annotations")
    for folder in (inner, data):
        if folder is not None and (files := _by_part(_json_files(folder, kind), kind, folder)):
            return AnnotationFiles(data, files)
    parts = {split: split_folder(data, split) for split in PARTS}
    found = {split: _only_file(folder, kind) for split, folder in parts.items() if folder is not None}
    files = {split: path for split, path in found.items() if path is not None}
    return AnnotationFiles(data, files) if files else None


def image_folder(file: Path, root: Path, split: str, names: Sequence[str]) -> Path:
    """The folder that holds the images of an annotation file; raises DataError where no place has the first ones."""
    part = _PART.search(file.stem.casefold())
    folders = [file.stem] if part is None else [file.stem[part.start() :]]  # train2017 of instances_train2017
    places = [base / name for base in (root, root / "images", file.parent) for name in folders]
    for base in dict.fromkeys((root, root / "images", file.parent, file.parent / "images")):
        found = split_folder(base, split)
        places += [] if found is None else [found, found / "images"]
    return _first_with(
        names, (*places, root / "images", file.parent / "images", root, file.parent, file.parent.parent), file, "images"
    )


def map_folder(file: Path, root: Path, names: Sequence[str]) -> Path:
    """The folder that holds the PNG maps of a panoptic annotation file; raises DataError as `image_folder`."""
    places = (file.with_suffix(""), root / file.stem, file.parent / "panoptic", root / "panoptic", file.parent, root)
    return _first_with(names, places, file, "panoptic maps")


@functools.lru_cache(maxsize=256)
def _kind_at(path: Path, size: int, changed_ns: int) -> Kind | None:
    words = set(re.findall("[a-z]+", path.stem.casefold()))
    if words & _OTHERS:
        return None
    for kind, mark in _MARKS.items():
        if mark in words:
            return kind
    if not mentions(path, "annotations", "images"):
        return None
    return "segments" if mentions(path, "segments_info") else "objects"


def kind_of(path: Path) -> Kind | None:
    """What a JSON file annotates, by its name or its keys; None for other files. Large ones are searched once."""
    try:
        state = path.stat()
    except OSError:
        return None
    return _kind_at(path, state.st_size, state.st_mtime_ns)


def _beside(data: Path, kind: Kind) -> AnnotationFiles | None:
    """A file whose name says its part, with its sister for the other part; or one file for all."""
    # what is given by its name and is none of COCO's files is refused when it is read, with what is missing in it
    if not data.is_file() or (kind_of(data) or "objects") != kind:
        return None
    root = data.parent.parent if data.parent.name.casefold() == "annotations" else data.parent
    part = _part_of(data)
    if part is None:
        return AnnotationFiles(root, {"all": data})
    sisters = [path for path in _json_files(data.parent, kind) if _form(path) == _form(data)]
    others = [path for path in sisters if (found := _part_of(path)) is not None and found[0] != part[0]]
    return AnnotationFiles(root, {**_by_part(others, kind, data.parent), part[0]: data})


def _json_files(folder: Path, kind: Kind) -> list[Path]:
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(".json"))
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error
    return [folder / name for name in names if not name.startswith(".") and kind_of(folder / name) == kind]


def _by_part(paths: Sequence[Path], kind: Kind, folder: Path) -> dict[str, Path]:
    """The file of each part by name; {"all": file} for the only one."""
    ranked: dict[str, dict[int, list[Path]]] = {}
    for path in paths:
        if (part := _part_of(path)) is not None:
            ranked.setdefault(part[0], {}).setdefault(part[1], []).append(path)
    if not ranked:
        return {"all": _one(paths, kind, folder, "the data set")} if paths else {}
    return {split: _one(ranks[min(ranks)], kind, folder, split) for split, ranks in ranked.items()}


def _one(paths: Sequence[Path], kind: Kind, folder: Path, what: str) -> Path:
    usual = [path for path in paths if _MARKS[kind] in path.stem.casefold()] or list(paths)
    if len(usual) > 1:
        names = " and ".join(path.name for path in usual)
        raise DataError(f"{folder} holds {names}; one of them can be {what}: give the file itself as data")
    return usual[0]


def _only_file(folder: Path, kind: Kind) -> Path | None:
    usual = folder / "_annotations.coco.json"
    if kind_of(usual) == kind:
        return usual
    found = _json_files(folder, kind)
    return _one(found, kind, folder, "its annotations") if found else None


def _part_of(path: Path) -> tuple[str, int] | None:
    """The split that a file's name speaks of, and the rank of the word."""
    found = _PART.search(path.stem.casefold())
    return None if found is None else _RANKS[found[0]]


def _form(path: Path) -> str:
    return _PART.sub("*", path.stem.casefold(), count=1)


def _first_with(names: Sequence[str], places: Iterable[Path], file: Path, what: str) -> Path:
    tried = [place for place in dict.fromkeys(places) if place.is_dir()]
    for name in names[:3]:  # one or two may be missing
        for place in tried:
            if (place / name).is_file():
                return place
    looked = ", ".join(map(str, tried)) or "no folder that exists"
    raise DataError(f"the {what} of {file} are not found, e.g. {names[0]}; looked in {looked}: put them beside it")
