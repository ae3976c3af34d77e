"""YOLO's label folders: boxes and polygons in fractions, read where they lie."""

import numpy as np
import pytest
from coco_files import SIZE, image, write, yolo

from van.data.object_data import open_objects
from van.data.segmentation import open_segmentation
from van.errors import DataError, VanNotice

H, W = SIZE
BOX = "1 0.5 0.5 0.25 0.2\n\n0 0.1 0.2 0.1 0.2\n"
POLYGON = "1 0.25 0.2 0.75 0.2 0.75 0.8 0.25 0.8\n"


def test_boxes_are_in_pixels(tmp_path):
    data = open_objects(yolo(tmp_path, BOX), "val")
    assert data.classes == ("cat", "dog")
    assert data.categories.ids == (0, 1)  # as the label files have them
    assert (len(data), data.has_masks, data.class_counts()) == (2, False, (1, 1))
    image_, objects = data.load(0)
    assert image_.size == (W, H)
    assert objects.boxes.tolist() == [pytest.approx([15, 12, 25, 18]), pytest.approx([2, 3, 6, 9])]
    assert objects.labels.tolist() == [1, 0]
    assert objects.areas.tolist() == pytest.approx([60, 24])
    assert objects.ids.tolist() == [1, 2]
    assert objects.image_id == data.image_id(0) == "images/val/a"
    assert objects.read_masks is None
    assert len(data.load(1)[1]) == 0  # no label file


def test_polygons_are_masks(tmp_path):
    from pycocotools import mask as reference

    text = POLYGON + "0 0.1 0.1 0.3 0.15 0.2 0.4\n"
    data = open_objects(yolo(tmp_path, text), "train", need_masks=True)
    assert data.has_masks
    _, objects = data.load(0)
    assert objects.boxes.tolist()[0] == pytest.approx([10, 6, 30, 24])
    assert objects.areas.tolist()[0] == pytest.approx(360)
    masks = objects.read_masks()
    assert masks.shape == (2, H, W)
    for mask, line in zip(masks, text.splitlines(), strict=True):
        points = (np.array(line.split()[1:], float).reshape(-1, 2) * (W, H)).ravel().tolist()
        assert (mask == reference.decode(reference.frPyObjects([points], H, W))[..., 0]).all()
    data.verify(0)


def test_boxes_among_polygons_are_boxes(tmp_path):
    data = open_objects(yolo(tmp_path, POLYGON + BOX), "val")
    assert not data.has_masks
    with pytest.raises(DataError, match=r"2 of 3 annotations have no mask, e\.g\. .*labels/val/a\.txt, line 2; add"):
        open_objects(tmp_path, "val", need_masks=True)


@pytest.mark.parametrize("names", ["[cat, dog]", "{0: cat, 1: dog}", "[cat, dog]\nnc: 2"])
def test_names_in_every_spelling(tmp_path, names):
    assert open_objects(yolo(tmp_path, BOX, names=names), "val").classes == ("cat", "dog")


@pytest.mark.parametrize(
    "description",
    [
        "train: images/train\nval: images/val\nnames: [cat, dog]",
        "path: .\ntrain: [images/train]\nval: ./images/val\nnames: [cat, dog]",
        "path: ../elsewhere\ntrain: ../images/train\nval: ../images/val\nnames: [cat, dog]",
        "train: images/train\ntest: images/val\nnames: [cat, dog]\ndownload: never run",
        "train: train.txt\nvalid: images/val\nnc: 2",
    ],
)
def test_places_in_every_spelling(tmp_path, description):
    yolo(tmp_path, BOX, description=description)
    write(tmp_path / "train.txt", "./images/train/a.png\n\nimages/train/b.png\n")
    for data in (tmp_path, tmp_path / "data.yaml"):
        for part in ("train", "val"):
            found = open_objects(data, part)
            assert [found.key(index) for index in range(2)] == [f"images/{part}/{name}.png" for name in "ab"]
            assert len(found.load(0)[1]) == 2


def test_folders_with_a_list_of_classes_need_no_yaml(tmp_path):
    yolo(tmp_path, BOX)
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"no names of classes; write .*data\.yaml"):
        open_objects(tmp_path, "val")
    write(tmp_path / "classes.txt", "cat\ndog\n")
    data = open_objects(tmp_path, "val")
    assert (data.classes, len(data)) == (("cat", "dog"), 2)


def test_without_a_validation_part_one_is_drawn(tmp_path):
    yolo(tmp_path, BOX, parts=("train",))
    for number in range(8):
        image(tmp_path / f"images/train/c{number}.png", seed=20 + number)
    train, val = (open_objects(tmp_path, part, val_fraction=0.3) for part in ("train", "val"))
    assert (len(train), len(val)) == (7, 3)
    assert sum(train.class_counts()) + sum(val.class_counts()) == 2
    with pytest.warns(VanNotice, match=r"data\.yaml names no validation data"):
        open_objects(tmp_path, "val")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 0.5 0.5 0.2", "has 4 numbers; expected 5"),
        ("0 0.5 0.5 0.2 0.2 0.9", "has 6 numbers"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "has 8 numbers"),
        ("0 0.5 0.5 20 0.2", "holds 20; expected fractions of width and height"),
        ("0 0.5 0.5 nan 0.2", "holds nan"),
        ("0 0.5 0.5 -0.005 0.2", "has a box of -0.005 x 0.2"),
        ("cat 0.5 0.5 0.2 0.2", "holds 'cat 0.5 0.5 0.2 0.2'; expected numbers"),
        ("0.5 0.5 0.5 0.2 0.2", "begins with '0.5'; expected the number of a class"),
        ("-1 0.5 0.5 0.2 0.2", "begins with '-1'"),
        ("2 0.5 0.5 0.2 0.2", "is of class 2, but"),
    ],
)
def test_faulty_lines_are_named(tmp_path, line, says):
    yolo(tmp_path, BOX + line + "\n")
    with pytest.raises(DataError) as caught:
        open_objects(tmp_path, "val")
    assert says in str(caught.value)
    assert str(tmp_path / "labels/val/a.txt, line 4") in str(caught.value)
    assert "\n" not in str(caught.value)
    data = open_objects(tmp_path, "val", strict=False)
    assert sum(data.problems.counts.values()) == 1
    assert len(data.load(0)[1]) == 2


@pytest.mark.parametrize(
    ("description", "says"),
    [
        ("train: images/train\nval: images/val", "names is None; expected the classes in order"),
        ("train: images/train\nval: images/val\nnames: [cat, cat]", "several classes called 'cat'"),
        ("train: images/train\nval: images/val\nnames: {0: cat, 2: dog}", "expected 0, 1, 2"),
        ("train: images/train\nval: images/val\nnames: [cat]\nnc: 2", "nc is 2, but names has 1"),
        ("train: images/train\nval: 5\nnames: [cat]", "val is 5; expected a folder of images"),
        (
            "train: images/train\nval: images/nothing\nnames: [cat]",
            r"nothing, which .*data\.yaml names, does not exist",
        ),
        ("train: images/train\nval: images\n  names: [cat]", "parsing failed"),
    ],
)
def test_faulty_descriptions_are_named(tmp_path, description, says):
    yolo(tmp_path, "0 0.5 0.5 0.2 0.2", description=description)
    with pytest.raises(DataError, match=says) as caught:
        open_objects(tmp_path, "val")
    assert "\n" not in str(caught.value)


def test_images_that_a_list_names_must_exist(tmp_path):
    yolo(tmp_path, BOX, description="train: a.txt\nval: a.txt\nnames: [cat, dog]")
    write(tmp_path / "a.txt", "images/train/a.png\nimages/train/gone.png\n")
    with pytest.raises(DataError, match=r"gone\.png, listed for .*data\.yaml, does not exist"):
        open_objects(tmp_path, "val")
    assert open_objects(tmp_path, "val", strict=False).problems.counts["missing_image"] == 1


def test_the_fingerprint_speaks_of_images_and_labels(tmp_path):
    before = open_objects(yolo(tmp_path / "a", BOX), "val").fingerprint()
    assert open_objects(yolo(tmp_path / "b", BOX), "val").fingerprint() == before
    assert open_objects(yolo(tmp_path / "c", BOX.replace("0.25", "0.26")), "val").fingerprint() != before
    assert open_objects(yolo(tmp_path / "d", POLYGON), "val").fingerprint() != before


def test_a_yaml_of_label_maps_stays_one(tmp_path):
    image(tmp_path / "images/train/a.png")
    write(tmp_path / "dataset.yaml", "images: images\nmasks: masks\nnames: [ground, cat]\n")
    with pytest.raises(DataError, match="holds no annotations of objects"):
        open_objects(tmp_path, "val")
    with pytest.raises(DataError, match="masks"):
        open_segmentation(tmp_path, "val", val_fraction=0.2)
