"""Reading a whole folder of labelled images without stopping at the first broken file.

K classes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...data.classification import layout_of
from ...data.folder import class_folders, holds_images, list_class
from ...data.split_folders import folder_names
from ...errors import ConfigError, DataError
from ...images.preprocess import read_image
from ...inference.prefetch import default_workers, in_order
from .findings import Finding
from .image_findings import image_findings

# Folders that are no classes: a segmentation data set without a dataset.yaml.
_OF_LABEL_MAPS = frozenset(("images", "masks", "labels", "annotations", "img", "imgs", "mask", "jpegimages", "gtfine"))


@dataclass(frozen=True, slots=True)
class LookedAt:
    """One image file: class, digest of its bytes, (width, height), PIL mode; what is wrong when it is unreadable."""

    path: str
    label: int
    digest: bytes = b""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    transparent: bool = False
    trouble: str = ""


@dataclass
class ImagePart:
    """What one split holds.

    classes: its class folders; total: image files of each class, (K,) in that order; looked: those that were looked at.
    others: files that are no images, and the first of them; only_folders: classes without an image of their own.
    """

    classes: tuple[str, ...]
    total: list[int]
    looked: list[LookedAt] = field(default_factory=list)
    others: int = 0
    first_other: str = ""
    only_folders: list[str] = field(default_factory=list)

    @property
    def readable(self) -> list[LookedAt]:
        """Images that could be decoded."""
        return [each for each in self.looked if not each.trouble]

    @property
    def unreadable(self) -> list[LookedAt]:
        """Files that could not."""
        return [each for each in self.looked if each.trouble]

    def modes(self) -> Counter[str]:
        """Images by PIL mode."""
        return Counter(each.mode for each in self.readable)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; every unreadable file is named."""
        sizes = [each.size for each in self.readable] or [(0, 0)]
        return {
            "total": sum(self.total),
            "seen": len(self.looked),
            "images": dict(zip(self.classes, self.total, strict=True)),
            "unreadable": [{"path": each.path, "reason": each.trouble} for each in self.unreadable],
            "not_images": self.others,
            "modes": dict(self.modes()),
            "sizes": {"count": len(set(sizes)), "narrowest": list(min(sizes)), "widest": list(max(sizes))},
        }


@dataclass(frozen=True)
class ImageReport:
    """All that was found: parts by split ("train", "val", or "all" of what is not split), findings, the worst first.

    duplicates: groups of (split, path) of files with the same bytes.
    """

    data: str
    classes: tuple[str, ...]
    parts: dict[str, ImagePart]
    duplicates: tuple[tuple[tuple[str, str], ...], ...]
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing was found that breaks training or evaluation."""
        return not any(finding.level == "error" for finding in self.findings)

    def table(self) -> list[dict[str, Any]]:
        """One row per class: name, images and unreadable ones of each split."""
        rows = []
        for label, name in enumerate(self.classes):
            row: dict[str, Any] = {"label": label, "name": name}
            for split, part in self.parts.items():
                place = part.classes.index(name) if name in part.classes else None
                row[split] = {
                    "images": 0 if place is None else part.total[place],
                    "unreadable": sum(each.label == place for each in part.unreadable),
                }
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "data": self.data,
            "layout": "class folders",
            "num_classes": len(self.classes),
            "healthy": self.healthy,
            "findings": [vars(finding) for finding in self.findings],
            "splits": {split: part.to_dict() for split, part in self.parts.items()},
            "classes": self.table(),
            "duplicates": [[list(each) for each in group] for group in self.duplicates],
        }


def examine_images(
    data: str | Path,
    splits: Sequence[str] | None = None,
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageReport:
    """Look at every image of a folder of class folders, or at `limit` of each split, spread over it.

    splits: "train" and "val", those that are there by default. progress: called with (images done, images in all).
    Raises DataError for a folder that holds no class folders, ConfigError for a split that is not there.
    """
    folders = _folders(Path(data), splits)
    parts = {split: _listed(folder) for split, folder in folders.items()}
    every = {split: list(_spread(_files(folders[split], parts[split]), limit)) for split in folders}
    done, total = 0, sum(map(len, every.values()))
    workers = default_workers()
    for split, files in every.items():
        for _, looked in in_order(_look, files, workers=workers, ahead=8 * workers):
            if isinstance(looked, Exception):
                raise looked
            parts[split].looked.append(looked)
            done += 1
            if progress is not None:
                progress(done, total)
    classes = tuple(dict.fromkeys(name for part in parts.values() for name in part.classes))
    duplicates = _duplicates(parts)
    return ImageReport(str(data), classes, parts, duplicates, image_findings(parts, duplicates))


def is_image_folder(data: str | Path) -> bool:
    """Whether a path is a folder of class folders, or of parts with class folders, with images in it.

    Raises DataError where it is, but its parts are there twice or have no classes.
    """
    root = Path(data)
    if not folder_names(root):
        return False
    names = {folder: folder_names(folder) for folder in _folders(root, None).values()}
    if any(name.casefold() in _OF_LABEL_MAPS for each in names.values() for name in each):
        return False
    classes = [folder / name for folder, each in names.items() for name in each]
    deeper = (folder / name for folder in classes for name in folder_names(folder))  # a level too many, which is said
    return any(holds_images(folder) for folder in (*classes, *deeper))


def _folders(root: Path, splits: Sequence[str] | None) -> dict[str, Path]:
    train, val = layout_of(root)
    there = {"train": train, "val": val} if val is not None else {"all": root if train is None else train}
    folders = {split: folder for split, folder in there.items() if folder is not None}
    for split in splits or ():
        if split not in folders:
            raise ConfigError(f"{root} has no {split!r} part; it has: {', '.join(folders)}")
    return {split: folder for split, folder in folders.items() if splits is None or split in splits}


def _listed(root: Path) -> ImagePart:
    part = ImagePart(class_folders(root) if folder_names(root) else (), [])
    for name in part.classes:
        folders = list_class(root, name)
        part.total.append(sum(len(folder.names) for folder in folders))
        if not folders[0].names and part.total[-1]:
            part.only_folders.append(name)
        for folder in folders:
            part.others += folder.others[0]
            if folder.others[0] and not part.first_other:
                part.first_other = str(root / folder.path / folder.others[1])
    return part


def _files(root: Path, part: ImagePart) -> list[tuple[Path, int]]:
    return [
        (root / folder.path / name, label)
        for label, each in enumerate(part.classes)
        for folder in list_class(root, each)
        for name in folder.names
    ]


def _spread(files: list[tuple[Path, int]], limit: int | None) -> Iterator[tuple[Path, int]]:
    if limit is None or limit >= len(files):
        yield from files
        return
    for place in sorted({int(position) for position in np.linspace(0, len(files) - 1, limit).round()}):
        yield files[place]


def _look(file: tuple[Path, int]) -> LookedAt:
    path, label = file
    try:
        image: Image.Image = read_image(path)
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).digest()
    except (DataError, OSError) as error:
        return LookedAt(str(path), label, trouble=" ".join(str(error).split()))
    transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    return LookedAt(str(path), label, digest, image.size, image.mode, transparent)


def _duplicates(parts: dict[str, ImagePart]) -> tuple[tuple[tuple[str, str], ...], ...]:
    groups: dict[bytes, list[tuple[str, str]]] = {}
    for split, part in parts.items():
        for each in part.readable:
            groups.setdefault(each.digest, []).append((split, each.path))
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)
