"""Data sets of objects and of panoptic segments under one interface: the digit scenes."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError, DataError
from ..files import why_no_path
from .objects import ObjectData, PanopticData
from .scenes import Scenes

SPLITS = ("train", "val")
# Scenes up to this size are kept once they are made, 45 kB each: making one takes longer than training on it.
MAX_CACHED_SCENE = 96


def open_objects(
    data: str | Path,
    split: str = "val",
    *,
    seed: int = 0,
    val_fraction: float | None = None,
    scene_size: int = 64,
    strict: bool = True,
    exif: bool = True,
    need_masks: bool = False,
) -> ObjectData:
    """One split ("train" or "val") of a data set of objects; its layout is read off its files.

    data: "scenes" (embedded digit scenes, `scene_size` pixels a side).
    seed, val_fraction: draw the validation part where no file names it; `seed` also makes the scenes.
    strict: False lets records pass that cannot be used, which the doctor reports.
    exif: images are turned as their EXIF orientation says; False: as stored.
    need_masks: refuse data in which an object has no mask.
    Raises ConfigError for options that cannot work, DataError for files that are not as they should be.
    """
    _check(data, split)
    if str(data) == "scenes":
        from .object_scenes import SceneObjects

        return SceneObjects(_scenes(split, scene_size, seed))
    raise DataError(f"{data} holds no objects in a known layout")


def open_panoptic(
    data: str | Path,
    split: str = "val",
    *,
    seed: int = 0,
    val_fraction: float | None = None,
    scene_size: int = 64,
    strict: bool = True,
    exif: bool = True,
) -> PanopticData:
    """One split of a panoptic data set; options and errors as those of `open_objects`."""
    _check(data, split)
    if str(data) == "scenes":
        from .object_scenes import ScenePanoptic

        return ScenePanoptic(_scenes(split, scene_size, seed))
    raise DataError(f"{data} holds no panoptic segments in a known layout")


def _scenes(split: str, size: int, seed: int) -> Scenes:
    return Scenes(split, size=size, seed=seed, cache=size <= MAX_CACHED_SCENE)


def _check(data: str | Path, split: str) -> None:
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    if reason := why_no_path(data):
        raise DataError(f"data {str(data)!r} {reason}; expected a folder, a file or 'scenes'")
