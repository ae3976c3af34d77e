"""What a page shows of a result of any task: what is painted over the image, and the parts with their colours."""

import numpy as np
import pytest
from fake_objects import fake_model
from made_objects import made_found
from PIL import Image

import van
from van.data.scenes import Scenes
from van.tasks.classification.output import Prediction
from van.tasks.coco.output import ObjectPrediction
from van.tasks.results import Finding, Output
from van.tasks.segmentation.output import MaskPrediction

PALETTE = ((0, 0, 0), (200, 30, 40), (10, 220, 90))


def picture(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def mask_prediction():
    mask = np.array([[2, 2, 0], [2, 1, 0]])
    return MaskPrediction(image="x", picture=picture(3, 2), mask=mask, classes=("sky", "road", "tree"), palette=PALETTE)


def object_prediction(masks=True):
    found = made_found([(10, 20, 90, 80), (100, 30, 180, 150)], [2, 1], [0.4, 0.9])
    if not masks:
        found = type(found)(size=found.size, boxes=found.boxes, labels=found.labels, scores=found.scores, masks=None)
    return ObjectPrediction(
        image="x", picture=picture(256, 192), found=found, classes=("a", "b", "c"), palette=PALETTE, shown_from=0.5
    )


def panoptic_prediction():
    return van.Predictor(fake_model("panoptic"))(Scenes("val").load(0)[0])


@pytest.mark.parametrize("make", [mask_prediction, object_prediction, panoptic_prediction])
def test_what_is_painted_is_linear_in_its_opacity(make):
    output = make()
    bare, full, mixed = (np.asarray(output.overlay(o, legend=False), np.float32) for o in (0.0, 1.0, 0.25))
    assert np.abs(bare - full).max() > 50
    assert np.abs(0.75 * bare + 0.25 * full - mixed).max() <= 1


def test_boxes_without_masks_are_drawn_in_full_whatever_the_opacity():
    output = object_prediction(masks=False)
    assert output.overlay(0.0) == output.overlay(1.0) != output.picture


def test_a_classifier_paints_nothing_and_finds_its_likeliest_classes():
    prediction = Prediction(image="x", top=(("cat", 1, 0.75), ("dog", 0, 0.25)))
    assert prediction.overlay() is None
    assert prediction.findings() == (Finding("cat", 0.75), Finding("dog", 0.25))
    assert prediction.measure == "probability"


def test_a_segmenter_finds_shares_in_the_colours_that_it_paints():
    output = mask_prediction()
    assert output.findings()[0] == Finding("tree", 0.5, PALETTE[2])
    assert [each.label for each in output.findings()] == ["tree", "sky", "road"]
    assert output.overlay(1.0, legend=False).getpixel((0, 0)) == PALETTE[2]
    assert output.measure == "share of the pixels"


def test_a_detector_finds_the_objects_that_it_draws():
    output = object_prediction()
    assert [(each.label, each.color) for each in output.findings()] == [("b", PALETTE[1])]
    assert output.findings()[0].score == pytest.approx(0.9)


def test_a_panoptic_segmenter_finds_its_largest_segment_first():
    output = panoptic_prediction()
    largest = max(output.segments, key=lambda each: each.area)
    first = output.findings()[0]
    assert (first.label, first.score) == (largest.label, pytest.approx(largest.score))
    assert first.color == tuple(output.palette[largest.index])
    assert len(output.findings()) == len(output.segments)


def test_a_task_that_says_nothing_paints_nothing_and_finds_its_leading_class():
    class Tag(Output):
        image = "x"

        def to_dict(self):
            return {}

        def draw(self):
            return Image.new("RGB", (1, 1))

        def leading(self):
            return "cat", 1, 0.5

    assert Tag().overlay() is None
    assert Tag().findings() == (Finding("cat", 0.5),)
