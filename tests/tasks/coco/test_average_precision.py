"""Average precision: as pycocotools computes it from the same files, on cases worked out on paper, and in parts."""

import json
import math
import pickle
from functools import reduce
from operator import add

import numpy as np
import pytest
from made_objects import drawn_images, made_found, made_objects

from van.data.objects import Categories
from van.errors import DataError
from van.images import rle
from van.tasks.coco.metric import ObjectMetric, width_and_height
from van.tasks.coco.object_evaluation import BOXES, MASKS, result_lines

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
CLASSES = ("cat", "dog", "bird", "never there")
CATEGORIES = Categories(ids=(3, 7, 11, 90), names=CLASSES, things=(True,) * 4)


def counted(images, **options):
    metric = ObjectMetric(CLASSES, **options)
    for i, (truth, found) in enumerate(images):
        metric.update([found], [truth], [f"image {i}"])
    return metric


def coco_files(images, folder):
    """The annotations, ids from 1, and the result files that an evaluation writes."""
    annotations = []
    for truth, _ in images:
        masks = rle.encode(truth.read_masks())
        for i, box in enumerate(width_and_height(truth.boxes).tolist()):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": truth.image_id,
                    "category_id": CATEGORIES.ids[truth.labels[i]],
                    "bbox": box,
                    "area": float(truth.areas[i]),
                    "iscrowd": int(truth.crowd[i]),
                    "segmentation": masks[i].to_json(),
                }
            )
    content = {
        "images": [{"id": t.image_id, "height": t.size[0], "width": t.size[1]} for t, _ in images],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in zip(CATEGORIES.ids, CLASSES, strict=True)],
    }
    (folder / "truth.json").write_text(json.dumps(content))
    lines = [result_lines(found, truth.image_id, CATEGORIES, tuple(range(4))) for truth, found in images]
    for name in (BOXES, MASKS):
        (folder / name).write_text(json.dumps([record for each in lines for record in each[name]]))
    return folder


def pycocotools_scores(folder, name, kind):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(folder / "truth.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(folder / name)), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    own = evaluation.eval["precision"][:, :, :, 0, 2]
    classes = [own[:, :, k][own[:, :, k] > -1] for k in range(own.shape[2])]
    return dict(zip(NAMES, evaluation.stats, strict=True)), [each.mean() if each.size else -1.0 for each in classes]


def same(ours: float, theirs: float) -> bool:
    return math.isnan(ours) if theirs == -1 else abs(ours - theirs) < 1e-6


@pytest.fixture(scope="module")
def images():
    return drawn_images(24, len(CLASSES), seed=3, crowded=4)


def test_scores_are_those_of_pycocotools_on_the_written_files(images, tmp_path):
    assert any(truth.crowd.any() for truth, _ in images)
    assert any(len(found) > 100 for _, found in images)
    assert any(not len(truth) for truth, _ in images)
    assert any(not len(found) and len(truth) for truth, found in images)
    folder, metric = coco_files(images, tmp_path), counted(images, masks=True)
    scores, rows = metric.compute(), metric.table()
    for prefix, name, kind in (("", BOXES, "bbox"), ("mask/", MASKS, "segm")):
        theirs, per_class = pycocotools_scores(folder, name, kind)
        assert [key for key in NAMES if not same(scores[prefix + key], theirs[key])] == []
        assert all(same(row[f"{prefix}AP"], value) for row, value in zip(rows, per_class, strict=True))
    assert min(scores["AP"], scores["APs"], scores["APm"], scores["APl"]) > 0.05


def test_two_objects_one_found():
    """Precision 1 up to recall 1/2: 51 of the 101 recalls, then 0."""
    truth = made_objects(1, [[0, 0, 40, 40], [80, 40, 120, 80]], [0, 0])
    scores = counted([(truth, made_found([[0, 0, 40, 40]], [0], [0.9]))]).compute()
    assert scores["AP"] == scores["AP50"] == scores["APm"] == pytest.approx(51 / 101)
    assert scores["AR100"] == 0.5
    assert math.isnan(scores["APs"])


def test_a_wrong_box_above_the_right_one_halves_precision():
    truth = made_objects(1, [[0, 0, 40, 40]], [0])
    scores = counted([(truth, made_found([[0, 0, 40, 40], [90, 50, 130, 90]], [0, 0], [0.5, 0.9]))]).compute()
    assert scores["AP"] == pytest.approx(0.5)


def test_what_lies_in_a_crowd_is_neither_right_nor_wrong():
    truth = made_objects(1, [[0, 0, 40, 40], [60, 0, 160, 100]], [0, 0], crowd=[False, True])
    found = made_found([[0, 0, 40, 40], [70, 10, 90, 30], [100, 20, 120, 60]], [0, 0, 0], [0.5, 0.9, 0.8])
    scores = counted([(truth, found)]).compute()
    assert scores["AP"] == pytest.approx(1)


def test_an_annotation_with_id_0_is_matched_like_any_other():
    truth = made_objects(0, [[0, 0, 40, 40]], [0], ids=[0])
    assert counted([(truth, made_found([[0, 0, 40, 40]], [0], [0.9]))]).compute()["AP"] == pytest.approx(1)


def test_parts_in_any_order_make_the_scores_of_the_whole(images):
    whole = counted(images, masks=True).compute()
    parts = [counted(images[start::3], masks=True) for start in (2, 0, 1)]
    total = reduce(add, [pickle.loads(pickle.dumps(part)) for part in parts])
    assert np.array_equal(list(total.compute().values()), list(whole.values()), equal_nan=True)


def test_classes_of_the_model_are_moved_to_those_of_the_data():
    truth = made_objects(1, [[0, 0, 40, 40]], [2])
    found = made_found([[0, 0, 40, 40]], [0], [0.9])
    assert counted([(truth, found)], order=(2, 0, 1, 3)).compute()["AP"] == pytest.approx(1)


def test_nothing_to_find_is_no_score():
    metric = counted([(made_objects(1, [], []), made_found([[0, 0, 4, 4]], [0], [0.9]))])
    assert math.isnan(metric.compute()["AP"])
    assert [row["objects"] for row in metric.table()] == [0] * 4
    assert [row["detections"] for row in metric.table()] == [1, 0, 0, 0]


@pytest.mark.parametrize("masks", [False, True])
def test_nothing_found_is_zero(masks):
    metric = counted([(made_objects(1, [[0, 0, 40, 40]], [0]), made_found([], [], []))], masks=masks)
    assert metric.compute()["mask/AP" if masks else "AP"] == 0


def test_images_with_names_for_ids():
    images = [(made_objects(name, [[0, 0, 40, 40]], [0]), made_found([[0, 0, 40, 40]], [0], [0.9])) for name in "ba"]
    assert counted(images).compute()["AP"] == pytest.approx(1)


def test_an_image_that_is_counted_twice_is_refused():
    image = made_objects(5, [[0, 0, 40, 40]], [0]), made_found([], [], [])
    with pytest.raises(DataError, match="image 5 was counted twice"):
        counted([image, image]).compute()


def test_masks_of_data_with_boxes_only_are_refused():
    from dataclasses import replace

    truth = replace(made_objects(5, [[0, 0, 40, 40]], [0]), read_masks=None)
    with pytest.raises(DataError, match="image 0: there are boxes only"):
        counted([(truth, made_found([], [], []))], masks=True)


def test_annotations_of_another_size_are_refused():
    with pytest.raises(DataError, match="image 0: the image has 192 x 256 pixels"):
        counted([(made_objects(5, [], [], size=(10, 10)), made_found([], [], []))])


def test_annotations_are_not_rounded():
    """The overlap is 0.4999996, which numbers of 32 bits would make 0.5; the area is above 32^2 by as little."""
    size = (64, 1000)
    truth = made_objects(1, [[925.05, 10, 925.05 + 55.49, 50]], [0], areas=[1024.00001], size=size)
    found = made_found([[925.0499877929688, 10, 952.7949829101562, 50]], [0], [0.9], size=size)
    scores = counted([(truth, found)]).compute()
    assert scores["AP50"] == 0
    assert math.isnan(scores["APs"])
    assert scores["APm"] == 0
