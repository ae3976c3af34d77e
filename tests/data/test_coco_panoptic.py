"""COCO's panoptic files: segments of JSON and map agree, things come first, void and crowds are known."""

import numpy as np
import pytest
from coco_files import SIZE, coco, image, panoptic, panoptic_content, panoptic_map, save_map, write
from PIL import Image

from van.data.object_data import open_objects, open_panoptic
from van.errors import DataError, VanNotice


def test_segments_are_as_annotated(tmp_path):
    data = open_panoptic(panoptic(tmp_path), "val")
    assert data.classes == ("cat", "owl", "sky")  # things by id, then stuff
    assert data.categories.ids == (3, 7, 5)
    assert data.categories.things == (True, True, False)
    assert (data.num_things, len(data), data.root, data.key(0)) == (2, 1, tmp_path, "1.png")
    image_, found = data.load(0)
    assert image_.size == SIZE[::-1]
    assert found.segment_ids.dtype == np.int32
    assert (found.segment_ids == panoptic_map()).all()
    assert [(each.id, each.label, each.area, each.crowd) for each in found.segments] == [
        (300, 2, 600, False),
        (70_001, 0, 100, False),
        (2, 1, 50, True),
    ]
    assert found.image_id == data.image_id(0) == 1


def test_areas_are_those_of_the_map(tmp_path):
    values = panoptic_content()
    values["annotations"][0]["segments_info"][0]["area"] = 5
    del values["annotations"][0]["segments_info"][1]["area"]
    _, found = open_panoptic(panoptic(tmp_path, values), "val").load(0)
    assert [each.area for each in found.segments] == [600, 100, 50]


def test_colours_of_the_categories_are_the_palette(tmp_path):
    values = panoptic_content()
    for number, each in enumerate(values["categories"]):
        each["color"] = [number, 2, 3]
    assert open_panoptic(panoptic(tmp_path, values), "val").palette == ((0, 2, 3), (2, 2, 3), (1, 2, 3))


def map_with(value):
    ids = panoptic_map()
    ids[29, 39] = value
    return ids


def without(id_):
    return np.where(panoptic_map() == id_, 0, panoptic_map())


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (map_with(9), "segment 9 is in the map but not in the JSON file"),
        (without(2), "segment 2 is in the JSON file but not in the map"),
        (np.zeros((30, 41), np.int32), "has 41 x 30 pixels .width x height., its image 40 x 30"),
    ],
)
def test_maps_that_disagree_with_the_json_file_are_refused(tmp_path, ids, says):
    data = open_panoptic(panoptic(tmp_path, ids=ids), "val")
    with pytest.raises(DataError, match=says) as caught:
        data.load(0)
    assert "1_map.png" in str(caught.value)
    with pytest.raises(DataError, match=says):
        data.verify(0)


def test_a_gray_map_is_refused(tmp_path):
    panoptic(tmp_path)
    Image.new("L", SIZE[::-1]).save(tmp_path / "annotations/panoptic_val2017/1_map.png")
    with pytest.raises(DataError, match=r"is no RGB image \(PIL mode L\); expected segment ids as colours"):
        open_panoptic(tmp_path, "val").load(0)


def changed(change):
    values = panoptic_content()
    change(values, values["annotations"][0], values["annotations"][0]["segments_info"])
    return values


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v, a, s: s[0].update(id=0), "has id 0; expected 1 … 16777215"),
        (lambda v, a, s: s[0].update(id=2**24), "has id 16777216"),
        (lambda v, a, s: s[0].update(id=2), "two segments with the id 2"),
        (lambda v, a, s: s[0].update(category_id=8), "segment 300 of 1_map.png has category_id 8"),
        (lambda v, a, s: s[0].update(category_id=None), "has category_id None"),
        (lambda v, a, s: s[0].update(area="x"), "has area 'x'"),
        (lambda v, a, s: s[0].update(iscrowd="x"), "has iscrowd 'x'"),
        (lambda v, a, s: s.append(4), "segment number 4 of 1_map.png is 4"),
        (lambda v, a, s: a.update(segments_info=None), "has segments_info None"),
        (lambda v, a, s: a.update(file_name=""), "has file_name ''"),
        (lambda v, a, s: a.update(image_id=5), "has image_id 5, which no image has"),
        (lambda v, a, s: v["annotations"].append(a), "image 1 has two annotations"),
        (lambda v, a, s: v["images"].append({"id": 2, "file_name": "2.png"}), r"image 2 (2.png) has no annotation"),
        (lambda v, a, s: v.pop("categories"), "has no 'categories'"),
    ],
)
def test_faulty_records_are_named_in_one_line(tmp_path, change, says):
    panoptic(tmp_path, changed(change))
    with pytest.raises(DataError) as caught:
        open_panoptic(tmp_path, "val")
    assert says in str(caught.value)
    assert "panoptic_val2017.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_images_and_maps_are_named(tmp_path):
    panoptic(tmp_path)
    (tmp_path / "annotations/panoptic_val2017/1_map.png").unlink()
    with pytest.raises(DataError, match=r"panoptic maps of .* are not found, e\.g\. 1_map\.png"):
        open_panoptic(tmp_path, "val")
    (tmp_path / "val2017/1.png").unlink()
    with pytest.raises(DataError, match=r"images of .* are not found, e\.g\. 1\.png"):
        open_panoptic(tmp_path, "val")


def test_maps_are_never_taken_for_the_images(tmp_path):
    values = panoptic_content()
    values["annotations"][0]["file_name"] = "1.png"
    panoptic(tmp_path, values)
    save_map(tmp_path / "annotations/panoptic_val2017/1.png", panoptic_map())
    (tmp_path / "val2017/1.png").unlink()
    with pytest.raises(DataError, match="images of"):
        open_panoptic(tmp_path, "val")


def test_objects_and_segments_lie_side_by_side(tmp_path):
    panoptic(coco(tmp_path))
    assert len(open_objects(tmp_path, "val")) == 2
    assert len(open_panoptic(tmp_path, "val")) == 1


def test_the_other_kind_is_named(tmp_path):
    with pytest.raises(
        DataError, match="holds annotations of objects, none of panoptic segments; expected annotations/panoptic"
    ):
        open_panoptic(coco(tmp_path / "a"), "val")
    with pytest.raises(DataError, match="holds annotations of panoptic segments, none of objects"):
        open_objects(panoptic(tmp_path / "b"), "val")


def test_without_a_validation_part_one_is_drawn(tmp_path):
    values = panoptic_content()
    values["images"] = [values["images"][0] | {"id": id_, "file_name": f"{id_}.png"} for id_ in range(10)]
    values["annotations"] = [values["annotations"][0] | {"image_id": id_} for id_ in range(10)]
    write(tmp_path / "panoptic.json", values)
    save_map(tmp_path / "panoptic/1_map.png", panoptic_map())
    for id_ in range(10):
        image(tmp_path / f"images/{id_}.png")
    train, val = (open_panoptic(tmp_path, part, val_fraction=0.2) for part in ("train", "val"))
    assert (len(train), len(val)) == (8, 2)
    assert train.file is val.file  # read once
    assert not {train.key(index) for index in range(8)} & {val.key(index) for index in range(2)}
    with pytest.warns(VanNotice, match="names no validation data"):
        open_panoptic(tmp_path / "panoptic.json", "val")


def test_the_fingerprint_speaks_of_images_and_segments(tmp_path):
    before = open_panoptic(panoptic(tmp_path / "a"), "val").fingerprint()
    assert open_panoptic(panoptic(tmp_path / "b"), "val").fingerprint() == before
    other = changed(lambda v, a, s: s[0].update(category_id=7))
    assert open_panoptic(panoptic(tmp_path / "c", other), "val").fingerprint() != before
