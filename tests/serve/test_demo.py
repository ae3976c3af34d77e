"""The demo page's parts without a browser: models, examples, uploads, answers, layers, panels."""

import io
import re
import socket
from dataclasses import replace

import numpy as np
import pytest
from exported import picture, segmenter
from fake_objects import fake_model
from networks import tiny
from PIL import Image
from torchvision_detectors import tiny as tiny_detector

import van
from van.cli import main
from van.configs.metadata import ModelMetadata
from van.errors import ConfigError, DataError
from van.images.preprocess import Preprocess
from van.serve.demo.answers import Limits, answers, read_upload
from van.serve.demo.examples import examples_for, plain_image
from van.serve.demo.layers import LONGEST, data_address, layers
from van.serve.demo.models import checkpoints_or_quickstart, open_predictors, short_names, warmed_up
from van.serve.demo.panels import SHOWN, alert, panel, panels
from van.serve.demo.start import free_address

NAMES = ("<b>cat", "dog", "hen", "ox", "bee")


def classifier(**provenance):
    model = tiny().eval()
    model.metadata = ModelMetadata(classes=NAMES, preprocess=Preprocess(size=(32, 32)), provenance=provenance)
    return model


@pytest.fixture(scope="module")
def classifies():
    return warmed_up("animals", van.Predictor(classifier()), plain_image())


@pytest.fixture(scope="module")
def segments():
    return warmed_up("areas", van.Predictor(segmenter()), plain_image())


def final(models, image):
    return list(answers(models, image))[-1]


def pixels(address):
    head, text = address.split(",")
    import base64

    return head, Image.open(io.BytesIO(base64.b64decode(text)))


def test_models_say_what_the_page_can_show(classifies, segments):
    assert (classifies.paints, classifies.stages) == (False, 4)
    assert (segments.paints, segments.stages) == (True, 4)
    assert classifies.kind == "classifier, torch"
    assert (classifies.stage, segments.stage) == (2, 3)  # 32 pixels: maps of 8, 4, 2 and 1 a side; 64: of 16, 8, 4, 2


def test_a_classifier_lists_five_classes(tmp_path):
    model = tiny(num_classes=9).eval()
    model.metadata = ModelMetadata(preprocess=Preprocess(size=(32, 32)))
    van.save(model, tmp_path / "x.safetensors")
    [predictor] = open_predictors([str(tmp_path / "x.safetensors")]).values()
    assert len(predictor(plain_image()).top) == 5


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/model.safetensors"], ["model.safetensors"]),
        (["a/model.safetensors", "b/model.safetensors"], ["a/model.safetensors", "b/model.safetensors"]),
        (["x/a/m.onnx", "y/a/m.onnx", "n.pt"], ["x/a/m.onnx", "y/a/m.onnx", "n.pt"]),
    ],
)
def test_names_are_as_short_as_tells_them_apart(paths, names):
    assert short_names(paths) == names


def test_without_a_checkpoint_the_quickstarts_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"quickstart/model\.safetensors here; name one, or .* make quickstart"):
        checkpoints_or_quickstart([])
    (tmp_path / "quickstart").mkdir()
    (tmp_path / "quickstart" / "model.safetensors").touch()
    assert checkpoints_or_quickstart([]) == ["quickstart/model.safetensors"]
    assert checkpoints_or_quickstart(["a", "b", "a"]) == ["a", "b"]


@pytest.mark.long
def test_examples_are_of_the_embedded_data_that_a_model_was_trained_on():
    digits = examples_for(van.Predictor(classifier(data="digits")).opened)
    assert {each.image.size for each in digits} == {(8, 8)}
    model = fake_model("detection")
    model.provenance = {"data": "scenes", "split": {"scene_size": 48, "seed": None}}
    scenes = examples_for(van.Predictor(model).opened)
    assert {each.image.size for each in scenes} == {(48, 48)}
    assert [each.name for each in scenes] == [f"Scene {number}" for number in range(1, 7)]


def test_examples_of_other_models_are_photographs():
    names = [each.name for each in examples_for(van.Predictor(classifier(data="/somewhere")).opened)]
    assert names == ["China", "Flower"]


def test_an_upload_is_read_as_it_is_seen(tmp_path):
    image = picture(20, 30)
    exif = Image.Exif()
    exif[274] = 6  # turned by 90 degrees
    image.save(tmp_path / "x.png", exif=exif)
    assert read_upload(tmp_path / "x.png", "x.png", Limits()).size == (20, 30)
    assert read_upload(tmp_path / "x.png", "x.png", Limits(), exif=False).size == (30, 20)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(max_bytes=10), r"mine\.png has [\d,]+ bytes; expected at most 10"),
        (Limits(max_pixels=599), r"mine\.png has 30 x 20 pixels; expected at most 599 in all"),
    ],
)
def test_an_upload_that_is_too_large_is_refused(tmp_path, limits, message):
    picture(20, 30).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=message):
        read_upload(tmp_path / "x.png", "mine.png", limits)


def test_a_file_that_is_no_image_is_named_as_the_user_knows_it(tmp_path):
    (tmp_path / "cached").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"mine\.png cannot be read as an image") as found:
        read_upload(tmp_path / "cached", "mine.png", Limits())
    assert str(tmp_path) not in str(found.value)


def test_results_come_first_and_explanations_one_after_the_other(classifies, segments):
    steps = list(answers([classifies, segments], picture()))
    assert [[each.output is not None for each in step] for step in steps] == [[True, True]] * 3
    assert [[each.explanation is not None for each in step] for step in steps] == [
        [False, False],
        [True, False],
        [True, True],
    ]
    assert all(each.network_ms > 0 and each.explain_ms > 0 for each in steps[-1])


def test_an_image_in_which_nothing_is_found_is_not_taken_for_a_model_that_cannot_be_explained():
    found = warmed_up("boxes", van.Predictor(tiny_detector("mask_rcnn_van_b0", score_threshold=0.99)), plain_image())
    assert (found.explainer is not None, found.stages) == (True, 4)
    [answer] = final([found], picture())
    assert "Nothing was found" in panel(answer)
    assert "No explanation" in panel(answer)


def test_an_answer_is_that_of_the_predictor(classifies):
    [answer] = final([classifies], picture())
    assert answer.output.top == classifies.predictor(picture()).top


def test_a_model_that_cannot_be_explained_says_why():
    silent = warmed_up("boxes", van.Predictor(fake_model("detection")), plain_image())  # its backbone does not run
    assert (silent.explainer, silent.stages, silent.paints) == (None, 0, True)
    [answer] = final([replace(silent, unexplained=f"<{silent.unexplained}>")], picture())
    assert "No explanation: &lt;FakeModel does not run its last stage" in panel(answer)
    assert "data-stage" not in panel(answer)


def test_a_model_that_makes_nothing_of_an_image_does_not_keep_the_other_from_its_answer(classifies, segments):
    broken = tiny().eval()
    broken.head.weight.data.fill_(float("nan"))
    broken.metadata = ModelMetadata(preprocess=Preprocess(size=(32, 32)))
    failing = replace(classifies, predictor=van.Predictor(broken))
    first, second = final([failing, segments], picture())
    assert first.output is None
    assert second.output is not None
    assert 'role="alert"' in panel(first)
    assert "van-bars" in panel(second)


def test_layers_hold_the_image_the_result_and_every_explanation(segments):
    [answer] = final([segments], picture())
    found = list(layers(answer))
    assert [(each.view, each.stage, each.fades) for each in found] == [
        ("", 0, False),
        ("result", 0, False),
        ("result", 0, True),
        ("explained", 0, False),
        ("cam", 0, True),
        *[("attention", stage, True) for stage in (1, 2, 3, 4)],
    ]
    assert all(each.alt for each in found if each.view not in ("result", "explained"))
    assert found[0].picture == picture()
    assert np.array_equal(found[2].picture, answer.output.overlay(1.0, legend=False))


def test_explanations_can_be_mixed_by_the_browser(classifies):
    [answer] = final([classifies], picture())
    for draw in (answer.explanation.draw_cam, lambda opacity: answer.explanation.draw_attention(2, opacity)):
        bare, full, mixed = (np.asarray(draw(o), np.float32) for o in (0.0, 1.0, 0.25))
        assert np.abs(0.75 * bare + 0.25 * full - mixed).max() <= 1
        assert np.array_equal(bare, answer.explanation.draw_cam(0.0))  # one ground for all


def test_small_pictures_stay_exact_and_large_ones_are_reduced():
    head, small = pixels(data_address(picture(40, 60)))
    assert head == "data:image/png;base64"
    assert np.array_equal(small, picture(40, 60))
    head, large = pixels(data_address(Image.new("RGB", (4000, 2000), "red")))
    assert head == "data:image/jpeg;base64"
    assert large.size == (LONGEST, LONGEST // 2)


def test_names_of_classes_and_models_are_no_markup(classifies):
    [answer] = final([replace(classifies, name="<i>m")], picture())
    text = panel(answer)
    assert "<b>cat" not in text
    assert "<i>m" not in text
    assert "&lt;b&gt;cat" in text
    assert "&lt;script&gt;" in alert("<script>")


def test_bars_show_label_score_and_colour(segments):
    [answer] = final([segments], picture())
    finding = answer.output.findings()[0]
    text = panel(answer)
    assert f"background:rgb{finding.color}" in text
    assert f"{finding.score:.1%}" in text
    assert "Share of the pixels" in text


def test_a_long_list_is_cut_and_says_so(classifies):
    model = fake_model("detection")
    busy = replace(classifies, predictor=van.Predictor(model, score_threshold=0.0), explainer=None)
    [answer] = final([busy], picture(200, 300))
    count = len(answer.output.findings())
    assert count > SHOWN
    assert panel(answer).count("<li>") == SHOWN
    assert f"and {count - SHOWN} more" in panel(answer)


def test_panels_say_how_many_they_are(classifies, segments):
    assert 'data-count="2"' in panels(final([classifies, segments], picture()))


def test_times_are_in_milliseconds(classifies):
    [answer] = final([classifies], picture())
    assert re.search(
        r"Preparing <b>\d+\.\d&nbsp;ms</b>, network <b>\d+\.\d&nbsp;ms</b>, explanation <b>", panel(answer)
    )


def test_a_port_in_use_is_refused_and_zero_finds_one():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            free_address("127.0.0.1", port)
    assert free_address("127.0.0.1", 0) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "--port is 70000; expected 0 to 65535"),
        (["--max-pixels", "0"], "--max-pixels is 0; expected at least 1"),
        (["--share"], "unrecognized arguments: --share"),
        (["nosuch.safetensors", "--port", "0"], "no such file or folder: nosuch.safetensors"),
    ],
)
def test_wrong_options_are_one_line(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert main(["demo", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_extra_is_named(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["demo", "x.safetensors"]) == 2
    assert "pip install 'visual-attention-network[demo]'" in capsys.readouterr().err


class TestPage:
    """What needs Gradio, not a browser."""

    @pytest.fixture(autouse=True)
    def gradio(self):
        pytest.importorskip("gradio")

    @staticmethod
    def shown(models, upload, *names, limits=None):
        from van.serve.demo.page import show

        return list(show(models, limits or Limits(), True, upload, *names))

    def test_without_an_image_it_asks_for_one(self, classifies):
        [text] = self.shown({"a": classifies}, None, "a", "none")
        assert "Add an image" in text

    def test_it_shows_the_chosen_models_each_once(self, classifies, segments, tmp_path):
        picture().save(tmp_path / "x.png")
        upload, models = {"path": str(tmp_path / "x.png"), "orig_name": "x.png"}, {"a": classifies, "b": segments}
        assert self.shown(models, upload, "a", "b")[-1].count("<section") == 2
        assert self.shown(models, upload, "a", "a")[-1].count("<section") == 1
        assert self.shown(models, upload, "b", "none")[-1].count("<section") == 1

    def test_a_bad_file_is_a_message(self, classifies, tmp_path):
        (tmp_path / "x").write_bytes(b"no image")
        [text] = self.shown({"a": classifies}, {"path": str(tmp_path / "x"), "orig_name": "x.png"}, "a", "none")
        assert 'role="alert"' in text
        assert "x.png cannot be read as an image" in text

    def test_views_are_those_of_the_models(self, classifies, segments):
        from van.serve.demo.page import build

        def views(*models):
            page = build({model.name: model for model in models}, [], Limits())
            [radio] = [each for each in page.blocks.values() if each.elem_id == "van-view"]
            return [value for _, value in radio.choices]

        assert views(classifies) == ["attention", "cam", "image"]
        assert views(classifies, segments) == ["result", "attention", "cam", "image"]
        assert views(replace(segments, stages=0)) == ["result", "image"]

    def test_nothing_of_an_event_can_be_called_by_other_programs(self, classifies):
        from van.serve.demo.page import build

        page = build({"a": classifies}, [], Limits())
        assert {each.api_visibility for each in page.fns.values()} == {"private"}
