"""Small COCO and YOLO data sets on disk, whole or with one fault."""

import copy
import json

import numpy as np
from PIL import Image

SIZE = (30, 40)  # height, width
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 90, "name": "dog"}, {"id": 7, "name": "owl"}]
NAMES = ("cat", "owl", "dog")  # by category id


def image(path, size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def annotation(id_, image_id=1, category=3, box=(4, 5, 10, 12), **more):
    left, top, width, height = box
    right, bottom = left + width, top + height
    polygon = [left, top, right, top, right, bottom, left, bottom]
    return {
        "id": id_,
        "image_id": image_id,
        "category_id": category,
        "bbox": list(box),
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [polygon],
    } | more


def content(annotations=None, images=2):
    """Two images, 1 with two objects and 2 with none."""
    if annotations is None:
        annotations = [annotation(0), annotation(12, category=90, box=(20.25, 3.5, 8, 6.75))]
    return {
        "info": {"description": "made for tests"},
        "images": [
            {"id": id_, "file_name": f"{id_}.png", "height": SIZE[0], "width": SIZE[1]} for id_ in range(1, images + 1)
        ],
        "annotations": annotations,
        "categories": copy.deepcopy(CATEGORIES),
    }


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


def coco(root, values=None, *, file="annotations/instances_val2017.json", folder="val2017", seed=0):
    """A part of a COCO data set."""
    values = content() if values is None else values
    write(root / file, values)
    for each in values["images"] if isinstance(values, dict) else ():
        image(root / folder / each["file_name"], seed=seed + each["id"])
    return root


def panoptic_content():
    """Things cat and owl, stuff sky (id 5), on image 1; ids of segments need all three channels."""
    return {
        "images": [{"id": 1, "file_name": "1.png", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": [
            {
                "image_id": 1,
                "file_name": "1_map.png",
                "segments_info": [
                    {"id": 300, "category_id": 5, "area": 600, "iscrowd": 0},
                    {"id": 70_001, "category_id": 3, "area": 100, "iscrowd": 0},
                    {"id": 2, "category_id": 7, "area": 50, "iscrowd": 1},
                ],
            }
        ],
        "categories": [
            {"id": 3, "name": "cat", "isthing": 1},
            {"id": 5, "name": "sky", "isthing": 0},
            {"id": 7, "name": "owl", "isthing": 1},
        ],
    }


def panoptic_map():
    """(H, W): 600 pixels of sky, 100 of a cat, 50 of a crowd of owls, 450 void."""
    ids = np.zeros(SIZE, np.int32)
    ids[:15] = 300
    ids[15:25, :10] = 70_001
    ids[20:25, 20:30] = 2
    return ids


def save_map(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = np.stack((ids % 256, ids // 256 % 256, ids // 65536), -1).astype(np.uint8)
    Image.fromarray(channels).save(path)


def panoptic(root, values=None, ids=None):
    values = panoptic_content() if values is None else values
    write(root / "annotations/panoptic_val2017.json", values)
    save_map(root / "annotations/panoptic_val2017/1_map.png", panoptic_map() if ids is None else ids)
    image(root / "val2017/1.png")
    return root


def yolo(root, labels, *, parts=("train", "val"), names="[cat, dog]", description=None):
    """labels: text of the label file of image `a` of every part; image `b` has none."""
    for number, part in enumerate(parts):
        image(root / "images" / part / "a.png", seed=number)
        image(root / "images" / part / "b.png", seed=10 + number)
        write(root / "labels" / part / "a.txt", labels)
    lines = [f"{part}: images/{part}" for part in parts]
    write(root / "data.yaml", "\n".join(lines) + f"\nnames: {names}\n" if description is None else description)
    return root
