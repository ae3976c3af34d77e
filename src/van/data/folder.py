"""Folders of images: one sub-folder per class, as torchvision's ImageFolder and ImageNet have them."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, VanNotice

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".jp2", ".avif")
)


@dataclass(frozen=True)
class ImageList:
    """Images of one split: a path and a label (an index into `classes`) each."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


def read_folder(root: str | Path) -> ImageList:
    """Every image below `root`, whose sub-folders are the classes; deeper folders belong to their class.

    Classes are sorted; when every name is a number, numerically, as ImageNet-V2 needs. Hidden files and folders are
    ignored; other files that are not images are left out with a VanNotice.
    Raises DataError for a missing folder, no class folders, or a class folder without a single image.
    """
    root = Path(root)
    classes = class_folders(root)
    paths: list[Path] = []
    labels: list[int] = []
    others: list[Path] = []
    for label, name in enumerate(classes):
        images, rest = _files(root / name)
        if not images:
            raise DataError(_no_images(root / name, rest))
        paths += images
        labels += [label] * len(images)
        others += rest
    if others:
        warnings.warn(
            f"{root}: left out {len(others)} file(s) that are no images, e.g. {others[0]}", VanNotice, stacklevel=2
        )
    return ImageList(tuple(paths), tuple(labels), classes)


def class_folders(root: str | Path) -> tuple[str, ...]:
    """Names of the class folders of `root` in label order, without looking into them; raises DataError for none."""
    root = Path(root)
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise DataError(f"data folder {root} {found}; expected a folder with one sub-folder of images per class")
    names = [entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")]
    if not names:
        images = sum(is_image(Path(entry.name)) for entry in os.scandir(root))
        found = f"holds {images} image(s) but no class folders" if images else "is empty"
        raise DataError(f"data folder {root} {found}; expected one sub-folder of images per class")
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def is_image(path: Path) -> bool:
    """Whether the name is that of a visible image file."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Sorted images and other visible files below `folder`; linked folders are followed once."""
    images: list[Path] = []
    others: list[Path] = []
    seen: set[str] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(here, name)
            (images if is_image(path) else others).append(path)
    return images, others


def _no_images(folder: Path, others: list[Path]) -> str:
    found = f"holds no images ({len(others)} other file(s), e.g. {others[0].name})" if others else "is empty"
    return f"class folder {folder} {found}; add images ({', '.join(sorted(IMAGE_SUFFIXES)[:6])}, …) or remove it"
