"""What models of objects and segments give: values, entries of files, and pictures."""

import base64
import csv
import io
import json

import numpy as np
import pytest
from made_objects import made_found
from PIL import Image

from van.errors import ConfigError
from van.images import rle
from van.images.rle import Rle
from van.tasks.coco.drawing import on_ground, readable
from van.tasks.coco.output import ObjectPrediction, ObjectResults
from van.tasks.panoptic.metric import Segmented
from van.tasks.panoptic.output import PanopticPrediction, PanopticResults

CLASSES = ("cat", "dog", "grass")
PALETTE = ((255, 0, 0), (0, 0, 255), (0, 160, 0))
SIZE = (400, 500)
GRAY = (90, 90, 90)


def prediction(boxes=((40, 60, 240, 260), (300, 100, 480, 380)), labels=(0, 1), scores=(0.9, 0.5), **options):
    found = made_found(boxes, labels, scores, size=options.pop("size", SIZE))
    picture = Image.new("RGB", found.size[::-1], GRAY)
    return ObjectPrediction(
        image="cat.jpg", picture=picture, found=found, classes=CLASSES, palette=PALETTE, shown_from=0.3, **options
    )


def png(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def pixels(image, left, top):
    return np.asarray(image)[top, left].tolist()


class TestObjects:
    def test_values(self):
        result = prediction()
        assert result.boxes.shape == (2, 4)
        assert result.labels == ("cat", "dog")
        assert result.indices.tolist() == [0, 1]
        assert result.masks.shape == (2, *SIZE)
        assert result.masks.dtype == bool
        assert len(result) == 2
        assert repr(result) == "ObjectPrediction(image='cat.jpg', 400 x 500: 1 × cat, 1 × dog)"

    def test_an_entry_holds_everything(self):
        entry = json.loads(json.dumps(prediction().to_dict()))
        assert entry["image"] == "cat.jpg"
        assert entry["size"] == [400, 500]
        first = entry["objects"][0]
        assert [first[name] for name in ("label", "index", "box")] == ["cat", 0, [40, 60, 240, 260]]
        assert np.array_equal(rle.decode([Rle.read(first["mask"])], SIZE)[0], prediction().masks[0])

    def test_whoever_has_no_file_gets_each_mask_as_a_png(self):
        entry = json.loads(json.dumps(prediction().to_json()))
        for each, mask in zip(entry["objects"], prediction().masks, strict=True):
            assert np.array_equal(png(each["mask"]), mask)
        without = prediction().to_dict() | {
            "objects": [{**each, "mask": 0} for each in prediction().to_dict()["objects"]]
        }
        assert entry | {"objects": [{**each, "mask": 0} for each in entry["objects"]]} == without

    def test_rows_of_csv(self):
        rows = ObjectResults().rows(prediction().to_dict())
        assert rows[1][:3] == ("cat.jpg", "dog", 1)
        assert rows[1][4:] == (300, 100, 480, 380)
        assert len(rows[0]) == len(ObjectResults.columns)
        (empty,) = ObjectResults().rows(prediction((), (), ()).to_dict())  # the image is there, for --resume
        assert empty == ("cat.jpg", None, None, None, None, None, None, None)
        csv.writer(io.StringIO()).writerow(empty)

    def test_a_line_for_people(self):
        table = ObjectResults().table([prediction().to_dict(), prediction((), (), ()).to_dict()])
        assert [*table.rows] == [["cat.jpg", "1 × cat, 1 × dog", "cat 90.0%"], ["cat.jpg", "nothing", "—"]]

    def test_a_picture_has_boxes_in_the_colours_of_the_classes(self):
        drawn = prediction(opacity=0.0).draw()
        assert drawn.size == (500, 400)
        assert pixels(drawn, 40, 200) == [255, 0, 0]
        assert pixels(drawn, 479, 300) == [0, 0, 255]
        assert pixels(drawn, 20, 20) == [*GRAY]

    def test_a_picture_has_masks(self):
        drawn = prediction().draw(opacity=0.5)
        assert pixels(drawn, 140, 160) == [(255 + 90 + 1) // 2, 45, 45]
        assert pixels(prediction().draw(opacity=0.0), 140, 160) == [*GRAY]

    def test_a_picture_has_names_on_a_ground_of_the_colour(self):
        drawn = np.asarray(prediction(opacity=0.0).draw())
        above = drawn[40:60, 40:120].reshape(-1, 3).tolist()
        assert [255, 0, 0] in above
        assert [255, 255, 255] in above

    def test_unsure_objects_are_not_drawn_unless_asked_for(self):
        faint = prediction(scores=(0.9, 0.1))
        assert pixels(faint.draw(opacity=0.0), 479, 300) == [*GRAY]
        assert pixels(faint.draw(score_threshold=0.05, opacity=0.0), 479, 300) == [0, 0, 255]
        assert pixels(faint.draw(score_threshold=0.95, opacity=0.0), 40, 200) == [*GRAY]

    def test_a_small_image_is_enlarged_so_that_names_can_be_read(self):
        assert prediction(((5, 5, 20, 20),), (0,), (0.9,), size=(40, 60)).draw().size == (300, 200)
        assert readable(Image.new("L", (161, 20))) == 1

    def test_boxes_beyond_the_image_and_names_that_steer_terminals_are_drawn(self):
        wild = prediction(((-50, -20, 900, 700), (480, 390, 480, 390)), (0, 1), (0.9, 0.8))
        assert wild.draw().size == (500, 400)
        named = ObjectPrediction(
            image="x", picture=wild.picture, found=wild.found, classes=("a\x1b\n", "\u202eb"), palette=PALETTE
        )
        assert named.draw().size == (500, 400)

    def test_drawing_leaves_the_picture_as_it_is(self):
        result = prediction()
        result.draw()
        assert np.unique(np.asarray(result.picture)).tolist() == [90]

    def test_an_opacity_that_cannot_be(self):
        with pytest.raises(ConfigError, match="opacity is 2; expected 0"):
            prediction().draw(opacity=2)

    def test_saving_writes_the_picture(self, tmp_path):
        entry = prediction().save(tmp_path / "new", "cat")
        assert entry["picture"] == str(tmp_path / "new" / "cat-objects.png")
        assert Image.open(entry["picture"]).size == (500, 400)

    def test_letters_can_be_read_on_any_ground(self):
        assert on_ground((250, 240, 30)) == "black"
        assert on_ground((30, 20, 90)) == "white"


def segmented():
    ids = np.zeros(SIZE, np.int32)
    ids[:, 100:300], ids[:, 300:] = 1, 2
    return PanopticPrediction(
        image="cat.jpg",
        picture=Image.new("RGB", (500, 400), GRAY),
        found=Segmented(segment_ids=ids, labels=(0, 2), scores=(0.75, 0.5)),
        classes=CLASSES,
        palette=PALETTE,
        num_things=2,
    )


class TestSegments:
    def test_whoever_has_no_file_gets_the_ids_as_a_png(self):
        entry = json.loads(json.dumps(segmented().to_json()))
        assert np.array_equal(png(entry["mask"]), segmented().segment_ids)
        assert entry["segments"] == [
            {name: value for name, value in each.items() if name != "mask"}
            for each in segmented().to_dict()["segments"]
        ]

    def test_values(self):
        first, second = segmented().segments
        assert (first.id, first.label, first.index, first.score, first.thing, first.area) == (
            1,
            "cat",
            0,
            0.75,
            True,
            200 * 400,
        )
        assert (second.label, second.thing) == ("grass", False)
        assert repr(segmented()) == "PanopticPrediction(image='cat.jpg', 400 x 500: 1 × cat, 1 × grass)"

    def test_an_entry_holds_everything(self):
        entry = json.loads(json.dumps(segmented().to_dict()))
        masks = [rle.decode([Rle.read(each["mask"])], SIZE)[0] for each in entry["segments"]]
        assert np.array_equal(masks[0] + 2 * masks[1], segmented().segment_ids)

    def test_rows_of_csv(self):
        rows = PanopticResults().rows(segmented().to_dict())
        assert rows[0] == ("cat.jpg", 1, "cat", 0, 0.75, True, 80000)
        nothing = {"image": "cat.jpg", "size": [1, 1], "segments": []}
        assert PanopticResults().rows(nothing) == [("cat.jpg", *[None] * 6)]

    def test_a_picture_has_colours_borders_and_a_legend(self):
        drawn = segmented().draw()
        assert drawn.width > 500
        assert drawn.height == 400
        assert pixels(drawn, 200, 200) == [173, 45, 45]
        assert pixels(drawn, 50, 200) == [*GRAY]  # nothing is known there
        assert pixels(drawn, 300, 200) == [255, 255, 255]
        assert [0, 160, 0] in np.asarray(drawn)[:, 500:].reshape(-1, 3).tolist()
        assert segmented().overlay(legend=False).size == (500, 400)

    def test_saving_writes_the_picture_and_the_ids(self, tmp_path):
        entry = segmented().save(tmp_path, "cat")
        assert Image.open(entry["overlay"]).height == 400
        assert np.array_equal(np.asarray(Image.open(entry["map"]))[..., 0], segmented().segment_ids)
