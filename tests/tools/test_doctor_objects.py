"""The doctor on objects and panoptic segments: every planted fault is found, named and graded, in every layout."""

import json
import re
import shutil

import numpy as np
import pytest
from coco_files import (
    SIZE,
    annotation,
    coco,
    content,
    image,
    panoptic,
    panoptic_content,
    panoptic_map,
    save_map,
    write,
    yolo,
)
from PIL import Image

from van.cli import main
from van.errors import ConfigError, DataError
from van.tools.doctor import contact_sheet_of, examine


def words(report, level):
    return [finding.text for finding in report.findings if finding.level == level]


def whole(root):
    """Train and val with every class in both, other images in each."""
    for seed, part in enumerate(("train", "val")):
        values = content(
            [annotation(0), annotation(1, category=90, box=(20, 3, 8, 6)), annotation(2, 2, 7, (1, 1, 5, 5))]
        )
        coco(root, values, file=f"annotations/instances_{part}2017.json", folder=f"{part}2017", seed=10 * seed)
    return root


def val_with(root, *annotations, change=lambda values: None):
    """The val part gets further annotations."""
    whole(root)
    file = root / "annotations/instances_val2017.json"
    values = json.loads(file.read_text())
    values["annotations"] += annotations
    change(values)
    write(file, values)
    return root


def test_a_whole_data_set_is_fit_for_training(tmp_path):
    report = examine(whole(tmp_path))
    assert report.healthy
    assert report.findings == ()
    assert (report.layout, report.classes) == ("COCO objects", ("cat", "owl", "dog"))
    part = report.splits["train"]
    assert (part.total, part.seen, part.total_count, part.masks) == (2, 2, 3, True)
    assert part.counts.tolist() == part.images.tolist() == [1, 1, 1]
    assert report.table()[2] == {
        "label": 2,
        "name": "dog",
        "train": {"objects": 1, "images": 1},
        "val": {"objects": 1, "images": 1},
    }


CIRCLE = {"size": list(SIZE), "counts": "broken"}


@pytest.mark.parametrize(
    ("level", "kind", "record", "says"),
    [
        ("error", "outside", annotation(9, box=(90, 1, 5, 5)), "outside its image, 1.png of 40 x 30"),
        ("error", "bad_mask", annotation(9, segmentation=CIRCLE), "annotation 9: its runs|annotation 9: its counts"),
        ("error", "bad_mask", annotation(9, segmentation=[[1, 2, 3, 4]]), "annotation 9: a polygon has 4 numbers"),
        ("error", "unknown_category", annotation(9, category=4), "annotation 9 has category_id 4"),
        ("error", "unknown_image", annotation(9, image_id=4), "annotation 9 has image_id 4"),
        ("error", "duplicate_id", annotation(1, category=7, box=(9, 9, 9, 9)), "2 annotations have the id 1"),
        ("error", "malformed", annotation(9, box=(1, 2, -3, 4)), "annotation 9 .number 4 in the file. has bbox"),
        ("warning", "degenerate", annotation(9, box=(1, 2, 0, 4)), "annotation 9, .1.0, 2.0, 1.0, 6.0."),
        ("warning", "beyond", annotation(9, box=(35, 2, 9, 4)), "annotation 9, .35.0, 2.0, 44.0, 6.0. .corners. on 40"),
        ("warning", "empty_mask", annotation(9, segmentation=[[50, 50, 60, 50, 60, 60]]), "annotation 9"),
        ("warning", "beside", annotation(9, segmentation=[[30, 20, 38, 20, 38, 28]]), "annotation 9, box"),
        ("warning", "repeated", annotation(9), "annotation 9, .*as annotation 0"),
    ],
)
def test_faults_of_annotations_are_found(tmp_path, level, kind, record, says):
    report = examine(val_with(tmp_path, record))
    assert report.splits["val"].troubles[kind] >= 1
    assert not report.splits["train"].troubles
    assert report.healthy == (level != "error")
    found = [text for text in words(report, level) if re.search(says, text)]
    assert found, report.findings
    assert found[0].startswith("val: 1 ")
    assert all("\n" not in finding.text for finding in report.findings)


def test_faults_of_images_are_found(tmp_path):
    root = val_with(tmp_path, change=lambda values: values["images"].append({"id": 5, "file_name": "gone.png"}))
    (root / "val2017/2.png").write_bytes(b"torn")
    report = examine(root)
    part = report.splits["val"]
    assert (part.troubles["missing_image"], part.troubles["unreadable"], part.seen) == (1, 1, 2)
    errors = "\n".join(words(report, "error"))
    assert "gone.png" in errors
    assert "2.png cannot be read" in errors
    assert part.counts.tolist() == [1, 1, 1]  # what is annotated on the torn one included
    image(root / "val2017/2.png", (9, 9))
    assert "its record in" in "\n".join(words(examine(root), "error"))


def test_crowds_balance_and_empty_images_are_noted(tmp_path):
    more = [annotation(100 + k, box=(k % 30, k // 30, 5, 5)) for k in range(200)]
    more += [annotation(9, iscrowd=1, segmentation={"size": list(SIZE), "counts": [600, 600]})]
    root = val_with(tmp_path, *more, change=lambda values: values["images"].append(values["images"][0] | {"id": 3}))
    report = examine(root)
    assert report.healthy
    assert any("1 of 204 objects are crowds" in text for text in words(report, "note"))
    assert any("1 of 3 images have no objects" in text for text in words(report, "note"))
    assert any("is 202 times as frequent as owl (1)" in text for text in words(report, "warning"))


def test_boxes_in_fractions_are_recognised(tmp_path):
    root = val_with(
        tmp_path, change=lambda values: [each.update(bbox=[0.1, 0.2, 0.3, 0.3]) for each in values["annotations"]]
    )
    assert any("as fractions are; expected pixels" in text for text in words(examine(root), "warning"))


def test_classes_that_differ_or_do_not_occur(tmp_path):
    root = val_with(tmp_path / "a", change=lambda values: values["categories"].pop(0))
    write(
        root / "annotations/instances_val2017.json",
        content([annotation(1, category=7)]) | {"categories": [{"id": 7, "name": "owl"}]},
    )
    assert any("train and val have different categories: cat, dog" in text for text in words(examine(root), "error"))
    root = val_with(tmp_path / "b", change=lambda values: values["annotations"].pop())
    assert any("val: 1 class(es) of the other part do not occur: owl" in text for text in words(examine(root), "note"))
    for part in ("train", "val"):
        write(root / f"annotations/instances_{part}2017.json", content([annotation(1)]))
    assert any("2 class(es) occur nowhere: owl, dog" in text for text in words(examine(root), "warning"))
    write(root / "annotations/instances_val2017.json", content([]))
    assert any("val: no image has objects" in text for text in words(examine(root), "error"))


def test_shared_images_are_found_by_their_pixels(tmp_path):
    whole(tmp_path)
    shutil.copy(tmp_path / "train2017/1.png", tmp_path / "val2017/2.png")
    assert any("1 image(s) of val are in train too" in text for text in words(examine(tmp_path), "warning"))


def test_a_part_that_cannot_be_opened_does_not_hide_the_other(tmp_path):
    whole(tmp_path)
    write(tmp_path / "annotations/instances_train2017.json", "{")
    report = examine(tmp_path)
    assert list(report.splits) == ["val"]
    assert any(text.startswith("train: ") and "no valid JSON" in text for text in words(report, "error"))
    write(tmp_path / "annotations/instances_val2017.json", "{")
    with pytest.raises(DataError, match="no valid JSON"):
        examine(tmp_path)


def test_a_missing_validation_part_is_noted(tmp_path):
    root = coco(tmp_path, content(images=10), file="data.json", folder=".")
    report = examine(root)
    assert set(report.splits) == {"train", "val"}
    assert any("there is no validation part: a share of the images is drawn" in text for text in words(report, "note"))
    only = coco(tmp_path / "val")
    assert any("there is no train part" in text for text in words(examine(only), "note"))
    with pytest.raises(ConfigError, match="has no 'train' part; it has: val"):
        examine(only, ["train"])


def test_segments_of_a_whole_map_are_counted(tmp_path):
    report = examine(panoptic(tmp_path))
    assert report.healthy
    part = report.splits["val"]
    assert (part.what, part.total_count, part.crowds) == ("segments", 3, 1)
    assert any("37.5% of the pixels are in no segment" in text for text in words(report, "note"))
    assert report.layout == "COCO panoptic segments"


def stray(ids):
    return np.where(ids == 2, 5, ids)


@pytest.mark.parametrize(
    ("level", "kind", "change", "says"),
    [
        ("error", "unlisted", lambda root, values: stray, "1_map.png: segment 5"),
        ("error", "absent", lambda root, values: stray, "1_map.png: segment 2"),
        ("error", "mismatched", lambda root, values: lambda ids: ids.T, "1_map.png: 30 x 40, its image 40 x 30"),
        (
            "error",
            "without_map",
            lambda root, values: values["images"].append({"id": 2, "file_name": "2.png"}),
            "2.png",
        ),
        (
            "error",
            "unknown_category",
            lambda root, values: values["annotations"][0]["segments_info"][0].update(category_id=99),
            "category_id 99",
        ),
        (
            "warning",
            "areas",
            lambda root, values: values["annotations"][0]["segments_info"][0].update(area=7),
            "segment 300 has 7 pixels in the JSON file, 600 there",
        ),
    ],
)
def test_maps_that_do_not_fit_are_found(tmp_path, level, kind, change, says):
    values = panoptic_content()
    shift = change(tmp_path, values)
    report = examine(panoptic(tmp_path, values, shift(panoptic_map()) if callable(shift) else None))
    assert report.splits["val"].troubles[kind] == 1
    assert any(says in text for text in words(report, level)), report.findings


def test_maps_that_cannot_be_read_are_found(tmp_path):
    panoptic(tmp_path)
    (tmp_path / "annotations/panoptic_val2017/1_map.png").write_bytes(b"torn")
    assert any("1_map.png cannot be read" in text for text in words(examine(tmp_path), "error"))


def test_objects_and_segments_of_one_folder_are_read_both(tmp_path):
    root = panoptic(whole(tmp_path))
    save_map(root / "annotations/panoptic_val2017/1_map.png", panoptic_map())
    report = examine(root)
    assert list(report.splits) == ["train", "val", "panoptic val"]
    assert report.classes == ("cat", "owl", "dog", "sky")
    assert report.columns[-2:] == ("panoptic val segments", "panoptic val images")
    assert list(examine(root, ["val"]).splits) == ["val", "panoptic val"]
    assert not any("different categories" in text for text in words(report, "error"))


def test_yolo_labels_are_read(tmp_path):
    root = yolo(tmp_path, "0 0.5 0.5 0.2 0.2\n5 0.5 0.5 0.2 0.2\n1 0.3 0.3 0 0.2\n1 0.5 x\n")
    for data in (root, root / "data.yaml"):
        report = examine(data)
        assert report.layout == "YOLO labels"
        part = report.splits["val"]
        assert dict(part.troubles) == {"unknown_category": 1, "malformed": 1, "degenerate": 1}
        assert any("labels/val/a.txt, line 2 is of class 5" in text for text in words(report, "error"))
    assert part.counts.tolist() == [1, 1]


@pytest.mark.parametrize("kind", ["coco", "panoptic", "yolo"])
def test_contact_sheets_show_trouble_first(tmp_path, kind):
    if kind == "coco":
        root = val_with(tmp_path, annotation(9, 2, segmentation=CIRCLE))
    elif kind == "panoptic":
        root = panoptic(tmp_path)
    else:
        root = yolo(tmp_path, "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.2 0.2 0.3 0.4\n")
    report = examine(root)
    sheet = contact_sheet_of(root)(report, "val")
    assert sheet.mode == "RGB"
    assert min(sheet.size) > 300
    colors = {color for _, color in sheet.getcolors(2**24)}
    from van.tools.doctor.objects import opened

    palette = opened(root, "val", panoptic=kind == "panoptic").data.palette
    assert palette[0] in colors  # of the legend, and of a box
    if kind == "coco":
        assert report.splits["val"].troubled == [1]


def test_the_command_line_prints_and_writes(tmp_path, capsys):
    root = val_with(tmp_path / "data", annotation(9, box=(90, 1, 5, 5)))
    sheet, facts = tmp_path / "sheet.png", tmp_path / "facts.json"
    assert main(["doctor", str(root), "--sheet", str(sheet), "--json", str(facts)]) == 1
    out = capsys.readouterr().out
    assert "COCO objects, 3 classes" in out
    assert "error: val: 1 box(es) are outside their image" in out
    assert "val: 2 images of 40 x 30 pixels; 4 objects with masks" in out
    values = json.loads(facts.read_text())
    assert values["splits"]["val"]["troubles"] == {"outside": 1, "empty_mask": 1}
    assert Image.open(sheet).format == "PNG"


def test_the_scenes_are_written_and_examined(tmp_path, capsys):
    folder = tmp_path / "scenes"
    options = ["--train-scenes", "6", "--val-scenes", "4", "--scene-size", "40"]
    assert main(["doctor", "scenes", "--write", str(folder), *options]) == 0
    out = capsys.readouterr().out
    assert f"wrote {folder}" in out
    assert "COCO objects and COCO panoptic segments, 11 classes" in out
    assert "train: 6 images of 40 x 40 pixels" in out
    assert "panoptic val: 4 images of 40 x 40 pixels" in out
    assert main(["doctor", "scenes", "--write", str(folder)]) == 2
    assert "is not empty; name a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scenes", "--train-scenes", "3"], "--train-scenes is of --write FOLDER, which is not given"),
        (["scenes", "--scene-size", "64"], "--scene-size is of --write FOLDER"),
        (["{folder}", "--write", "{folder}/new"], "--write writes the digit scenes, not"),
        (["scenes", "--write", "{folder}/new", "--val-scenes", "0"], "expected at least one scene"),
    ],
)
def test_options_of_writing_are_checked(tmp_path, capsys, arguments, says):
    assert main(["doctor", *(each.format(folder=tmp_path) for each in arguments)]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_one_file_for_both_parts_is_reported_once(tmp_path):
    values = content([annotation(1), annotation(9, category=4)], images=10)
    root = coco(tmp_path, values, file="data.json", folder=".")
    (root / "7.png").unlink()
    for _ in range(2):  # what one reading found is not added to the next one's
        report = examine(root)
        assert sum(each.troubles["unknown_category"] for each in report.splits.values()) == 1
        assert sum(each.troubles["missing_image"] for each in report.splits.values()) == 1
    assert examine(root, ["val"]).splits["val"].troubles["unknown_category"] == 1
