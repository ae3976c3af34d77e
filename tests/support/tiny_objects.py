"""Trainings of models that find objects, small enough for tests: slim networks on a few digit scenes of 32 pixels."""

import json

import numpy as np
from PIL import Image

from van.data.object_scenes import THINGS, THINGS_AND_STUFF, SceneObjects, ScenePanoptic
from van.data.scenes import Scenes
from van.images import rle
from van.recipes import get_recipe

BACKBONE = {
    "model.embed_dims": (8, 16, 24, 32), "model.depths": (1, 1, 1, 1), "model.mlp_ratios": (2, 2, 2, 2),
    "model.strides": (4, 1, 2, 2), "model.min_size": 32, "model.max_size": 32,
}  # fmt: skip
# Recipe -> what makes its head slim.
HEADS = {
    "retinanet_digits": {"model.channels": 16, "model.head_convs": 1},
    "dfine_digits": {
        "model.encoder_channels": 16, "model.encoder_feed_forward": 16, "model.hidden_size": 16, "model.heads": 2,
        "model.feed_forward": 16, "model.queries": 8, "model.points": (2, 2, 2), "model.bins": 8,
        "model.quality_hidden": 8,
    },
    "mask_rcnn_digits": {
        "model.channels": 16, "model.proposals": 16, "model.hidden_channels": 16, "model.mask_channels": 8,
        "model.rpn_samples": 32, "model.box_samples": 16,
    },
    "mask2former_digits": {
        "model.hidden_size": 32, "model.mask_size": 8, "model.heads": 2, "model.queries": 5, "model.decoder_layers": 1,
        "model.encoder_feed_forward": 16, "model.feed_forward": 16, "model.train_points": 16,
    },
}  # fmt: skip


def slim_objects(name, data, out, **options):
    """A digits recipe on a folder of `make_objects`, or on "scenes"."""
    defaults = {
        **BACKBONE,
        **HEADS[name],
        "data.path": str(data),
        "augment.crop": (32, 32),
        "schedule.warmup_steps": 1,
        "trainer.epochs": 2,
        "trainer.batch_size": 2,
        "trainer.workers": 0,
        "trainer.threads": 1,
        "trainer.progress": "none",
        "trainer.out": str(out),
    }
    if str(data) == "scenes":
        defaults |= {"data.scene_size": 32, "data.val_images": 4}
    return get_recipe(name).with_options(**{**defaults, **options})


def make_objects(root, *, size=32, names=THINGS.names, **counts):
    """Digit scenes in COCO's layout, instances and panoptic: `make_objects(root, train=8, val=3)`."""
    (root / "annotations").mkdir(parents=True)
    for split, count in counts.items():
        scenes = Scenes(split, size=size, count=count)
        files = [_saved(root / f"{split}2017" / f"{i + 1:012}.png", scenes.load(i)[0]) for i in range(count)]
        images = [{"id": i + 1, "file_name": file, "height": size, "width": size} for i, file in enumerate(files)]
        _write_instances(root / "annotations" / f"instances_{split}2017.json", images, SceneObjects(scenes), names)
        _write_panoptic(root / "annotations" / f"panoptic_{split}2017", images, ScenePanoptic(scenes))
    return root


def _saved(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path.name


def _write_instances(path, images, data, names):
    annotations = []
    for index, image in enumerate(images):
        objects = data.load(index)[1]
        for k, mask in enumerate(rle.encode(objects.read_masks())):
            left, top, right, bottom = (float(value) for value in objects.boxes[k])
            annotations.append(
                {
                    "id": int(objects.ids[k]),
                    "image_id": image["id"],
                    "category_id": int(objects.labels[k]) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": float(objects.areas[k]),
                    "iscrowd": 0,
                    "segmentation": {"size": list(mask.size), "counts": mask.counts.decode()},
                }
            )
    categories = [{"id": i, "name": name} for i, name in zip(THINGS.ids, names, strict=True)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def _write_panoptic(folder, images, data):
    folder.mkdir(parents=True)
    annotations = []
    for index, image in enumerate(images):
        truth = data.load(index)[1]
        ids = truth.segment_ids
        Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], 2).astype(np.uint8)).save(
            folder / image["file_name"]
        )
        segments = [
            {"id": each.id, "category_id": each.label + 1, "area": each.area, "iscrowd": 0, "bbox": [0, 0, 1, 1]}
            for each in truth.segments
        ]
        annotations.append({"image_id": image["id"], "file_name": image["file_name"], "segments_info": segments})
    categories = [
        {"id": i, "name": name, "isthing": int(thing)}
        for i, name, thing in zip(THINGS_AND_STUFF.ids, THINGS_AND_STUFF.names, THINGS_AND_STUFF.things, strict=True)
    ]
    folder.with_suffix(".json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
