"""The arguments and functions that users of keras.applications and keras-hub expect, on KERAS_BACKEND's backend."""

import json
import shutil
import urllib.error

import numpy as np
import pytest
from keras_case import images_of, keras, near, run, small_images, tiny_file
from keras_networks import TINY

from van.errors import CheckpointError, ConfigError, DataError
from van.images.preprocess import IMAGENET, OFFICIAL
from van.keras import (
    VAN,
    VANBackbone,
    VANImageClassifier,
    VANImageConverter,
    decode_predictions,
    preprocess_input,
    presets,
    save,
)

SIZES = {"embed_dims": TINY.embed_dims, "depths": TINY.depths, "mlp_ratios": TINY.mlp_ratios}
LAST, FIRST = "channels_last", "channels_first"


def same_outputs(one, two):
    return np.array_equal(run(one, images_of(sides=(32, 32))), run(two, images_of(sides=(32, 32))))


# Weights by name


@pytest.mark.promise("19")
def test_imagenet_weights_are_the_published_ones(tmp_path, monkeypatch):
    asked = []

    def fetch(name, url, **options):
        asked.append(url)
        raise urllib.error.URLError("no route\nto host")

    monkeypatch.setattr(keras.utils, "get_file", fetch)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "imagenet").mkdir()
    monkeypatch.chdir(tmp_path)  # a data set of that name is no checkpoint
    for options in ({"weights": "imagenet"}, {"pretrained": True}):
        with pytest.raises(CheckpointError) as caught:
            VAN("van_b1", **options)
        assert "\n" not in str(caught.value)
        assert f"download {asked[-1]} elsewhere and save it as {tmp_path}/models/van/van_b1.h5" in str(caught.value)
        assert "weights='van_b1.h5'" in str(caught.value)
    assert asked[-1].endswith("/van_b1.h5")
    with pytest.raises(ConfigError, match="no ImageNet-1K weights were published for van_b6"):
        VAN("van_b6", weights="imagenet")


# Heads


@pytest.mark.promise("19")
def test_classes_is_a_number_or_names():
    assert VAN(**SIZES, classes=10).output_shape == (None, 10)
    assert VAN(**SIZES, classes=np.int64(10)).get_config()["num_classes"] == 10
    named = VAN(**SIZES, classes=["cat", "dog"])
    assert (named.output_shape, named.classes) == ((None, 2), ("cat", "dog"))


@pytest.mark.promise("19")
@pytest.mark.parametrize("data_format", [LAST, FIRST])
def test_a_classifier_stands_on_a_backbone_and_shares_it(tmp_path, data_format):
    backbone = VANBackbone(weights=tiny_file(tmp_path), data_format=data_format, preprocess=IMAGENET)
    model = VANImageClassifier(backbone=backbone, classes=["a", "b"], classifier_activation="softmax")
    assert model.get_layer("block2_1") is backbone.get_layer("block2_1")
    assert [layer.name for layer in model.layers[-3:]] == ["pool", "head", "pred"]
    assert (model.output_shape, model.preprocess) == ((None, 2), IMAGENET)
    x = images_of() if data_format == FIRST else images_of().transpose(0, 2, 3, 1)
    near(*(keras.ops.convert_to_numpy(each(x, training=False)) for each in (model.backbone, backbone)), 0)
    model.save(tmp_path / "m.keras")
    assert same_outputs(keras.saving.load_model(tmp_path / "m.keras"), model)
    assert VANImageClassifier(backbone, num_classes=5, pooling="max").output_shape == (None, 5)


@pytest.mark.promise("19")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "needs num_classes, or classes"),
        ({"num_classes": 2, "include_top": False}, "needs num_classes"),
        ({"num_classes": 2, "weights": "x"}, "weights='x' was given and a backbone"),
        ({"num_classes": 2, "depths": (1, 1, 1, 1)}, "depths=.* was given and a backbone"),
        ({"num_classes": 2, "data_format": FIRST}, "data_format=.*leave one of them out"),
    ],
)
def test_what_a_backbone_settles_is_not_given_again(options, told):
    with pytest.raises(ConfigError, match=told):
        VANImageClassifier(backbone=VANBackbone(**SIZES), **options)


# The images


@pytest.mark.promise("19")
def test_input_tensor_is_where_the_images_come_from(tmp_path):
    plain = VAN(**SIZES, num_classes=7)
    start = keras.Input((32, 32, 3), name="photos")
    assert VAN(**SIZES, input_tensor=start).layers[0].name == "photos"
    model = VAN(**SIZES, num_classes=7, input_tensor=keras.layers.Rescaling(2.0)(start))
    model.set_weights(plain.get_weights())
    want = run(plain, 2 * images_of(sides=(32, 32)))
    near(run(model, images_of(sides=(32, 32))), want)
    model.save(tmp_path / "m.keras")
    again = VAN.from_config(json.loads(json.dumps(model.get_config())))
    again.set_weights(model.get_weights())
    for back in (keras.saving.load_model(tmp_path / "m.keras"), again):
        assert [layer.name for layer in back.layers] == [layer.name for layer in model.layers]
        near(run(back, images_of(sides=(32, 32))), want)
    save(model, tmp_path / "m.safetensors", format="van")
    near(run(VAN(weights=tmp_path / "m.safetensors"), 2 * images_of(sides=(32, 32))), want)


@pytest.mark.promise("19")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"input_shape": (3, 224, 224)}, r"looks like \(channels, height, width\).*or in_chans=224 if that is meant"),
        ({"input_shape": (3, None, None)}, "pass data_format='channels_first'$"),
        ({"input_shape": (224, 224, 3), "data_format": FIRST}, "pass data_format='channels_last'"),
        ({"input_shape": (None, None, None)}, "with the number of channels"),
        ({"input_tensor": (3, 32, 32)}, "input_tensor is a tuple; expected a Keras tensor"),
        ({"input_tensor": "first"}, r"input_tensor is \(3, 64, 64\).*looks like"),
        ({"input_tensor": "last", "input_shape": (32, 32, 3)}, r"input_tensor has images of \(64, 64, 3\)"),
        ({"input_tensor": "last", "in_chans": 1}, "has 3 channels, in_chans is 1"),
    ],
)
def test_images_of_the_other_layout_and_contradictions_are_refused(options, told):
    tensors = {"first": keras.Input((3, 64, 64)), "last": keras.Input((64, 64, 3))}
    given = options.get("input_tensor")
    options = {**options, "input_tensor": tensors.get(given, given) if isinstance(given, str) else given}
    options.setdefault("data_format", LAST)
    with pytest.raises(ConfigError, match=told) as caught:
        VAN(**SIZES, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.promise("19")
def test_unusual_channels_can_be_meant():
    assert VAN(**SIZES, input_shape=(3, 32, 12), in_chans=12, data_format=LAST).input_shape == (None, 3, 32, 12)
    assert VAN(**SIZES, input_shape=(32, 32, 12), data_format=LAST).config.in_chans == 12


# Wrong types


WRONG = {
    "configuration": [5, ["van_b0"], ""],
    "weights": [5, True, b"x", ""],
    "include_top": ["yes", None, 1],
    "pretrained": ["yes"],
    "ema": ["yes"],
    "trainable": ["yes"],
    "classifier_activation": [3, "nonsense"],
    "pooling": [3, ["avg"]],
    "num_classes": ["10", 2.5, True, -1],
    "classes": ["abc", [1, 2], 3.5, True, {"a": 1}],
    "in_chans": ["3", 1.5],
    "embed_dims": [5, "abc", (8, None, 16, 32), (8, 16, "x", 32)],
    "depths": [3, (1, 1, 1.5, 1)],
    "mlp_ratios": ["x", 4, (4, 4, "4", 4)],
    "num_stages": ["4", 2.5],
    "drop_rate": ["x"],
    "drop_path_rate": [[0.1]],
    "data_format": [3, [LAST]],
    "img_resolution": ["224", 2.5, True, (1, 2, 3)],
    "input_shape": [224, "abc", ("a", 2, 3), (2.5, 224, 3), (True, 2, 3)],
    "preprocess": [3, "imagenet"],
    "name": [3, "a/b"],
    "dtype": [3, "nonsense"],
    "backbone": [3, "van_b0"],
    "attention": [3],
    "kernel_size": ["x"],
    "layer_norm_eps": ["x"],
    "norm_eval": ["x"],
    "frozen_stages": ["x"],
    "patch_sizes": [3],
    "head_drop_rate": ["x"],
}


@pytest.mark.promise("19")
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_types_are_value_errors_on_one_line(name, value):
    alone = name in (*SIZES, "configuration", "num_stages")
    with pytest.raises(ConfigError) as caught:
        VAN(**{**({} if alone else SIZES), name: value})
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.promise("19")
@pytest.mark.parametrize(
    ("name", "ours"),
    [("activation", "classifier_activation"), ("dropout", "head_drop_rate"), ("preprocessor", "preprocess")],
)
def test_keras_hubs_names_lead_to_ours(name, ours):
    with pytest.raises(ConfigError, match=f"{name} is not an argument of VAN; use {ours}"):
        VAN(**SIZES, **{name: "x"})


# The functions beside the networks


@pytest.mark.promise("19")
def test_preprocess_input_is_the_records_mean_and_deviation():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    near(preprocess_input(pixels, LAST), pixels / 127.5 - 1, 1e-6)
    first = preprocess_input(pixels.transpose(0, 3, 1, 2), data_format=FIRST, preprocess=IMAGENET)
    want = (pixels / 255 - IMAGENET.mean) / IMAGENET.std
    near(first.transpose(0, 2, 3, 1), want, 1e-6)
    near(keras.ops.convert_to_numpy(preprocess_input(keras.ops.array(pixels), LAST, IMAGENET.to_dict())), want, 1e-5)
    assert preprocess_input(pixels[0], LAST).dtype == np.float32
    with pytest.raises(ConfigError, match="expected 3 channels"):
        preprocess_input(pixels[..., :2], LAST)


@pytest.mark.promise("19")
def test_predictions_are_decoded():
    pytest.importorskip("timm")
    from van.inference.class_names import class_names

    scores = np.zeros((2, 1000), np.float32)
    scores[0, [1, 281]] = 0.25, 0.75
    scores[1, 0] = 1
    (first, second) = decode_predictions(scores, top=2)
    assert first == [
        ("n02123045", class_names("imagenet-1k", 1000)[281], 0.75),
        ("n01443537", "goldfish, Carassius auratus", 0.25),
    ]
    assert second[0][0] == "n01440764"
    assert decode_predictions(keras.ops.array([[0.25, 0.75]]), classes=["cat", "dog"]) == [
        [("1", "dog", 0.75), ("0", "cat", 0.25)]
    ]
    for options, told in (
        ({}, "pass classes=model.classes"),
        ({"classes": ["a"]}, "one name for each"),
        ({"top": 0}, "top is 0"),
    ):
        with pytest.raises(ConfigError, match=told):
            decode_predictions(np.zeros((1, 2)), **options)


@pytest.mark.promise("19")
def test_without_any_names_the_error_says_what_to_fetch(monkeypatch):
    def fetch(*args, **options):
        raise urllib.error.URLError("no route\nto host")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(keras.utils, "get_file", fetch)
    with pytest.raises(DataError, match=r"pip install timm, or download https://.*imagenet_class_index\.json"):
        decode_predictions(np.zeros((1, 1000)))


# Presets as folders


@pytest.mark.promise("19")
def test_presets_are_saved_and_opened(tmp_path):
    model = VAN(**SIZES, classes=list("abcdefg"), classifier_activation="softmax", preprocess=IMAGENET)
    model.get_layer("block1_0").trainable = False
    model.save_to_preset(tmp_path / "p")
    files = ["config.json", "image_converter.json", "metadata.json", "model.weights.h5", "task.json", "task.weights.h5"]
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == files
    back = VANImageClassifier.from_preset(tmp_path / "p")
    assert back.get_config() == model.get_config()
    assert same_outputs(back, model)
    assert VANImageConverter.from_preset(tmp_path / "p").record == IMAGENET
    backbone = VANBackbone.from_preset(str(tmp_path / "p"))
    assert (type(backbone), backbone.output_shape[-1]) == (VANBackbone, 32)
    assert same_outputs(backbone, model.backbone)
    other = VAN.from_preset(tmp_path / "p", num_classes=3)
    assert (other.output_shape, other.classes) == ((None, 3), None)
    assert same_outputs(other.backbone, model.backbone)
    assert not same_outputs(VAN.from_preset(tmp_path / "p", load_weights=False), model)
    with pytest.raises(CheckpointError, match="use from_preset"):
        VAN(weights=tmp_path / "p")
    model.save(tmp_path / "m.keras")
    shutil.unpack_archive(tmp_path / "m.keras", tmp_path / "unpacked", "zip")
    assert {"config.json", "model.weights.h5", "metadata.json"} <= {
        path.name for path in (tmp_path / "unpacked").iterdir()
    }
    assert presets.is_preset(tmp_path / "p")
    assert not presets.is_preset(tmp_path / "unpacked")


@pytest.mark.promise("19")
def test_a_backbones_preset_takes_a_fresh_head(tmp_path):
    backbone = VANBackbone(**SIZES)
    backbone.save_to_preset(tmp_path / "b")
    assert not (tmp_path / "b" / "task.json").exists()
    assert same_outputs(VANBackbone.from_preset(tmp_path / "b"), backbone)
    assert same_outputs(VAN.from_preset(tmp_path / "b", num_classes=4).backbone, backbone)
    with pytest.raises(ConfigError, match="give num_classes for a classifier"):
        VANImageClassifier.from_preset(tmp_path / "b")
    (tmp_path / "b" / "config.json").write_text('{"registered_name": "os>system", "config": {}}')
    with pytest.raises(CheckpointError, match="expected van>VANBackbone"):
        VANBackbone.from_preset(tmp_path / "b")
    with pytest.raises(ConfigError, match="preset is 5"):
        VAN.from_preset(5)


# Export


@pytest.mark.promise("19")
def test_an_onnx_export_that_keras_refuses_names_van_export(monkeypatch):
    def refuse(self, path, format, **options):  # noqa: A002
        raise RuntimeError("no\nsuch node")

    monkeypatch.setattr(keras.Model, "export", refuse)
    model = VAN(**SIZES)
    with pytest.raises(ConfigError, match=r"\(no such node\); .*van export model\.safetensors a\.onnx"):
        model.export("a.onnx", format="onnx")
    with pytest.raises(RuntimeError, match="such node"):
        model.export("a")


@pytest.mark.promise("19")
def test_saved_models_take_any_batch_and_size(tmp_path):
    tf = pytest.importorskip("tensorflow", reason="lane keras has it")
    if keras.backend.backend() == "torch":
        pytest.skip("Keras exports no SavedModel of the torch backend")
    model, x = VAN(**SIZES, num_classes=7), small_images(3)
    model.export(tmp_path / "saved", verbose=False)
    saved = tf.saved_model.load(tmp_path / "saved")  # its variables live as long as it does
    for images in (x, x[:1], np.repeat(x, 2, 1)):
        near(np.asarray(saved.serve(images)), model.predict(images, verbose=0))


@pytest.mark.promise("19")
def test_the_summary_opens_nested_models(capsys):
    outer = keras.Sequential([keras.Input((32, 32, 3)), VAN(**SIZES, name="inner"), keras.layers.Dense(2)])
    outer.summary(expand_nested=True)
    assert "block2_1" in capsys.readouterr().out


def test_the_default_record_is_the_official_one():
    assert VAN(**SIZES).preprocess == OFFICIAL
