"""COCO's files of objects: every layout, exact truth, and one line for whatever is wrong."""

import copy
import json
import pickle

import numpy as np
import pytest
from coco_files import NAMES, SIZE, annotation, coco, content, image, write
from PIL import Image

from van.data.checking import check_images
from van.data.object_data import open_objects
from van.errors import ConfigError, DataError, VanNotice
from van.images.rle import encode


def mask():
    found = np.zeros(SIZE, np.uint8)
    found[3:9, 30:36] = 1
    return found


def with_annotation(**fields):
    return content([annotation(0), annotation(5, **fields)])


def opened(tmp_path, values, **options):
    return open_objects(coco(tmp_path, values), "val", **options)


def test_objects_are_as_annotated(tmp_path):
    data = opened(tmp_path, None)
    assert data.classes == NAMES == data.categories.names
    assert data.categories.ids == (3, 7, 90)  # which have gaps, and are in no order in the file
    assert (len(data), data.split, data.has_masks, data.root) == (2, "val", True, tmp_path)
    image_, objects = data.load(0)
    assert image_.mode == "RGB"
    assert objects.size == SIZE
    assert objects.boxes.tolist() == [[4, 5, 14, 17], [20.25, 3.5, 28.25, 10.25]]
    assert (objects.boxes.dtype, objects.labels.dtype, objects.ids.dtype) == (np.float64, np.int64, np.int64)
    assert objects.labels.tolist() == [0, 2]
    assert objects.areas.tolist() == [120, 54]
    assert objects.ids.tolist() == [0, 12]
    assert not objects.crowd.any()
    assert (data.image_id(0), objects.image_id) == (1, 1)
    assert objects.read_masks()[0].sum() == 120
    assert data.class_counts() == (1, 0, 1)
    assert data.key(0) == "1.png"


def test_images_without_annotations_have_no_objects(tmp_path):
    _, objects = opened(tmp_path, None).load(1)
    assert len(objects) == 0
    assert objects.boxes.shape == (0, 4)
    assert objects.read_masks().shape == (0, *SIZE)


def test_masks_are_pycocotools(tmp_path):
    from pycocotools.coco import COCO

    rle = encode(mask()[None])[0]
    uncompressed = {"size": list(SIZE), "counts": [30 * 30 + 3, 6, *[24, 6] * 5, 30 * 40 - (30 * 30 + 3 + 36 + 24 * 5)]}
    values = content(
        [
            annotation(1, segmentation=[[2.13, 3.5, 20.77, 4.01, 11.5, 22.99], [25, 5, 35.5, 6, 30, 12]]),
            annotation(2, segmentation=rle.to_json()),
            annotation(3, segmentation=uncompressed, iscrowd=1),
        ]
    )
    data = opened(tmp_path, values)
    found = data.load(0)[1]
    reference = COCO(str(tmp_path / "annotations/instances_val2017.json"))
    assert (found.read_masks() == [reference.annToMask(each) for each in reference.imgToAnns[1]]).all()
    assert found.crowd.tolist() == [False, False, True]


def test_segmentations_wait_until_masks_are_read(tmp_path):
    damaged = {"size": list(SIZE), "counts": "oops"}
    data = opened(tmp_path, with_annotation(segmentation=damaged))
    _, objects = data.load(0)
    with pytest.raises(DataError, match=r"instances_val2017\.json: annotation 5: .*; mend or remove it"):
        objects.read_masks()
    data.verify(0)  # of boxes alone
    with pytest.raises(DataError, match="annotation 5"):
        opened(tmp_path, with_annotation(segmentation={"size": list(SIZE), "counts": "oops"}), need_masks=True).verify(
            0
        )


def test_data_without_masks_say_so(tmp_path):
    data = opened(tmp_path, with_annotation(segmentation=[]))
    assert not data.has_masks
    assert data.load(0)[1].read_masks is None
    with pytest.raises(DataError, match=r"1 of 2 annotations have no mask, e\.g\. annotation 5; add polygons"):
        open_objects(tmp_path, "val", need_masks=True)


def layouts(root, layout):
    """A data set of one image and object a part, in one of the layouts; what to open."""
    for part in ("train", "val"):
        folder, file = {
            "coco": (f"{part}2017", f"annotations/instances_{part}2017.json"),
            "images": (f"images/{part}2017", f"annotations/instances_{part}2017.json"),
            "named": ("images", f"annotations/my_{part}.json"),
            "below": (f"images/{part}", f"annotations/{part}.json"),
            "folders": (part, f"{part}/_annotations.coco.json"),
            "valid": (
                "valid" if part == "val" else part,
                f"{'valid' if part == 'val' else part}/_annotations.coco.json",
            ),
            "inside": (f"{part}/images", f"{part}/labels.json"),
        }[layout]
        values = content([annotation(1)], images=1)
        values["images"][0]["file_name"] = f"{part}.png"
        coco(root, values, file=file, folder=folder)
    write(root / "annotations/captions_val2017.json", {"images": [], "annotations": []})
    write(root / "package.json", {"name": "no data set"})
    return root


@pytest.mark.parametrize("layout", ["coco", "images", "named", "below", "folders", "valid", "inside"])
def test_layouts(tmp_path, layout):
    root = layouts(tmp_path, layout)
    for part in ("train", "val"):
        data = open_objects(root, part)
        assert data.key(0) == f"{part}.png"
        assert len(data.load(0)[1]) == 1


def test_a_file_of_a_part_is_that_part_and_its_sister_the_other(tmp_path):
    root = layouts(tmp_path, "coco")
    file = root / "annotations/instances_val2017.json"
    for part in ("train", "val"):
        assert open_objects(file, part).key(0) == f"{part}.png"
        assert open_objects(root / "annotations", part).key(0) == f"{part}.png"
    (root / "annotations/instances_train2017.json").unlink()
    assert len(open_objects(file, "val")) == 1
    with pytest.raises(DataError, match="has no train part"):
        open_objects(file, "train")


@pytest.mark.parametrize("file", ["data.json", "annotations/instances_train.json", "train/_annotations.coco.json"])
def test_without_a_validation_part_one_is_drawn(tmp_path, file):
    folder = {"data.json": "pictures/..", "annotations/instances_train.json": "train"}.get(file, "train")
    coco(tmp_path, content(images=10), file=file, folder=folder)
    for data in (tmp_path, tmp_path / file):
        parts = {part: open_objects(data, part, val_fraction=0.3) for part in ("train", "val")}
        names = {part: {each.key(index) for index in range(len(each))} for part, each in parts.items()}
        assert (len(names["train"]), len(names["val"])) == (7, 3)
        assert not names["train"] & names["val"]
        assert parts["train"].table is parts["val"].table  # read once
        other = open_objects(data, "val", val_fraction=0.3, seed=1)
        assert {other.key(index) for index in range(3)} != names["val"]
        if file.startswith("train/"):
            break
    with pytest.warns(VanNotice, match=r"names no validation data; 20%"):
        assert len(open_objects(tmp_path, "val")) == 2
    with pytest.raises(ConfigError, match=r"val_fraction is 1\.5"):
        open_objects(tmp_path, "val", val_fraction=1.5)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"bbox": [1, 2, 3]}, "annotation 5 (number 2 in the file) has bbox [1, 2, 3]; expected [x, y, width, height]"),
        ({"bbox": [1, 2, -3, 4]}, "has bbox [1, 2, -3, 4]"),
        ({"bbox": [1, 2, float("nan"), 4]}, "has bbox [1, 2, nan, 4]"),
        ({"bbox": [1, 2, "3", 4]}, "has bbox [1, 2, '3', 4]"),
        ({"bbox": None}, "has bbox None"),
        ({"bbox": [1e308, 0, 1e308, 1]}, "has bbox [1e+308, 0, 1e+308, 1]"),
        (
            {"bbox": [50, 2, 5, 5]},
            "annotation 5 has the bbox [50.0, 2.0, 5.0, 5.0] outside its image, 1.png of 40 x 30",
        ),
        ({"bbox": [-9, 2, 5, 5]}, "outside its image"),
        ({"category": 4}, "annotation 5 has category_id 4, which is none of the 3 categories, 3 … 90"),
        ({"category": "cat"}, "has category_id 'cat'"),
        ({"image_id": 77}, "annotation 5 has image_id 77, which no image has"),
        ({"image_id": None}, "has image_id None"),
        ({"id": 0}, "2 annotations have the id 0; number them"),
        ({"id": "x"}, "annotation 'x' (number 2 in the file) has id 'x'; expected a whole number"),
        ({"id": True}, "has id True"),
        ({"iscrowd": 2}, "has iscrowd 2; expected 0 or 1"),
        ({"area": -1}, "has area -1; expected pixels"),
    ],
)
def test_faulty_records_are_named_in_one_line(tmp_path, fields, says):
    values = content([annotation(0), annotation(5) | fields])
    if "category" in fields:
        values["annotations"][1]["category_id"] = fields["category"]
    with pytest.raises(DataError) as caught:
        opened(tmp_path, values)
    message = str(caught.value)
    assert says in message
    assert "instances_val2017.json" in message
    assert "\n" not in message
    assert any(remedy in message for remedy in ("mend or remove", "remove the annotation", "number them"))
    data = open_objects(tmp_path, "val", strict=False)
    assert sum(data.problems.counts.values()) == 1
    with pytest.raises(DataError, match="annotation"):  # a lenient reading does not make a strict one pass
        open_objects(tmp_path, "val")


def changed(path, value):
    values = content()
    here = values
    for key in path[:-1]:
        here = here[key]
    if value is None:
        del here[path[-1]]
    else:
        here[path[-1]] = value
    return values


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("{", "is no valid JSON"),
        (json.dumps(content())[:-40], "no valid JSON"),
        (json.dumps(content()) + "]", "expected the end of the file"),
        ('{"annotations": 1, "images": []}', "'annotations' is no list"),
        ('{"annotations": [], "images": [], "images": []}', "has 'images' twice"),
        ('[{"annotations": 1, "images": []}]', "holds no object"),
        ('{"annotations": [' + "[" * 100_000 + ', "images"', "nested too deeply"),
        (changed(["categories"], None), "has no 'categories'"),
        (changed(["categories"], []), "lists no categories"),
        (changed(["images"], []), "lists no images"),
        (changed(["categories", 0, "name"], 5), "category number 1 is"),
        (changed(["categories", 0, "name"], "dog"), "several categories called 'dog'"),
        (changed(["categories", 0, "id"], 90), "category id 90 is 'cat' and 'dog'"),
        (changed(["images", 1, "id"], 1), "image id 1 is given to 1.png and to 2.png"),
        (changed(["images", 1, "file_name"], None), "has file_name None"),
        (changed(["images", 1, "height"], -4), "has height -4 and width 40; expected pixels"),
        (changed(["images", 1], "text"), "image number 2 is 'text'"),
        (changed(["annotations", 1], "text"), "annotation (number 2 in the file) is 'text'"),
    ],
)
def test_faulty_files_are_named_in_one_line(tmp_path, values, says):
    coco(tmp_path)
    write(tmp_path / "annotations/instances_val2017.json", values)
    image(tmp_path / "val2017/1.png")
    with pytest.raises(DataError) as caught:
        open_objects(tmp_path, "val")
    assert says in str(caught.value)
    assert "instances_val2017.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_images_are_named(tmp_path):
    coco(tmp_path)
    (tmp_path / "val2017/2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images do not exist in .*val2017, e\.g\. 2\.png; add them"):
        open_objects(tmp_path, "val")
    data = open_objects(tmp_path, "val", strict=False)
    assert (len(data), data.problems.counts["missing_image"]) == (1, 1)
    (tmp_path / "val2017/1.png").unlink()
    with pytest.raises(DataError, match=r"not found, e\.g\. 1\.png; looked in .*val2017"):
        open_objects(tmp_path, "val")


def test_an_image_of_another_size_than_its_record_is_refused(tmp_path):
    coco(tmp_path)
    image(tmp_path / "val2017/1.png", (40, 41))
    with pytest.raises(DataError, match=r"1\.png has 41 x 40 pixels .* its record in .* 40 x 30"):
        open_objects(tmp_path, "val").load(0)
    found = check_images(open_objects(tmp_path, "val"), limit_s=None)
    assert list(found.unreadable) == [0]


@pytest.mark.parametrize("record", ["turned", "stored"])
def test_an_image_lies_as_its_record_says(tmp_path, record):
    values = content([], images=1)
    if record == "turned":
        values["images"][0] |= {"height": SIZE[1], "width": SIZE[0]}
    coco(tmp_path, values)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    with Image.open(tmp_path / "val2017/1.png") as stored:
        stored.load()
    stored.save(tmp_path / "val2017/1.png", exif=exif)
    image_, objects = open_objects(tmp_path, "val").load(0)
    expected = SIZE if record == "stored" else SIZE[::-1]
    assert objects.size == (image_.height, image_.width) == expected


def test_records_without_sizes_take_the_images(tmp_path):
    values = content()
    for each in values["images"]:
        del each["height"], each["width"]
    assert opened(tmp_path, values).load(0)[1].size == SIZE


def test_missing_fields_have_their_defaults(tmp_path):
    values = content()
    for each in values["annotations"]:
        del each["area"], each["iscrowd"]
    _, objects = opened(tmp_path, values).load(0)
    assert objects.areas.tolist() == [120, 54]
    assert not objects.crowd.any()


def test_boxes_without_extent_and_over_the_border_are_kept_as_they_are(tmp_path):
    values = content([annotation(1, bbox=[3, 4, 0, 5]), annotation(2, bbox=[-2, -2, 50, 50])])
    assert opened(tmp_path, values).load(0)[1].boxes.tolist() == [[3, 4, 3, 9], [-2, -2, 48, 48]]


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["annotations"][0]["bbox"].__setitem__(0, 5),
        lambda values: values["annotations"][0].update(category_id=7),
        lambda values: values["annotations"][0].update(iscrowd=1),
        lambda values: values["annotations"][0]["segmentation"][0].__setitem__(0, 5),
        lambda values: values["annotations"].pop(),
        lambda values: values["annotations"][0].update(image_id=2),
        lambda values: values["images"][1].update(file_name="3.png"),
    ],
)
def test_the_fingerprint_speaks_of_images_and_annotations(tmp_path, change):
    before = opened(tmp_path / "a", None).fingerprint()
    assert opened(tmp_path / "b", None).fingerprint() == before
    values = copy.deepcopy(content())
    change(values)
    assert opened(tmp_path / "c", values).fingerprint() != before


def test_changed_annotations_are_said_in_words():
    from van.data.fingerprint import differences

    before = {"train": {"images": [2, "a"], "annotations": [2, "b"]}}
    assert differences(before, {"train": {"images": [2, "a"], "annotations": [2, "c"]}}) == [
        "train: other annotations than before"
    ]


def test_a_file_that_changed_is_read_again(tmp_path):
    data = opened(tmp_path, None)
    coco(tmp_path, content([annotation(1)]))
    assert len(open_objects(tmp_path, "val").load(0)[1]) == 1
    assert len(data.load(0)[1]) == 2


def test_data_can_be_sent_to_workers(tmp_path):
    data = opened(tmp_path, None)
    again = pickle.loads(pickle.dumps(data))
    assert (again.load(0)[1].read_masks() == data.load(0)[1].read_masks()).all()


def test_several_files_for_one_part_are_refused(tmp_path):
    for year in ("2014", "2017"):
        coco(tmp_path, file=f"annotations/instances_val{year}.json")
    with pytest.raises(DataError, match=r"holds instances_val2014\.json and instances_val2017\.json; one of them"):
        open_objects(tmp_path, "val")
    assert len(open_objects(tmp_path / "annotations/instances_val2017.json", "val")) == 2


def test_what_holds_no_objects_says_what_was_expected(tmp_path):
    with pytest.raises(DataError, match="holds no annotations of objects in a known layout; expected annotations/"):
        open_objects(tmp_path, "val")
    with pytest.raises(DataError, match="does not exist"):
        open_objects(tmp_path / "nothing", "val")
    with pytest.raises(DataError, match="does not exist"):
        open_objects(tmp_path / "nothing.json", "val")
    with pytest.raises(DataError, match="has no 'images' and no 'annotations' and no 'categories'"):
        open_objects(write(tmp_path / "settings.json", {"name": "no data set"}), "val")
