"""Segmentation data under one interface: published layouts, folders described by a YAML file, digit scenes.

H, W height and width of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError, DataError
from ..files import why_no_path
from .dataset_yaml import description_of, read_description
from .labelled_pixels import FolderSegmentation, SegmentationData
from .layouts import Layout, Listing, find_layout

SPLITS = ("train", "val")


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
