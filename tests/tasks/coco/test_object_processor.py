"""From an image to objects, by small networks that have not learned to find any."""

import numpy as np
import pytest
import torch
from fake_objects import fake_model
from PIL import Image

import van
from van.data.object_scenes import SceneObjects
from van.data.scenes import Scenes
from van.errors import ConfigError, DataError
from van.images.sources import ImageSource
from van.inference.session import open_session
from van.tasks import parse_options


def picture(height=70, width=100, seed=0):
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (5, 7, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def found(task, image=None, *, model_options=None, **options):
    predictor = van.Predictor(fake_model(task, **(model_options or {})), **options)
    return predictor(picture() if image is None else image)


def test_boxes_are_in_the_pixels_of_the_image():
    model = fake_model("detection")
    result = van.Predictor(model)(picture())
    processor = open_session(model).processor()
    (seen,) = processor.inputs(picture())
    assert seen.shape == (3, 64, 96)  # 64 x 91 pixels, padded
    with torch.inference_mode():
        raw = model.raw(torch.from_numpy(seen)[None])
    scores = raw["scores"][0].max(1).values
    best = raw["boxes"][0][scores.argmax()].clamp_min(0)
    expected = torch.minimum(best, torch.tensor([91.0, 64, 91, 64])) * torch.tensor([100 / 91, 70 / 64] * 2)
    assert np.allclose(result.boxes[0], expected.numpy(), atol=1e-4)
    assert result.scores[0] == pytest.approx(float(scores.max()))
    assert (np.diff(result.scores) <= 0).all()
    assert result.labels == tuple(str(index) for index in result.indices)
    assert result.masks is None


@pytest.mark.parametrize("boxed", [True, False])
def test_masks_have_the_size_of_the_image(boxed):
    result = found("instance", model_options={"boxed": boxed})
    assert result.masks.shape == (len(result), 70, 100)
    assert result.masks.dtype == bool
    assert result.masks.any((1, 2)).all()
    rows, columns = np.mgrid[:70, :100]
    for mask, (left, top, right, bottom) in zip(result.masks, result.boxes, strict=True):
        inside = (columns >= left - 3) & (columns < right + 3) & (rows >= top - 3) & (rows < bottom + 3)
        assert not (mask & ~inside).any()


def test_a_threshold_and_a_limit():
    everything = found("detection")
    some = found("detection", score_threshold=0.8)
    assert 0 < len(some) < len(everything)
    assert some.scores.min() >= 0.8
    assert np.array_equal(found("detection", max_detections=3).boxes, everything.boxes[:3])


def test_a_size_is_what_the_network_gets():
    predictor = van.Predictor(fake_model("detection"), size=(32, 128))
    (seen,) = predictor.processor.inputs(picture())
    assert seen.shape == (3, 32, 64)  # 32 x 45 pixels, padded


@pytest.mark.parametrize("task", ["detection", "instance"])
def test_mirrored_views_give_mirrored_results(task):
    """With both views, an image and its mirror image have the same objects, mirrored."""
    image = picture(64, 90)  # padded at the right, so that both views have scores of their own
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    one, other = found(task, image, flip=True), found(task, mirrored, flip=True)
    back = other.boxes[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1]) + np.array([90, 0, 90, 0])
    assert np.array_equal(one.scores, other.scores)
    assert np.array_equal(one.indices, other.indices)
    assert np.allclose(one.boxes, back, atol=1e-3)
    assert not np.array_equal(one.scores, found(task, image).scores)
    if task == "instance":
        assert (one.masks == other.masks[..., ::-1]).mean() > 0.99  # boxes are cut to whole pixels from the left


def test_several_scales_find_what_one_of_them_finds():
    small, large = (found("detection", scales=(scale,)) for scale in (1.0, 2.0))
    both = found("detection", scales=(1.0, 2.0))
    pool = {tuple(box) for each in (small, large) for box in each.boxes.round(3).tolist()}
    assert {tuple(box) for box in both.boxes.round(3).tolist()} <= pool
    assert both.scores[0] == max(small.scores[0], large.scores[0])


def test_results_do_not_depend_on_the_images_beside_them():
    images = [picture(70, 100, 1), picture(100, 60, 2), picture(64, 64, 3)]
    predictor = van.Predictor(fake_model("instance"))
    together = predictor(images)
    for image, each in zip(images, together, strict=True):
        alone = predictor(image)
        assert np.array_equal(alone.boxes, each.boxes)
        assert alone.found.masks == each.found.masks


def test_outputs_that_are_no_numbers_are_refused():
    model = fake_model("instance")
    torch.nn.init.constant_(model.head.bias, float("nan"))
    with pytest.raises(DataError, match="are no numbers"):
        van.Predictor(model)(picture())
    evaluation = van.evaluate(model, SceneObjects(Scenes(count=3)))
    assert evaluation["AP"] == 0
    assert evaluation.non_finite == evaluation.count
    assert "for 3 of 3 images" in evaluation.notes()[0]


def test_panoptic_segments_cover_the_image():
    result = found("panoptic")
    assert result.segment_ids.shape == (70, 100)
    assert result.segment_ids.dtype == np.int32
    assert [each.id for each in result.segments] == list(range(1, len(result.segments) + 1))
    assert sum(each.area for each in result.segments) == (result.segment_ids > 0).sum() > 0
    assert all(each.thing == (each.label != "background") for each in result.segments)


def test_options_of_views_are_refused_for_panoptic_models():
    with pytest.raises(ConfigError, match="flip belongs to"):
        found("panoptic", flip=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": 1.5}, "expected a probability"),
        ({"max_detections": 0}, "at least 1"),
        ({"scales": (0,)}, "positive factors"),
        ({"size": 0}, "expected pixels"),
        ({"opacity": 2}, "expected 0"),
        ({"window": 5}, "window belongs to segmenters"),
        ({"nonsense": 5}, "unknown option"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        found("detection", **options)


def test_how_images_are_prepared_is_part_of_a_file_of_results():
    task, model = "detection", fake_model("detection")
    session = open_session(
        model, parse=lambda task, name: parse_options(task.predict_options, {"flip": True}, task=task, name=name)
    )
    assert session.task.name == task
    facts = session.processor().facts()
    assert facts["preprocess"]["min_size"] == 64
    assert facts["preprocess"]["flip"] is True
    assert facts["score_threshold"] == 0.05


def test_a_result_knows_its_image():
    processor = open_session(fake_model("detection")).processor()
    prepared = processor.prepare(picture())
    raw = processor.run(open_session(fake_model("detection")).engine, [prepared])[0]
    result = processor.output(raw, prepared, ImageSource(picture(), "cat.jpg"))
    assert result.image == "cat.jpg"
    assert result.picture.size == (100, 70)
