"""Classification data under one interface: ImageNet layout, one folder of classes, the embedded digits."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError, DataError, VanNotice
from ..files import why_no_path
from .folder import ImageList, class_folders, holds_images, read_folder
from .index import PathTable
from .labelled_images import ClassificationData, FolderData
from .split import VAL_FRACTION, stratified_split
from .split_folders import folder_names, is_split_name, split_folder

SPLITS = ("train", "val", "all")


def open_classification(
    data: str | Path,
    split: str = "val",
    *,
    seed: int = 0,
    val_fraction: float = VAL_FRACTION,
    classes: Sequence[str] | None = None,
    index: Path | None = None,
    exif: bool = True,
) -> ClassificationData:
    """One split ("train", "val", or "all" of what is not split) of a data set.

    data: "digits" (embedded); a folder with train/ and val/ (or training/, valid/, validation/, test/, in any case);
    or one folder of class folders, which `seed` and `val_fraction` split class by class. "all" is the whole folder or
    the whole digits; of a folder with parts it is val/.
    classes: the class folders to use, in label order; index: folder that keeps the lists of files (data/index.py).
    exif: images are turned as their EXIF orientation says; False: as stored (`images.preprocess.read_image`).
    Raises ConfigError for an unknown split, DataError for folders that do not hold what they should, among them
    train/ and val/ with different classes.
    """
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    if reason := why_no_path(data):
        raise DataError(f"data {str(data)!r} {reason}; expected a folder, or 'digits'")
    if str(data) == "digits":
        from .digits import Digits

        return Digits(split, seed=seed, val_fraction=val_fraction)
    train, val = layout_of(Path(data))
    if val is not None:
        return _own_split(Path(data), train, val, split, classes=classes, index=index, exif=exif)
    assert train is not None
    images = read_folder(train, classes=classes, index=index)
    if split == "all":
        return FolderData(images, exif=exif)
    parts = stratified_split(images.labels, seed=seed, val_fraction=val_fraction)
    return FolderData(_part(images, parts, split, train), exif=exif)


def has_own_val(data: str | Path) -> bool:
    """Whether the data set comes with its own validation part, so that nothing is split off by a seed."""
    return str(data) != "digits" and layout_of(Path(data))[1] is not None


def layout_of(root: Path) -> tuple[Path | None, Path | None]:
    """Folders of the training and validation images; (root, None) for one folder of classes.

    Raises DataError for parts that are there twice, or that hold images without class folders.
    """
    there = folder_names(root)
    train, val = (split_folder(root, split) for split in ("train", "val"))
    _no_loose_images(root, there, train, val)
    both = {part.name for part in (train, val) if part is not None}
    if len(both) == 2 and both == {*there} and any(folder_names(root / name) for name in both):
        return train, val  # one of them may be empty, which its reader reports
    train, val = (part if part is not None and folder_names(part) else None for part in (train, val))
    if train is not None and val is None and there == [train.name]:
        return train, None  # train/ alone: split it
    if val is not None and (train is not None or there == [val.name]):
        return train, val
    return root, None


def _no_loose_images(root: Path, there: Sequence[str], train: Path | None, val: Path | None) -> None:
    """train/ and val/ with images in them, and nothing else, are parts without classes, not classes."""
    named = all(is_split_name(name, "train") or is_split_name(name, "val") for name in there)
    if train is None or val is None or not named:
        return
    loose = [part for part in (train, val) if not folder_names(part) and holds_images(part)]
    if loose:
        raise DataError(
            f"{loose[0]} holds images, but no class folders; expected {loose[0].name}/CLASS/IMAGE (if {train.name} and "
            f"{val.name} are the classes, rename them)"
        )


def _own_split(
    root: Path,
    train: Path | None,
    val: Path,
    split: str,
    *,
    classes: Sequence[str] | None,
    index: Path | None,
    exif: bool,
) -> FolderData:
    if split == "train" and train is None:
        raise DataError(f"{root} has {val.name}/ but no train/; training needs both, or one folder of class folders")
    if train is not None and classes is None:
        _same_classes(train, val)
    images = read_folder(train if split == "train" and train is not None else val, classes=classes, index=index)
    return FolderData(images, exif=exif)


def _same_classes(train: Path, val: Path) -> None:
    """Compares names only: listing millions of training files to evaluate would be a waste."""
    ours, theirs = set(class_folders(train)), set(class_folders(val))
    if ours != theirs:
        missing = [
            f"{where} lacks {_some(names)}" for where, names in ((val, ours - theirs), (train, theirs - ours)) if names
        ]
        raise DataError(
            f"training and validation classes differ: {'; '.join(missing)}; make the class folders the same"
        )


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:10]) + (f", … ({len(names)} in all)" if len(names) > 10 else "")


def _part(images: ImageList, parts: tuple[list[int], list[int]], split: str, root: Path) -> ImageList:
    indices = parts[split == "val"]
    single = set(images.classes) - {images.classes[images.labels[i]] for i in parts[1]}
    if not parts[1]:
        raise DataError(
            f"{root} has one image per class, so none is left to validate with; add images or a val/ folder"
        )
    if single and split == "val":
        warnings.warn(
            f"{root}: not validated, because they have a single image: {_some(single)}", VanNotice, stacklevel=3
        )
    paths = images.paths.subset(indices) if isinstance(images.paths, PathTable) else [images.paths[i] for i in indices]
    return ImageList(paths, tuple(images.labels[i] for i in indices), images.classes)
