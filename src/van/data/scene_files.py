"""The digit scenes as files: a folder in COCO's layout, whole or not there at all.

annotations/instances_train2017.json    boxes and masks (run lengths)
annotations/panoptic_train2017.json     segments, with the maps in annotations/panoptic_train2017/
train2017/000000000001.png              and the same for val2017
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import ConfigError
from ..files import why_no_path
from ..images.palettes import Color
from ..images.rle import encode
from .object_scenes import SceneObjects, ScenePanoptic
from .objects import Categories, Objects, Panoptic
from .scenes import Scenes

Records = list[dict[str, object]]
DEFAULT_COUNTS: Mapping[str, int] = {"train": 200, "val": 50}


def write_scenes(
    folder: str | Path,
    *,
    counts: Mapping[str, int] = DEFAULT_COUNTS,
    size: int = 64,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the first scenes of each split; `open_objects` and `open_panoptic` of the folder give the same truth.

    counts: scenes of "train" and of "val"; size: side of a scene in pixels. progress: called with (scenes done, in
    all). Raises ConfigError for a folder that is not empty, or that cannot be written, and for impossible sizes.
    """
    target = Path(folder)
    _check(target, folder)
    scenes = {split: Scenes(split, size=size, seed=seed, count=count, cache=True) for split, count in counts.items()}
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.absolute().parent))
        try:
            done, total = 0, sum(counts.values())
            for each in scenes.values():
                for _ in _write_split(temporary, each):
                    done += 1
                    if progress is not None:
                        progress(done, total)
            temporary.chmod((temporary / "annotations").stat().st_mode)
            temporary.replace(target.absolute())  # takes the place of an empty folder, and of no other
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as reason:
        raise ConfigError(f"cannot write {target}: {reason.strerror or reason}") from reason
    return target


def _check(target: Path, given: str | Path) -> None:
    if reason := why_no_path(given):
        raise ConfigError(f"{str(given)!r} {reason}; expected a folder to write")
    if target.is_dir() and not target.is_symlink():
        if any(target.iterdir()):
            raise ConfigError(f"{target} is not empty; name a new folder")
    elif target.exists() or target.is_symlink():
        raise ConfigError(f"{target} is there already and is no folder; name a new folder")


def _write_split(folder: Path, scenes: Scenes) -> Iterator[int]:
    """Yields after every scene; the JSON files come last."""
    part = f"{scenes.split}2017"
    objects, panoptic = SceneObjects(scenes), ScenePanoptic(scenes)
    images: Records = []
    instances: Records = []
    segments: Records = []
    maps = folder / "annotations" / f"panoptic_{part}"
    for place in (folder / part, maps):
        place.mkdir(parents=True)
    for index in range(len(scenes)):
        image, found = objects.load(index)
        _, truth = panoptic.load(index)
        name = f"{objects.image_id(index):012}.png"
        image.save(folder / part / name)
        _map_image(truth).save(maps / name)
        images.append({"id": found.image_id, "file_name": name, "height": image.height, "width": image.width})
        instances += _instances(found, objects.categories)
        segments.append({"image_id": truth.image_id, "file_name": name, "segments_info": _segments(truth, panoptic)})
        yield index
    for kind, records, categories, colors in (
        ("instances", instances, objects.categories, objects.palette),
        ("panoptic", segments, panoptic.categories, panoptic.palette),
    ):
        content = {
            "info": {"description": f"Digit scenes of {scenes.size} x {scenes.size} pixels, seed {scenes.seed}"},
            "images": images,
            "annotations": records,
            "categories": _categories(categories, colors),
        }
        (folder / "annotations" / f"{kind}_{part}.json").write_text(json.dumps(content), encoding="utf-8")


def _instances(objects: Objects, categories: Categories) -> Records:
    assert objects.read_masks is not None
    masks = encode(objects.read_masks())
    return [
        {
            "id": int(objects.ids[k]),
            "image_id": objects.image_id,
            "category_id": categories.ids[objects.labels[k]],
            "bbox": [left, top, right - left, bottom - top],
            "area": int(objects.areas[k]),
            "iscrowd": int(objects.crowd[k]),
            "segmentation": masks[k].to_json(),
        }
        for k, (left, top, right, bottom) in enumerate(objects.boxes.tolist())
    ]


def _segments(panoptic: Panoptic, data: ScenePanoptic) -> Records:
    found: Records = []
    for each in panoptic.segments:
        rows, columns = np.nonzero(panoptic.segment_ids == each.id)
        left, top = int(columns.min()), int(rows.min())
        found.append(
            {
                "id": each.id,
                "category_id": data.categories.ids[each.label],
                "area": each.area,
                "bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
                "iscrowd": int(each.crowd),
            }
        )
    return found


def _categories(categories: Categories, palette: Sequence[Color]) -> Records:
    rows = zip(categories.ids, categories.names, categories.things, palette, strict=True)
    return [
        {
            "id": id_,
            "name": name,
            "supercategory": "digit" if thing else "ground",
            "isthing": int(thing),
            "color": list(color),
        }
        for id_, name, thing, color in rows
    ]


def _map_image(panoptic: Panoptic) -> Image.Image:
    """Segment ids as colours: R + 256 G + 65536 B."""
    ids = panoptic.segment_ids
    return Image.fromarray(np.stack((ids & 255, ids >> 8 & 255, ids >> 16 & 255), -1).astype(np.uint8))
