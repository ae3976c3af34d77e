"""Where a YOLO data set keeps its images and label files: a data.yaml, or folders `images` and `labels`.

    path: .                     # counts from the YAML file's folder; everything below counts from it
    train: images/train         # a folder, a text file with one image a line, or a list of these
    val: images/val
    names: [cat, dog]           # or {0: cat, 1: dog}

The labels of `images/train/a.jpg` are `labels/train/a.txt`; of an image below no `images`, the text file beside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError
from ..recipes.reading import read_settings
from .folder import is_image
from .split_folders import folder_of, split_folder

FILE_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
CLASS_FILES = ("classes.txt", "labels/classes.txt", "obj.names")
_PARTS = {"train": ("train",), "val": ("val", "valid", "validation", "test")}


@dataclass(frozen=True)
class YoloLayout:
    """A data set. source: its YAML file, or its folder; places: folders and lists of images by split, "all" of one
    that is not split.
    """

    root: Path
    source: Path
    classes: tuple[str, ...]
    places: Mapping[str, tuple[Path, ...]]

    def of(self, split: str) -> tuple[tuple[Path, ...], bool]:
        """Where the images of a split are, and whether the split is a drawn part of them.

        Raises DataError where there is none.
        """
        if "all" in self.places:
            return self.places["all"], True
        if "val" not in self.places:
            return self.places["train"], True
        if split not in self.places:
            raise DataError(f"{self.source} names no {split} images; add {split}: and their folder")
        return self.places[split], False


def find_yolo(data: Path) -> YoloLayout | None:
    """The layout of a YAML file or a folder; None for what is no YOLO data set; raises DataError for a faulty one."""
    if data.suffix.lower() in (".yaml", ".yml"):
        return _described(data, sure=False) if data.is_file() else None
    if not data.is_dir():
        return None
    for name in FILE_NAMES:
        if (data / name).is_file() and (found := _described(data / name, sure=name.startswith("data."))) is not None:
            return found
    images, labels = folder_of(data, "images"), folder_of(data, "labels")
    if images is None or labels is None or not _holds_text(labels):
        return None
    parts = {split: split_folder(images, split) for split in ("train", "val")}
    places = {split: (folder,) for split, folder in parts.items() if folder is not None} or {"all": (images,)}
    return YoloLayout(data, data, _classes_beside(data), places)


def images_in(places: Sequence[Path], source: Path) -> list[Path]:
    """The images of folders, with what is in folders below, and of lists, in a fixed order, each once.

    source: what names the places. Raises DataError for one that is not there.
    """
    found: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            for here, folders, files in os.walk(place, followlinks=True):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                found |= dict.fromkeys(Path(here, name) for name in sorted(files) if is_image(Path(name)))
        elif place.is_file():
            lines = (line.strip() for line in _lines(place))
            found |= dict.fromkeys(place.parent / line for line in lines if line)
        else:
            raise DataError(
                f"{place}, which {source} names, does not exist; expected a folder of images, or a text file with one "
                "image a line"
            )
    return list(found)


def label_file(image: Path) -> Path:
    """`labels/a.txt` of `images/a.jpg`; the text file beside an image that is below no folder of this name."""
    parts = list(image.with_suffix(".txt").parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place].casefold() == "images":
            parts[place] = {"IMAGES": "LABELS", "Images": "Labels"}.get(parts[place], "labels")
            break
    return Path(*parts)


def _described(path: Path, *, sure: bool) -> YoloLayout | None:
    """What a YAML file describes; None for one of another kind. sure: by its name it can be nothing else."""
    try:
        d = read_settings(path, numbered=True)
    except ConfigError as error:
        if not sure:
            return None
        raise DataError(f"{error} (a data.yaml has train, val and names)") from error
    if "masks" in d or not any(d.get(key) for keys in _PARTS.values() for key in keys):
        return None
    root = path.parent / str(d.get("path") or ".")
    if not root.is_dir():  # written for the folder that the data set was unpacked in
        root = path.parent
    places: dict[str, tuple[Path, ...]] = {}
    for split, keys in _PARTS.items():
        if (value := next((d[key] for key in keys if d.get(key)), None)) is not None:
            places[split] = _places(value, split, root, path)
    return YoloLayout(path.parent, path, _names(d, path), places)


def _places(value: object, split: str, root: Path, path: Path) -> tuple[Path, ...]:
    entries = value if isinstance(value, list) else [value]
    places = [entry for entry in entries if isinstance(entry, str) and entry]
    if not places or len(places) < len(entries):
        raise DataError(f"{path}: {split} is {value!r:.60}; expected a folder of images, or a list of folders")
    return tuple(_place(entry, root) for entry in places)


def _place(entry: str, root: Path) -> Path:
    """A widespread exporter writes ../train/images where the folder is beside the YAML file."""
    place = root / entry
    inside = root / entry.removeprefix("../")
    return inside if not place.exists() and inside.exists() else place


def _names(d: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    names, count = d.get("names"), d.get("nc")
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise DataError(f"{path}: names has the keys {sorted(map(str, names))[:5]} …; expected 0, 1, 2, …")
        names = [names[number] for number in range(len(names))]
    if names is None and type(count) is int and count > 0:
        names = list(range(count))
    if not isinstance(names, list) or not names or not all(isinstance(name, str | int | float) for name in names):
        raise DataError(f"{path}: names is {names!r:.60}; expected the classes in order, e.g. names: [cat, dog]")
    if isinstance(count, int) and count != len(names):
        raise DataError(f"{path}: nc is {count}, but names has {len(names)} classes; correct one of them")
    return _unique([str(name) for name in names], path)


def _classes_beside(root: Path) -> tuple[str, ...]:
    for name in CLASS_FILES:
        if (root / name).is_file():
            lines = [line.strip() for line in _lines(root / name) if line.strip()]
            if not lines:
                raise DataError(f"{root / name} is empty; expected the classes in order, one a line")
            return _unique(lines, root / name)
    raise DataError(
        f"{root} has images and labels but no names of classes; write {root / 'data.yaml'} with train: images, and "
        "names: [the classes in order]"
    )


def _unique(names: list[str], path: Path) -> tuple[str, ...]:
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{path} has several classes called {twice[0]!r}; give each a name of its own")
    return tuple(names)


def _holds_text(folder: Path) -> bool:
    """Whether label files are in a folder or below it."""
    for _, folders, files in os.walk(folder):
        folders.sort()
        if any(name.endswith(".txt") and name != "classes.txt" for name in files):
            return True
    return False


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}; expected text, one entry a line") from error
