"""Where a segmentation data set keeps its images and masks: published layouts, recognised by their folders.

A layout nobody published is described by a small YAML file: see described.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import DataError
from ..images import palettes
from ..images.palettes import Color
from .folder import IMAGE_SUFFIXES
from .masks import MASK_SUFFIXES, MaskRule
from .split_folders import folder_of


@dataclass(frozen=True)
class Listing:
    """Pairs of image and mask of one split, and what has no partner."""

    pairs: tuple[tuple[Path, Path], ...]
    without_mask: tuple[Path, ...] = ()
    without_image: tuple[Path, ...] = ()


Lister = Callable[[], Listing]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A data set on disk: what its masks mean, and how to list a split ("train" or "val")."""

    name: str
    root: Path
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    rule: MaskRule
    splits: Mapping[str, Lister]

    def list(self, split: str) -> Listing:
        """Raises DataError when the split has no folder, or no single image."""
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise DataError(f"{self.root} ({self.name} layout) has no {split!r} part; it has: {known or 'none'}")
        listing = self.splits[split]()
        if not listing.pairs and not listing.without_mask:
            raise DataError(f"the {split!r} part of {self.root} ({self.name} layout) has no images; add some")
        return listing


def find_layout(root: Path) -> Layout:
    """The published layout of a folder; raises DataError when none fits, or more than one."""
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise DataError(f"{root} {found}; expected a folder with a segmentation data set, a dataset.yaml, or 'scenes'")
    fitting = [name for name, (signs, _) in LAYOUTS.items() if _shows(root, signs)]
    if len(fitting) > 1:
        raise DataError(f"{root} fits the layouts {' and '.join(fitting)}; describe it in {root / 'dataset.yaml'}")
    if not fitting:
        looked = "; ".join(f"{name} ({' + '.join(signs)})" for name, (signs, _) in LAYOUTS.items())
        raise DataError(f"{root} is not a known segmentation layout; looked for dataset.yaml; {looked}")
    return LAYOUTS[fitting[0]][1](root)


def match(
    images: Path,
    masks: Path,
    *,
    image_suffix: str = "",
    mask_suffix: str = "",
    names: Iterable[str] | None = None,
) -> Listing:
    """Pairs the files of two folders (and their sub-folders) by relative path without suffix.

    image_suffix, mask_suffix: end of the file names, e.g. "_gtFine_labelIds.png"; "" is any known one.
    names: only these, with or without a suffix; a name without any file counts as missing on both sides.
    Raises DataError for a missing folder, and for two files of one name.
    """
    left, right = _files(images, image_suffix, IMAGE_SUFFIXES), _files(masks, mask_suffix, MASK_SUFFIXES)
    lossy = [] if right else list(_files(masks, mask_suffix, IMAGE_SUFFIXES).values())
    if lossy:
        raise DataError(
            f"{masks} holds {len(lossy)} {lossy[0].suffix} file(s) and no mask; lossy formats change labels at every "
            f"border: save masks as PNG"
        )
    wanted = sorted({*left, *right}) if names is None else [_stem(name) for name in names]
    return Listing(
        tuple((left[name], right[name]) for name in wanted if name in left and name in right),
        tuple(left.get(name, images / name) for name in wanted if name not in right),
        tuple(right.get(name, masks / name) for name in wanted if name not in left),
    )


def read_names(path: Path) -> list[str]:
    """Names of a split, one per line; blank lines are skipped. Raises DataError when there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}; expected the names of a split, one per line") from error
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _files(folder: Path, suffix: str, known: frozenset[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(
            f"{folder} does not exist; expected the folder of {'images' if known is IMAGE_SUFFIXES else 'masks'}"
        )
    found: dict[str, Path] = {}
    for here, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            path = Path(here, file)
            if file.startswith(".") or path.suffix.lower() not in known:
                continue
            if not file.casefold().endswith(suffix.casefold()):
                continue
            relative = path.relative_to(folder).as_posix()
            key = relative[: -len(suffix)] if suffix else _stem(relative)
            if key in found:
                raise DataError(f"{found[key]} and {path} have the same name; keep one of them")
            found[key] = path
    return found


def _stem(name: str) -> str:
    suffix = Path(name).suffix
    return name[: -len(suffix)] if suffix.lower() in IMAGE_SUFFIXES | MASK_SUFFIXES else name


def _shows(root: Path, signs: tuple[str, ...]) -> bool:
    """Whether one alternative of every sign is a folder: `images/(train|val)`."""
    return all(any(folder_of(root, path) is not None for path in _alternatives(sign)) for sign in signs)


def _folder(root: Path, path: str) -> Path:
    """As it is spelled on disk; as it is asked for where it is missing."""
    return folder_of(root, path) or root / path


def _alternatives(sign: str) -> list[str]:
    if "(" not in sign:
        return [sign]
    before, _, rest = sign.partition("(")
    middle, _, after = rest.partition(")")
    return [path for choice in middle.split("|") for path in _alternatives(before + choice + after)]


def _two_folders(root: Path, images: str, masks: str, parts: Mapping[str, str], **suffixes: str) -> dict[str, Lister]:
    """Splits of `images/<part>` and `masks/<part>`, for the parts that exist on either side."""
    splits: dict[str, Lister] = {}
    for split, part in parts.items():
        left, right = folder_of(root, f"{images}/{part}"), folder_of(root, f"{masks}/{part}")
        if left is not None or right is not None:
            splits[split] = partial(match, left or root / images / part, right or root / masks / part, **suffixes)
    return splits


def _ade20k(root: Path) -> Layout:
    """Source: scene parsing benchmark (ADEChallengeData2016); 0 is "other", left out."""
    classes, parts = palettes.ADE20K_CLASSES, {"train": "training", "val": "validation"}
    return Layout(
        name="ADE20K",
        root=root,
        classes=classes,
        palette=palettes.ADE20K_PALETTE,
        rule=MaskRule(num_classes=len(classes), reduce_zero_label=True),
        splits=_two_folders(root, "images", "annotations", parts),
    )


def _cityscapes(root: Path) -> Layout:
    """Train-id masks where the data set's preparation script has made them, else label ids through its table."""
    classes = palettes.CITYSCAPES_CLASSES
    prepared = any(_folder(root, "gtFine").glob("*/*/*_gtFine_labelTrainIds.png"))
    values = None if prepared else palettes.CITYSCAPES_TRAIN_IDS | dict.fromkeys(palettes.CITYSCAPES_VOID_IDS, 255)
    mask_suffix = "_gtFine_labelTrainIds.png" if prepared else "_gtFine_labelIds.png"
    suffixes = {"image_suffix": "_leftImg8bit.png", "mask_suffix": mask_suffix}
    return Layout(
        name="Cityscapes",
        root=root,
        classes=classes,
        palette=palettes.CITYSCAPES_PALETTE,
        rule=MaskRule(num_classes=len(classes), values=values),
        splits=_two_folders(root, "leftImg8bit", "gtFine", {"train": "train", "val": "val"}, **suffixes),
    )


def _voc(root: Path) -> Layout:
    """Source: PASCAL VOC 2012 development kit: palette images, 255 on the border of objects."""
    lists = _folder(root, "ImageSets/Segmentation")
    images, masks = _folder(root, "JPEGImages"), _folder(root, "SegmentationClass")

    def listed(split: str) -> Listing:
        return match(images, masks, names=read_names(lists / f"{split}.txt"))

    return Layout(
        name="VOC",
        root=root,
        classes=palettes.VOC_CLASSES,
        palette=palettes.VOC_PALETTE,
        rule=MaskRule(num_classes=21, colors=palettes.VOC_PALETTE, ignore_colors=(palettes.VOC_BORDER,)),
        splits={split: partial(listed, split) for split in ("train", "val") if (lists / f"{split}.txt").exists()},
    )


def _coco_stuff(root: Path) -> Layout:
    """164k (2017) or 10k (2014): train-id masks, which 10k counts from 1, or 164k's own maps through its table."""
    classes = palettes.COCO_STUFF_CLASSES
    year = "2017" if _shows(root, ("images/(train2017|val2017)",)) else "2014"
    masks = "stuffthingmaps" if folder_of(root, "stuffthingmaps") is not None else "annotations"
    prepared = any(_folder(root, masks).glob("*/*_labelTrainIds.png"))
    if prepared or year == "2014":
        rule, suffix = MaskRule(num_classes=len(classes), reduce_zero_label=year == "2014"), "_labelTrainIds.png"
    else:
        rule, suffix = MaskRule(num_classes=len(classes), values=palettes.COCO_STUFF_TRAIN_IDS), ".png"
    parts = {"train": f"train{year}", "val": f"{'val' if year == '2017' else 'test'}{year}"}
    return Layout(
        name="COCO-Stuff",
        root=root,
        classes=classes,
        palette=palettes.COCO_STUFF_PALETTE,
        rule=rule,
        splits=_two_folders(root, "images", masks, parts, mask_suffix=suffix),
    )


# name -> (folders that must all be there, reader)
LAYOUTS: dict[str, tuple[tuple[str, ...], Callable[[Path], Layout]]] = {
    "ADE20K": (("images/(training|validation)", "annotations/(training|validation)"), _ade20k),
    "Cityscapes": (("leftImg8bit/(train|val)", "gtFine/(train|val)"), _cityscapes),
    "VOC": (("JPEGImages", "SegmentationClass"), _voc),
    "COCO-Stuff": (
        (
            "images/(train2017|val2017|train2014|test2014)",
            "(annotations|stuffthingmaps)/(train2017|val2017|train2014|test2014)",
        ),
        _coco_stuff,
    ),
}
