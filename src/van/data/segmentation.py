"""Segmentation data under one interface: published layouts, folders described by a YAML file, digit scenes.

H, W height and width of an image.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import ConfigError, DataError
from ..files import why_no_path
from ..images.palettes import Color
from ..images.preprocess import image_size, read_image, to_color, upright
from .dataset_yaml import description_of, read_description
from .fingerprint import Fingerprint, fingerprint
from .layouts import Layout, Listing, find_layout
from .masks import MaskRule, StoredMask, check_mask, read_mask

SPLITS = ("train", "val")


class SegmentationData(ABC):
    """Images with a label for every pixel: `len(data)`, `data.load(i)`, `data.name(i)`.

    classes: names in label order; palette: a colour each.
    ignore_index: what pixels without a label hold in a label map; above every class.
    split: "train" or "val".
    """

    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    ignore_index: int = 255
    split: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """The RGB image and its label map (H, W), uint8 or uint16; raises DataError naming the file that is wrong."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call the image in tables and errors: its path, or `scenes/val/12`."""

    def key(self, index: int) -> str:
        """The image's name wherever the data set lies, to notice that the data set has changed."""
        return self.name(index)

    def fingerprint(self) -> Fingerprint:
        """Number and names of the images."""
        return fingerprint(("images", self.key(index)) for index in range(len(self)))


class FolderSegmentation(SegmentationData):
    """Pairs of image and mask files of one split.

    layout: where they came from; listing: the pairs, and files without a partner. exif: see `image`.
    """

    def __init__(self, layout: Layout, listing: Listing, split: str, *, exif: bool = True) -> None:
        self.layout, self.listing, self.split, self.exif = layout, listing, split, exif
        self.classes, self.palette, self.ignore_index = layout.classes, layout.palette, layout.rule.ignore_index

    @property
    def rule(self) -> MaskRule:
        """What the stored values mean."""
        return self.layout.rule

    def __len__(self) -> int:
        return len(self.listing.pairs)

    def load(self, index: int) -> tuple[Image.Image, np.ndarray]:
        image, mask = self.image(index), self.stored(index)
        check_mask(self.listing.pairs[index][1], mask, image.size, self.rule)
        return image, mask.labels.astype(self.rule.dtype)

    def image(self, index: int) -> Image.Image:
        """The RGB image; raises DataError for an unreadable file.

        Turned as its EXIF orientation says, unless `exif` is False or its mask fits only the pixels as stored.
        """
        stored = read_image(self.listing.pairs[index][0], exif=False)
        turned = upright(stored) if self.exif else stored
        as_stored = turned.size != stored.size and image_size(self.listing.pairs[index][1]) == stored.size
        return to_color(stored if as_stored else turned, "RGB")

    def stored(self, index: int) -> StoredMask:
        """The mask as its file has it, unchecked; raises DataError for an unreadable file or unreadable colours."""
        return read_mask(self.listing.pairs[index][1], self.rule)

    def name(self, index: int) -> str:
        return str(self.listing.pairs[index][0])

    def key(self, index: int) -> str:
        return os.path.relpath(self.listing.pairs[index][0], self.layout.root)


def open_segmentation(
    data: str | Path,
    split: str = "val",
    *,
    seed: int = 0,
    val_fraction: float | None = None,
    scene_size: int = 64,
    strict: bool = True,
    exif: bool = True,
) -> SegmentationData:
    """One split ("train" or "val") of a segmentation data set; its layout is read off its folders.

    data: "scenes" (embedded digit scenes, `scene_size` pixels a side); a folder with a dataset.yaml, or that file; or
    a folder in the layout of ADE20K, Cityscapes, VOC or COCO-Stuff.
    seed, val_fraction: draw the validation part where neither folders nor lists name it; `seed` also makes the scenes.
    strict: False lets images without masks and masks without images pass, which the doctor reports.
    exif: images are turned as their EXIF orientation says; False: as stored.
    Raises ConfigError for options and descriptions that cannot work, DataError for folders that are not as they should.
    """
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    if reason := why_no_path(data):
        raise DataError(f"data {str(data)!r} {reason}; expected a folder, a dataset.yaml or 'scenes'")
    if str(data) == "scenes":
        from .scenes import Scenes

        return Scenes(split, size=scene_size, seed=seed)
    layout = _layout(Path(data), seed, val_fraction)
    listing = layout.list(split)
    if strict and (listing.without_mask or listing.without_image):
        raise DataError(missing_pairs(listing, layout))
    if not listing.pairs:
        raise DataError(f"the {split!r} part of {layout.root} has images but no masks for them; {_pairing(layout)}")
    return FolderSegmentation(layout, listing, split, exif=exif)


def is_label_maps(data: str | Path) -> bool:
    """Whether a path is a segmentation data set by its layout, its dataset.yaml, or its name."""
    if str(data) == "scenes" or description_of(Path(data)) is not None:
        return True
    try:
        find_layout(Path(data))
    except DataError:
        return False
    return True


def splits_of(data: str | Path) -> tuple[str, ...]:
    """The splits that a data set has; raises as `open_segmentation` does."""
    return SPLITS if str(data) == "scenes" else tuple(_layout(Path(data), 0, None).splits)


def missing_pairs(listing: Listing, layout: Layout) -> str:
    """How many images and masks have no partner, and the first of them."""
    parts = []
    if listing.without_mask:
        parts.append(f"{len(listing.without_mask)} image(s) have no mask ({_some(listing.without_mask)})")
    if listing.without_image:
        parts.append(f"{len(listing.without_image)} mask(s) have no image ({_some(listing.without_image)})")
    return f"{layout.root} ({layout.name}): {' and '.join(parts)}; add what is missing, or remove the rest"


def _layout(data: Path, seed: int, val_fraction: float | None) -> Layout:
    description = description_of(data)
    if description is not None:
        return read_description(description, seed=seed, val_fraction=val_fraction)
    return find_layout(data)


def _pairing(layout: Layout) -> str:
    return f"{layout.name} pairs files by their path without suffix"


def _some(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:3]) + (", …" if len(paths) > 3 else "")
