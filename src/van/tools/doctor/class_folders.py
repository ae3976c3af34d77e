"""The doctor's view of folders of labelled images: what is read of every image, and the report on it.

K classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ...data.classification import layout_of
from ...data.folder import class_folders, holds_images, list_class
from ...data.split_folders import folder_names
from ...errors import ConfigError, DataError
from ...images.preprocess import read_image
from .class_folder_findings import findings
from .class_folder_statistics import ClassFolderStatistics, ImageRead
from .duplicates import groups
from .report import Report
from .walk import OpenedData, SplitReader

# Folders that are no classes: a segmentation data set without a dataset.yaml.
_OF_LABEL_MAPS = frozenset(("images", "masks", "labels", "annotations", "img", "imgs", "mask", "jpegimages", "gtfine"))


@dataclass(frozen=True, kw_only=True)
class ClassFolderReport(Report[ClassFolderStatistics]):
    """All that was found in a folder of labelled images."""

    @property
    def columns(self) -> tuple[str, ...]:
        return ("label", "class", *(f"{split} {what}" for split in self.splits for what in ("images", "unreadable")))

    def rows(self) -> list[tuple[str, ...]]:
        return [
            (
                str(row["label"]),
                row["name"],
                *(str(row[split][name]) for split in self.splits for name in ("images", "unreadable")),
            )
            for row in self.table()
        ]

    def table(self) -> list[dict[str, Any]]:
        """One row per class: label, name, images and unreadable ones of each split."""
        rows = []
        for label, name in enumerate(self.classes):
            row: dict[str, Any] = {"label": label, "name": name}
            for split, statistics in self.splits.items():
                place = statistics.classes.index(name) if name in statistics.classes else None
                row[split] = {
                    "images": 0 if place is None else statistics.per_class[place],
                    "unreadable": sum(each.label == place for each in statistics.unreadable),
                }
            rows.append(row)
        return rows

    def facts(self) -> dict[str, Any]:
        """Groups of (split, path) of files with the same bytes."""
        return {"duplicates": [[list(each) for each in group] for group in groups(self.splits)]}


class ClassFolders(OpenedData):
    """A folder of class folders, or of splits with class folders.

    splits: those that are there by default. Raises DataError for a folder that holds no class folders, ConfigError for
    a split that is not there.
    """

    def __init__(self, data: str | Path, splits: Sequence[str] | None = None) -> None:
        self.data = str(data)
        folders = _folders(Path(data), splits)
        self.readers: dict[str, ClassFolderReader] = {
            split: ClassFolderReader(folder) for split, folder in folders.items()
        }

    def report(self) -> ClassFolderReport:
        """Images per class and the conclusions."""
        splits = {split: reader.statistics for split, reader in self.readers.items()}
        return ClassFolderReport(
            data=self.data,
            layout="class folders",
            classes=tuple(dict.fromkeys(name for statistics in splits.values() for name in statistics.classes)),
            splits=splits,
            findings=findings(splits),
        )


def is_class_folders(data: str | Path) -> bool:
    """Whether a path is a folder of class folders, or of splits with class folders, with images in it.

    Raises DataError where it is, but its splits are there twice or have no classes.
    """
    root = Path(data)
    if not folder_names(root):
        return False
    names = {folder: folder_names(folder) for folder in _folders(root, None).values()}
    if any(name.casefold() in _OF_LABEL_MAPS for each in names.values() for name in each):
        return False
    classes = [folder / name for folder, each in names.items() for name in each]
    deeper = (folder / name for folder in classes for name in folder_names(folder))  # a level too many: a finding
    return any(holds_images(folder) for folder in (*classes, *deeper))


def _folders(root: Path, splits: Sequence[str] | None) -> dict[str, Path]:
    train, val = layout_of(root)
    there = {"train": train, "val": val} if val is not None else {"all": root if train is None else train}
    folders = {split: folder for split, folder in there.items() if folder is not None}
    for split in splits or ():
        if split not in folders:
            raise ConfigError(f"{root} has no {split!r} part; it has: {', '.join(folders)}")
    return {split: folder for split, folder in folders.items() if splits is None or split in splits}


class ClassFolderReader(SplitReader[ImageRead]):
    """The images of one split, class by class."""

    statistics: ClassFolderStatistics

    def __init__(self, root: Path) -> None:
        classes = class_folders(root) if folder_names(root) else ()
        listed = {name: list_class(root, name) for name in classes}
        self.files = [
            (root / folder.path / name, label)
            for label, folders in enumerate(listed.values())
            for folder in folders
            for name in folder.names
        ]
        others = [folder for folders in listed.values() for folder in folders if folder.others[0]]
        per_class = {name: sum(len(folder.names) for folder in folders) for name, folders in listed.items()}
        self.statistics = ClassFolderStatistics(
            total=len(self.files),
            classes=classes,
            per_class=tuple(per_class.values()),
            others=sum(folder.others[0] for folder in others),
            first_other=str(root / others[0].path / others[0].others[1]) if others else "",
            only_folders=tuple(name for name in classes if per_class[name] and not listed[name][0].names),
        )

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> ImageRead:
        path, label = self.files[index]
        try:
            image: Image.Image = read_image(path)
            with path.open("rb") as content:
                digest = hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).digest()
        except (DataError, OSError) as error:
            return ImageRead(str(path), label, trouble=" ".join(str(error).split()))
        transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
        return ImageRead(str(path), label, digest, image.size, image.mode, transparent)
