"""Data sets of objects and of panoptic segments under one interface: COCO's files, YOLO's folders, digit scenes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ConfigError, DataError
from ..files import why_no_path
from .auto_split import drawn_part
from .coco_file import ImageRecords, read_coco
from .coco_layout import AnnotationFiles, Kind, annotation_files, image_folder, map_folder
from .coco_objects import CocoObjects
from .coco_panoptic import CocoPanoptic
from .coco_panoptic_file import read_panoptic
from .image_files import ImageFiles
from .object_scenes import SceneObjects, ScenePanoptic
from .objects import ObjectData, PanopticData
from .problems import Problems
from .scenes import Scenes
from .yolo_layout import YoloLayout, find_yolo
from .yolo_objects import YoloObjects, read_yolo

SPLITS = ("train", "val")
# Scenes up to this size are kept once they are made, 45 kB each: making one takes longer than training on it.
MAX_CACHED_SCENE = 96
_OBJECTS = (
    "annotations/instances_train2017.json beside train2017/ (or any annotations/*train*.json), a folder per part with "
    "_annotations.coco.json, one JSON file beside its images, or YOLO's data.yaml with images/ and labels/"
)
_PANOPTIC = "annotations/panoptic_train2017.json with the folder of PNG maps panoptic_train2017/, beside train2017/"


@dataclass(frozen=True, kw_only=True)
class _Options:
    seed: int
    val_fraction: float | None
    strict: bool
    exif: bool


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

    data: "scenes" (embedded digit scenes, `scene_size` pixels a side); a folder with COCO's files, or one of its JSON
    files; a folder with YOLO's labels, or its data.yaml.
    seed, val_fraction: draw the validation part where no file names it; `seed` also makes the scenes.
    strict: False passes over records that cannot be used, which the doctor reports.
    exif: images are turned as their EXIF orientation says; False: as stored.
    need_masks: refuse data in which an object has no mask.
    Raises ConfigError for options that cannot work, DataError for files that are not as they should be.
    """
    _check(data, split)
    if str(data) == "scenes":
        return SceneObjects(_scenes(split, scene_size, seed))
    options = _Options(seed=seed, val_fraction=val_fraction, strict=strict, exif=exif)
    if (files := annotation_files(Path(data), "objects")) is not None:
        return _open_coco(files, split, options, need_masks)
    if (layout := find_yolo(Path(data))) is not None:
        return _open_yolo(layout, split, options, need_masks)
    raise DataError(_nothing(Path(data), "objects", _OBJECTS))


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
    """One split of a panoptic data set: "scenes", or a folder with COCO's files, or one of its JSON files.

    Options and errors as those of `open_objects`.
    """
    _check(data, split)
    if str(data) == "scenes":
        return ScenePanoptic(_scenes(split, scene_size, seed))
    options = _Options(seed=seed, val_fraction=val_fraction, strict=strict, exif=exif)
    files = annotation_files(Path(data), "segments")
    if files is None:
        raise DataError(_nothing(Path(data), "segments", _PANOPTIC))
    path, drawn = files.of(split)
    file = read_panoptic(path, strict=strict)
    if not len(file.images):
        raise DataError(f"{path} has no image with an annotation; expected at least one")
    problems = file.problems.copy()
    images, chosen = _images(path, files.root, split, file.images, drawn, problems, options)
    return CocoPanoptic(file, images, map_folder(path, files.root, file.maps), split, chosen, files.root, problems)


def layout_name(data: str | Path) -> str:
    """In words, the layout in which a data set holds objects; "" for none. Raises DataError for a faulty one."""
    if annotation_files(Path(data), "objects") is not None:
        return "COCO objects"
    return "YOLO labels" if find_yolo(Path(data)) is not None else ""


def described_labels(data: str | Path) -> bool:
    """Whether a YAML file describes a data set as one of YOLO's labels; raises DataError for a faulty one."""
    layout = find_yolo(Path(data)) if not why_no_path(data) else None
    return layout is not None and layout.source.is_file()


def holds_panoptic(data: str | Path) -> bool:
    """Whether a data set in files holds panoptic segments."""
    return annotation_files(Path(data), "segments") is not None


def splits_of(data: str | Path, kind: Kind) -> tuple[str, ...]:
    """The splits of a data set in files, a drawn validation part included."""
    return SPLITS if _parts(data, kind) != {"val"} else ("val",)


def is_drawn(data: str | Path, kind: Kind) -> bool:
    """Whether a data set in files names no validation part, so that one is drawn."""
    return "val" not in _parts(data, kind)


def _parts(data: str | Path, kind: Kind) -> set[str]:
    if (files := annotation_files(Path(data), kind)) is not None:
        return set(files.files)
    layout = find_yolo(Path(data))
    return set() if layout is None else set(layout.places)


def _open_coco(files: AnnotationFiles, split: str, options: _Options, need_masks: bool) -> CocoObjects:
    path, drawn = files.of(split)
    file = read_coco(path, strict=options.strict)
    problems = file.problems.copy()
    images, chosen = _images(path, files.root, split, file.images, drawn, problems, options)
    return CocoObjects(file, images, split, chosen, files.root, problems, need_masks=need_masks)


def _open_yolo(layout: YoloLayout, split: str, options: _Options, need_masks: bool) -> YoloObjects:
    places, drawn = layout.of(split)
    files = read_yolo(layout, places, strict=options.strict)
    chosen = _chosen(len(files.images), split, drawn, layout.source, options)
    return YoloObjects(files, split, chosen, exif=options.exif, need_masks=need_masks)


def _images(
    path: Path,
    root: Path,
    split: str,
    records: ImageRecords,
    drawn: bool,
    problems: Problems,
    options: _Options,
) -> tuple[ImageFiles, np.ndarray]:
    """The image files of an annotation file, and the places of the split's; missing ones are a problem."""
    folder = image_folder(path, root, "train" if drawn else split, records.names)
    images = ImageFiles(folder=folder, names=records.names, sizes=records.sizes, source=path, exif=options.exif)
    chosen = _chosen(len(records), split, drawn, path, options)
    missing = set(images.missing()) & set(chosen.tolist())
    for place in sorted(missing):
        text = f"{len(missing)} of {len(chosen)} images do not exist in {folder}, e.g. {records.names[place]}"
        problems.add("missing_image", f"{path}: {text}; add them, or remove their records")
    return images, chosen[~np.isin(chosen, sorted(missing))]


def _chosen(count: int, split: str, drawn: bool, source: Path, options: _Options) -> np.ndarray:
    if not drawn:
        return np.arange(count)
    return drawn_part(count, split, seed=options.seed, val_fraction=options.val_fraction, source=source)


def _scenes(split: str, size: int, seed: int) -> Scenes:
    return Scenes(split, size=size, seed=seed, cache=size <= MAX_CACHED_SCENE)


def _check(data: str | Path, split: str) -> None:
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    if reason := why_no_path(data):
        raise DataError(f"data {str(data)!r} {reason}; expected a folder, a file or 'scenes'")


def _nothing(data: Path, what: Kind, expected: str) -> str:
    other: Kind = "segments" if what == "objects" else "objects"
    words: dict[Kind, str] = {"objects": "objects", "segments": "panoptic segments"}
    if not data.exists():
        return f"{data} does not exist; expected a data set of {words[what]} in a folder, one of its files, or 'scenes'"
    if annotation_files(data, other) is not None:
        return f"{data} holds annotations of {words[other]}, none of {words[what]}; expected {expected}"
    return f"{data} holds no annotations of {words[what]} in a known layout; expected {expected}"
