"""Folders of images: one sub-folder per class, as torchvision's ImageFolder and ImageNet have them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, VanNotice
from .index import Folder, PathTable, believable, list_classes, now_ns
from .split_folders import folder_names

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".jp2", ".avif")
)


@dataclass(frozen=True)
class ImageList:
    """Images of one split: a path and a label (an index into `classes`) each."""

    paths: Sequence[Path]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


def read_folder(root: str | Path, *, classes: Sequence[str] | None = None, index: Path | None = None) -> ImageList:
    """Every image below `root`, whose sub-folders are the classes; deeper folders belong to their class.

    Classes are sorted; when every name is a number, numerically, as ImageNet-V2 needs. Hidden files and folders are
    ignored; other files that are not images are left out with a VanNotice.
    classes: the folders to use, in label order. index: folder that keeps the list, see data/index.py.
    Raises DataError for a missing folder, no class folders, a class folder without a single image, or one that holds
    folders and no image of its own, which is a level too many.
    """
    root = Path(root)
    names = chosen_folders(root, classes)
    for name in names:
        _check_class(root, name)
    found = list_classes(root, names, lambda name: _files(root, name), index=index)
    labels: list[int] = []
    for label, name in enumerate(names):
        count = sum(len(folder.names) for folder in found[name])
        if not count:
            raise DataError(_no_images(root / name, found[name]))
        labels += [label] * count
    others = [(*folder.others, folder.path) for name in names for folder in found[name] if folder.others[0]]
    if others:
        total, first = sum(count for count, _, _ in others), root / others[0][2] / others[0][1]
        warnings.warn(f"{root}: left out {total} file(s) that are not images, e.g. {first}", VanNotice, stacklevel=2)
    table = PathTable(root, (folder for name in names for folder in found[name]))
    return ImageList(table, tuple(labels), names)


def chosen_folders(root: Path, classes: Sequence[str] | None) -> tuple[str, ...]:
    """The class folders in label order: all of them, or `classes`; says which others there are.

    Raises DataError for a class without a folder.
    """
    there = class_folders(root)
    if classes is None:
        return there
    missing = [name for name in classes if name not in set(there)]
    if missing:
        raise DataError(f"{root} has no folder for {missing[0]!r} of data.classes ({len(missing)} missing in all)")
    unused = sorted(set(there) - set(classes))
    if unused:
        warnings.warn(
            f"{root}: {len(unused)} class folder(s) are not in data.classes and are left out, e.g. {unused[0]}",
            VanNotice,
            stacklevel=3,
        )
    return tuple(classes)


def class_folders(root: str | Path) -> tuple[str, ...]:
    """Names of the class folders of `root` in label order, without listing them; raises DataError for none."""
    root = Path(root)
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise DataError(f"data folder {root} {found}; expected a folder with one sub-folder of images per class")
    names = folder_names(root)
    if not names:
        images = sum(is_image(Path(entry.name)) for entry in os.scandir(root))
        found = f"holds {images} image(s) but no class folders" if images else "is empty"
        raise DataError(f"data folder {root} {found}; expected one sub-folder of images per class")
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(names)


def _check_class(root: Path, name: str) -> None:
    """A class folder has images of its own: one with folders alone is a part, or a level too many (`data/train`)."""
    folder = root / name
    below = folder_names(folder)
    if not below or holds_images(folder):
        return
    shown = ", ".join(below[:3]) + (", …" if len(below) > 3 else "")
    raise DataError(
        f"class folder {folder} holds folders ({shown}) and no image of its own; expected CLASS/IMAGE. If it is the "
        f"training or the validation part, name it train or val; if it is the data set, pass {folder}; else move the "
        "images up"
    )


def holds_images(folder: Path) -> bool:
    """Whether images lie in the folder itself."""
    with os.scandir(folder) as entries:
        return any(is_image(Path(entry.name)) for entry in entries)


def is_image(path: Path) -> bool:
    """Whether the name is that of a visible image file."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def list_class(root: Path, name: str) -> list[Folder]:
    """The folders of a class, its own first, with the names of their images; linked folders are followed once."""
    return _files(root, name)


def _files(root: Path, name: str) -> list[Folder]:
    """The folders of a class with their sorted images; linked folders are followed once."""
    folders: list[Folder] = []
    seen: set[str] = set()
    for here, below, names in os.walk(root / name, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(each for each in below if not each.startswith("."))
        visible = sorted(each for each in names if not each.startswith("."))
        others = [each for each in visible if not is_image(Path(each))]
        first = (len(others), others[0]) if others else (0, "")
        images = tuple(each for each in visible if is_image(Path(each)))
        folders.append(Folder(os.path.relpath(here, root), believable(Path(here), now_ns()), images, first))
    return folders


def _no_images(folder: Path, listed: list[Folder]) -> str:
    others = [each.others for each in listed if each.others[0]]
    found = (
        f"holds no images ({sum(n for n, _ in others)} other file(s), e.g. {others[0][1]})" if others else "is empty"
    )
    return f"class folder {folder} {found}; add images ({', '.join(sorted(IMAGE_SUFFIXES)[:6])}, …) or remove it"
