"""Evaluations of models that find objects or segments: what they give, what they write, and on several processes."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from fake_objects import fake_model
from PIL import Image

import van
from van.data.object_scenes import SceneObjects, ScenePanoptic
from van.data.scenes import Scenes
from van.errors import ConfigError, DataError, VanNotice
from van.tasks import task_named
from van.tasks.base import EvaluationData, Subject
from van.tasks.panoptic.quality import PanopticCounts
from van.tasks.validation import MetricValidator
from van.train.distributed import Communicator

COUNT = 12


def scenes(task):
    made = Scenes(count=COUNT)
    return ScenePanoptic(made) if task == "panoptic" else SceneObjects(made)


def names(task):
    own = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
    if task == "panoptic":
        return [f"{name}{part}" for part in ("", "_things", "_stuff") for name in ("PQ", "SQ", "RQ")]
    return own if task == "detection" else own + [f"mask/{name}" for name in own]


@pytest.mark.parametrize(("task", "monitored"), [("detection", "AP"), ("instance", "mask/AP"), ("panoptic", "PQ")])
def test_an_evaluation_has_cocos_names(task, monitored):
    evaluation = van.evaluate(fake_model(task), scenes(task))
    assert list(evaluation.scores()) == names(task)
    assert evaluation.monitored == monitored
    assert evaluation.score == evaluation[monitored]
    content = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert all(content[name] is None or content[name] == evaluation[name] for name in names(task))
    assert content["count"] == COUNT
    assert content["preprocess"]["min_size"] == 64
    assert [row["class"] for row in content["per_class"]] == list(scenes(task).classes)
    assert set(evaluation.row()) == {*names(task), "images"}
    (table,) = evaluation.tables(per_class=True)
    assert len(table.rows) == len(scenes(task).classes)
    assert len(table.rows[0]) == len(table.columns)
    assert evaluation.columns()[f"{monitored} %"] == f"{100 * evaluation.score:.2f}"
    assert evaluation.notes() == []
    assert any(value > 0 for value in evaluation.scores().values())


def coco_truth(data):
    """What `data` holds as a file of COCO's."""
    images, annotations = [], []
    for index in range(len(data)):
        _, objects = data.load(index)
        images.append({"id": objects.image_id, "height": objects.size[0], "width": objects.size[1]})
        for i, mask in enumerate(objects.read_masks()):
            left, top, right, bottom = objects.boxes[i].tolist()
            box = [left, top, right - left, bottom - top]
            made = {"id": int(objects.ids[i]), "image_id": objects.image_id, "bbox": box, "iscrowd": 0}
            made |= {"category_id": data.categories.ids[objects.labels[i]], "area": float(objects.areas[i])}
            annotations.append(made | {"segmentation": encoded(mask)})
    categories = [{"id": i, "name": n} for i, n in zip(data.categories.ids, data.categories.names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def encoded(mask):
    from pycocotools import mask as functions

    found = functions.encode(np.asfortranarray(mask))
    return {"size": found["size"], "counts": found["counts"].decode()}


def test_written_results_have_the_same_scores_by_pycocotools(tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    data = scenes("instance")
    evaluation = van.evaluate(fake_model("instance"), data, out=str(tmp_path / "out"))
    (tmp_path / "truth.json").write_text(json.dumps(coco_truth(data)))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bbox.json", "segm.json"]
    for prefix, kind in (("", "bbox"), ("mask/", "segm")):
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(tmp_path / "truth.json"))
            theirs = COCOeval(truth, truth.loadRes(str(tmp_path / "out" / f"{kind}.json")), kind)
            theirs.evaluate()
            theirs.accumulate()
            theirs.summarize()
        for name, value in zip(names("detection"), theirs.stats, strict=True):
            ours = evaluation[prefix + name]
            assert (math.isnan(ours) and value == -1) or abs(ours - value) < 1e-6, prefix + name


def test_written_segments_have_the_same_scores(tmp_path):
    data = scenes("panoptic")
    evaluation = van.evaluate(fake_model("panoptic"), data, out=str(tmp_path))
    listed = json.loads((tmp_path / "panoptic.json").read_text())
    assert [each["name"] for each in listed["categories"]] == list(data.classes)
    assert [each["isthing"] for each in listed["categories"]] == [1] * 10 + [0]
    assert [each["image_id"] for each in listed["annotations"]] == list(range(1, COUNT + 1))
    counted = PanopticCounts.empty(len(data.classes))
    for index, each in enumerate(listed["annotations"]):
        pixels = np.array(Image.open(tmp_path / "panoptic" / each["file_name"]), np.int64)
        ids = pixels @ [1, 256, 65536]
        assert set(np.unique(ids)) - {0} == {segment["id"] for segment in each["segments_info"]}
        labels = [data.categories.ids.index(segment["category_id"]) for segment in each["segments_info"]]
        assert [segment["area"] for segment in each["segments_info"]] == np.bincount(ids.ravel())[1:].tolist()
        truth = data.load(index)[1]
        counted.update(truth.segment_ids, truth.segments, ids, labels)
    assert counted.scores(data.categories.things) == evaluation.scores()


@pytest.mark.parametrize("task", ["instance", "panoptic"])
def test_ids_beyond_a_byte_are_stored_as_coco_does(task):
    from van.tasks.panoptic.output import id_image

    ids = np.array([[0, 255, 256, 65536 + 2 * 256 + 3]])
    assert np.array(id_image(ids)).tolist() == [[[0, 0, 0], [255, 0, 0], [0, 1, 0], [3, 2, 1]]]


@pytest.mark.long
@pytest.mark.parametrize("task", ["instance", "panoptic"])
def test_two_processes_give_and_write_what_one_does(task, tmp_path):
    found = []
    for name, options in (("one", {}), ("two", {"devices": ("cpu", "cpu")})):
        folder = tmp_path / name
        evaluation = van.evaluate(fake_model(task), scenes(task), out=str(folder), **options)
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        found.append((repr(evaluation.scores()), evaluation.classes, files))
    assert repr(found[0]) == repr(found[1])
    assert len(found[0][2]) == (2 if task == "instance" else COUNT + 1)


def validated(rank, world, folder):
    """What a process of a training computes in validations, of every `world`-th image."""
    if world > 1:
        meeting = f"file://{folder}/meeting"
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    found, gather = {}, Communicator(world).gather
    for task in ("instance", "panoptic"):
        data, model = scenes(task), fake_model(task)
        own = task_named(task)
        evaluator = own.evaluator(subject(model), EvaluationData(data, "scenes", "val"), own.eval_options())
        scores = {name: name for name in names(task)}
        validator = MetricValidator(evaluator.processor, evaluator.metric, scores)
        validator.reset()
        for index in range(rank, len(data), world):
            validator.count(model, [validator.example(*data.load(index), data.name(index))])
        found |= validator.compute(gather)
    (folder / f"{rank}-of-{world}.json").write_text(json.dumps(found))
    if world > 1:
        torch.distributed.destroy_process_group()


def subject(model):
    return Subject(config=model.config, metadata=model.metadata, name="model")


@pytest.mark.long
def test_two_gloo_processes_compute_what_one_does(tmp_path):
    validated(0, 1, tmp_path)
    mp.spawn(validated, (2, tmp_path), nprocs=2)
    texts = [(tmp_path / f"{name}.json").read_text() for name in ("0-of-1", "0-of-2", "1-of-2")]
    assert texts[0] == texts[1] == texts[2]
    scores = json.loads(texts[0])
    assert min(scores["AP50"], scores["mask/AP50"], scores["PQ"]) > 0


def test_an_interrupted_evaluation_leaves_what_it_found(tmp_path):
    data = scenes("detection")

    class Broken(SceneObjects):
        def load(self, index):
            if index == 4:
                raise DataError("image 4 is damaged")
            return super().load(index)

    (tmp_path / "bbox.json").write_text("an earlier one")
    with pytest.raises(DataError, match="image 4 is damaged"):
        van.evaluate(fake_model("detection"), Broken(data.scenes), out=str(tmp_path), workers=0)
    assert (tmp_path / "bbox.json").read_text() == "an earlier one"
    (left,) = tmp_path.glob(".results.*.part/*.jsonl")
    assert [json.loads(line)[0] for line in left.read_text().splitlines()] == [0, 1, 2, 3]


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="a file is there; give a folder"):
        van.evaluate(fake_model("detection"), scenes("detection"), out=str(tmp_path / "out"))


def test_data_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match="expected images with their objects"):
        van.evaluate(fake_model("detection"), scenes("panoptic"))
    with pytest.raises(ConfigError, match="expected images with a segment for every pixel"):
        van.evaluate(fake_model("panoptic"), scenes("detection"))


def test_another_number_of_classes_is_refused():
    with pytest.raises(DataError, match=r"has 7 classes, .* has 10; expected the data set it was trained for"):
        van.evaluate(fake_model("detection", num_classes=7), scenes("detection"))


def test_masks_need_data_with_masks():
    data = scenes("instance")
    data.has_masks = False
    with pytest.raises(DataError, match="has boxes only"):
        van.evaluate(fake_model("instance"), data)


@pytest.mark.parametrize("task", ["detection", "panoptic"])
def test_classes_in_another_order_are_moved_by_their_names(task, tmp_path):
    own, moved = fake_model(task), fake_model(task)
    order = [*range(1, 10), 0, 10][: len(own.classes)]
    with torch.no_grad():
        moved.head.weight.copy_(own.head.weight[order])
        moved.head.bias.copy_(own.head.bias[order])
    moved.classes = tuple(own.classes[i] for i in order)
    found = []
    for name, model in (("own", own), ("moved", moved)):
        evaluation = van.evaluate(model, scenes(task), out=str(tmp_path / name))
        found.append((repr(evaluation.scores()), evaluation.classes))
    assert repr(found[0]) == repr(found[1])
    if task == "detection":
        assert (tmp_path / "own" / "bbox.json").read_bytes() == (tmp_path / "moved" / "bbox.json").read_bytes()


def test_other_names_are_compared_by_number_with_a_notice():
    model = fake_model("detection")
    model.classes = tuple("abcdefghij")
    with pytest.warns(VanNotice, match="number 0 is 'a' for the model and '0' in SceneObjects"):
        van.evaluate(model, scenes("detection"))


def test_an_evaluation_has_no_confusion_matrix():
    with pytest.raises(ConfigError, match="has no confusion matrix"):
        van.evaluate(fake_model("detection"), scenes("detection")).picture()
