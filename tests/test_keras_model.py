"""The Keras model on the backend that KERAS_BACKEND names (torch in the default run, the others in lane keras)."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import van
from published import keras_port
from reference_data import golden, image, inputs, state
from test_keras_checkpoints import TINY, checkpoint_of
from van import checkpoints
from van.cli import main
from van.errors import CheckpointError, ConfigError, UnknownNameError, VanNotice
from van.preprocess import IMAGENET, Preprocess
from van.variants import ATTENTION_OPTIONS

BACKEND = os.environ["KERAS_BACKEND"]
if importlib.util.find_spec(BACKEND) is None:
    pytest.skip(f"Keras's backend {BACKEND} is not installed", allow_module_level=True)
if BACKEND == "tensorflow" and importlib.util.find_spec("triton"):
    import triton.knobs  # after TensorFlow it would end the process (engines/keras_engine.py)  # noqa: F401
keras = pytest.importorskip("keras")

from van.keras import VAN, VANBackbone, VANImageClassifier, VANImageConverter, save  # noqa: E402
from van.keras.depthwise import depthwise  # noqa: E402

FORMATS = ("channels_last", "channels_first")


def run(model, images):
    """(N, C, H, W) through a model of either data format; maps come back as (N, C, H, W)."""
    last = getattr(model, "data_format", "channels_last") == "channels_last"
    out = model(images.transpose(0, 2, 3, 1) if last else images, training=False)
    array = keras.ops.convert_to_numpy(out).astype(np.float32)
    return array.transpose(0, 3, 1, 2) if last and array.ndim == 4 else array


def torch_model(checkpoint):
    model = van.create_model("van_b0", **checkpoint.config.to_dict()).eval()
    model.load_state_dict({key: torch.from_numpy(array) for key, array in checkpoint.arrays.items()})
    return model


def images_of(config=TINY, sides=(61, 48), n=2):
    return np.random.default_rng(0).standard_normal((n, config.in_chans, *sides)).astype(np.float32)


def near(got, want, tolerance=1e-5):
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.safetensors"
    checkpoints.write(checkpoint_of(), path, "van")
    return path


# The reference vectors


@pytest.mark.parametrize(("name", "salt"), [("keras_van_b0", ""), ("keras_van_b0_eps", "eps")])
def test_the_ports_file_computes_what_the_port_computed(tmp_path, name, salt):
    path = keras_port(tmp_path / "van_b0.h5", state("keras_van_b0", salt))
    for data_format in FORMATS:
        model = VAN(weights=path, data_format=data_format)
        maps = keras.Model(model.input, model.pyramid_outputs)
        for tag, x in inputs(name)[:: 1 if data_format == "channels_last" else 2]:
            near(run(model, x), golden(name)[f"{tag}/logits"])
        pyramid = maps(x if data_format == "channels_first" else x.transpose(0, 2, 3, 1), training=False)
        assert list(pyramid) == ["P2", "P3", "P4", "P5"]
        for level, array in enumerate(pyramid.values(), 1):
            array = keras.ops.convert_to_numpy(array)
            array = array if data_format == "channels_first" else array.transpose(0, 3, 1, 2)
            want = golden(name)
            assert array.shape == tuple(want[f"{tag}/stage{level}/shape"])
            near(array.reshape(-1)[:: int(want[f"{tag}/stage{level}/step"])], want[f"{tag}/stage{level}/sample"])


def test_one_training_step_is_the_originals(tmp_path):
    path = tmp_path / "b0.pth"
    torch.save({key: torch.from_numpy(array) for key, array in state("official_van_b0").items()}, path)
    want = golden("train_step_official_van_b0")
    model = VAN(weights=path)
    model.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, labels = image("train_x", (4, 3, 64, 64)), want["labels"]
    losses = [model.train_on_batch(x.transpose(0, 2, 3, 1), labels) for _ in range(2)]
    assert losses == pytest.approx([7.192274, 1.665172], rel=1e-4)


def test_summary_has_the_ports_rows(capsys):
    model = VAN("van_b0", classifier_activation="softmax")
    rows = {layer.name: layer.count_params() for layer in model.layers if layer.count_params()}
    blocks = {1: (3, 25152), 2: (3, 89216), 3: (5, 303040), 4: (2, 755200)}
    want = {}
    for s, (patch, norm) in {1: (4864, 64), 2: (18752, 128), 3: (92960, 320), 4: (369920, 512)}.items():
        depth, size = blocks[s]
        want |= {f"patch_embed{s}": patch, **{f"block{s}_{j}": size for j in range(depth)}, f"norm{s}": norm}
    assert rows == want | {"head": 257000}
    assert model.layers[-1].name == "pred"
    assert model.name == "van_b0"
    assert model.count_params() == 4_113_224
    assert sum(int(np.prod(weight.shape)) for weight in model.non_trainable_weights) == 7_424
    model.build((None, 224, 224, 3))
    model.summary()
    assert "4,113,224" in capsys.readouterr().out


# Against the torch model


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("attention", ATTENTION_OPTIONS)
def test_every_attention_is_the_torch_models(tmp_path, attention, data_format):
    if attention != "lka" and data_format == "channels_first":
        pytest.skip("the format matters in the first layer alone")
    checkpoint = checkpoint_of(TINY.with_options(attention=attention, kernel_size=20, dilation=5, layer_norm_eps=1e-5))
    checkpoints.write(checkpoint, tmp_path / "a.weights.h5", "keras")
    x = images_of()
    with torch.no_grad():
        want = torch_model(checkpoint)(torch.from_numpy(x)).numpy()
    near(run(VAN(weights=tmp_path / "a.weights.h5", data_format=data_format), x), want)


@pytest.mark.parametrize("format", ["van", "official", "mmpretrain", "mmseg", "transformers", "keras"])
@pytest.mark.filterwarnings("ignore::van.errors.VanNotice")
def test_every_format_gives_the_same_logits_and_is_written_again(tmp_path, format):  # noqa: A002
    name = {"van": "a.safetensors", "keras": "a.weights.h5", "transformers": "folder"}.get(format, "a.pth")
    checkpoint, x = checkpoint_of(classes=tuple("abcdefg"), preprocess=IMAGENET), images_of()
    checkpoints.write(checkpoint, tmp_path / name, format)
    with torch.no_grad():
        network = torch_model(checkpoint)
        logits, features = network(torch.from_numpy(x)), network.forward_features(torch.from_numpy(x)).mean((2, 3))
    if format == "mmseg":  # has a place for the backbone alone
        near(run(VAN(weights=tmp_path / name, include_top=False), x), features.numpy())
        return
    model = VAN(weights=tmp_path / name)
    near(run(model, x), logits.numpy())
    assert (model.classes, model.preprocess) == (tuple("abcdefg"), IMAGENET)
    (tmp_path / "again").mkdir()
    save(model, tmp_path / "again" / name, format=format)
    back = checkpoints.read(tmp_path / "again" / name)
    assert back.classes == tuple("abcdefg")
    for key, array in checkpoint.arrays.items():
        if not key.endswith("num_batches_tracked"):
            assert array.tobytes() == back.arrays[key].tobytes(), key


@pytest.mark.parametrize(("kernel", "dilation", "side"), [(5, 1, 9), (7, 3, 11), (7, 3, 4), (3, 1, 1)])
def test_depthwise_and_its_gradients_are_torchs(kernel, dilation, side):
    draw = np.random.default_rng(0)
    x, w = (draw.standard_normal(s).astype(np.float32) for s in ((2, side, side + 1, 6), (kernel, kernel, 6, 1)))
    g = draw.standard_normal(x.shape).astype(np.float32)
    tx, tw = torch.from_numpy(x).requires_grad_(), torch.from_numpy(w).requires_grad_()
    padding = dilation * (kernel // 2)
    options = {"padding": padding, "dilation": dilation, "groups": 6}
    y = torch.nn.functional.conv2d(tx.permute(0, 3, 1, 2), tw.permute(2, 3, 0, 1), **options).permute(0, 2, 3, 1)
    (y * torch.from_numpy(g)).sum().backward()
    for got in gradients(lambda a, b: depthwise(a, b, dilation), x, w, g):
        for ours, theirs in zip(got, (y.detach(), tx.grad, tw.grad), strict=True):
            near(np.asarray(ours), theirs.numpy(), 5e-5)


def gradients(function, x, w, g):
    """(output, gradients of x and w) as the backend has them, with and without compilation where it knows both."""
    if BACKEND == "jax":
        import jax

        y, pull = jax.vjp(function, x, w)
        yield y, *pull(jax.numpy.asarray(g))
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        def both(x, w):
            with tf.GradientTape() as tape:
                tape.watch([x, w])
                y = function(x, w)
            return y, *tape.gradient(y, [x, w], tf.constant(g))

        for jit in (False, True):
            signature = [tf.TensorSpec((None, *x.shape[1:])), tf.TensorSpec(w.shape)]
            yield tf.function(both, jit_compile=jit, input_signature=signature)(x, w)
    else:
        a, b = torch.from_numpy(x).requires_grad_(), torch.from_numpy(w).requires_grad_()
        y = function(a, b)
        y.backward(torch.from_numpy(g))
        yield y.detach(), a.grad, b.grad


# Keras's own habits


def test_keras_saves_and_loads_the_whole_model(tmp_path, file):
    model, x = VAN(weights=file, classifier_activation="softmax", data_format="channels_first"), images_of()
    model.save(tmp_path / "m.keras")
    back = keras.saving.load_model(tmp_path / "m.keras")
    assert type(back) is VAN
    assert (back.config, back.data_format, back.preprocess) == (model.config, "channels_first", model.preprocess)
    assert np.array_equal(run(back, x), run(model, x))
    near(run(back, x).sum(1), 1)
    again = VAN.from_config(json.loads(json.dumps(model.get_config())))
    assert again.get_config() == model.get_config()
    part = keras.Model(model.inputs, model.get_layer("block2_1").output)  # layers serialise on their own as well
    part.save(tmp_path / "part.keras")
    other = keras.saving.load_model(tmp_path / "part.keras")
    near(keras.ops.convert_to_numpy(other(x)), keras.ops.convert_to_numpy(part(x)), 0)


def test_keras_and_the_package_read_each_others_weights(tmp_path):
    checkpoint, x = checkpoint_of(TINY.with_options(layer_norm_eps=1e-5, drop_rate=0.1)), images_of()
    checkpoints.write(checkpoint, tmp_path / "ours.weights.h5", "keras")
    model = VAN(embed_dims=TINY.embed_dims, depths=TINY.depths, mlp_ratios=TINY.mlp_ratios, num_classes=7)
    model = VAN.from_config({**model.get_config(), "layer_norm_eps": 1e-5, "drop_rate": 0.1})
    model.load_weights(tmp_path / "ours.weights.h5")  # Keras's own
    with torch.no_grad():
        near(run(model, x), torch_model(checkpoint)(torch.from_numpy(x)).numpy())
    model.save_weights(tmp_path / "theirs.weights.h5")
    back = checkpoints.read(tmp_path / "theirs.weights.h5")
    assert back.config == checkpoint.config
    assert back.origins["layer_norm_eps"] == "metadata"
    for key, array in checkpoint.arrays.items():
        if not key.endswith("num_batches_tracked"):
            assert array.tobytes() == back.arrays[key].tobytes(), key


def test_load_weights_takes_any_format_and_refuses_what_does_not_fit(tmp_path, file):
    model = VAN(weights=file)
    other = VAN.from_config(model.get_config())
    assert not np.array_equal(run(other, images_of()), run(model, images_of()))
    other.load_weights(file)
    assert np.array_equal(run(other, images_of()), run(model, images_of()))
    checkpoints.write(checkpoint_of(TINY.with_options(layer_norm_eps=1e-5)), tmp_path / "eps.safetensors", "van")
    with pytest.raises(CheckpointError, match="layer_norm_eps is 1e-05, the model's 1e-06"):
        other.load_weights(tmp_path / "eps.safetensors")
    checkpoints.write(checkpoint_of(TINY.with_options(num_classes=3)), tmp_path / "three.safetensors", "van")
    with pytest.raises(CheckpointError, match=r"head\.weight"):
        other.load_weights(tmp_path / "three.safetensors")


def test_another_head_starts_afresh_and_says_so(file):
    with pytest.warns(VanNotice, match="head of 7 classes is left out, a fresh one of 3"):
        model = VAN(weights=file, num_classes=3)
    assert (model.classes, model.output_shape) == (None, (None, 3))
    near(run(model.backbone, images_of()), run(VAN(weights=file, include_top=False, pooling=None), images_of()), 0)


def test_features_pooling_and_backbone(file):
    x = images_of()
    maps = run(VAN(weights=file, include_top=False, pooling=None), x)
    assert maps.shape == (2, 32, 2, 2)
    near(run(VAN(weights=file, include_top=False), x), maps.mean((2, 3)), 1e-6)
    near(run(VAN(weights=file, include_top=False, pooling="max"), x), maps.max((2, 3)), 1e-6)
    first = VANBackbone(weights=file, data_format="channels_first")
    assert first.output_shape == (None, 32, None, None)
    near(run(first, x), maps, 1e-6)
    assert VANImageClassifier is VAN


def test_training_trains_and_frozen_stages_do_not(file):
    keras.utils.set_random_seed(0)  # a dropped path leaves a block's weights as they were
    model = VAN(weights=file, frozen_stages=0, drop_path_rate=0.3, drop_rate=0.1)
    before = {weight.path: keras.ops.convert_to_numpy(weight).copy() for weight in model.weights}
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images_of(sides=(32, 32), n=4).transpose(0, 2, 3, 1), np.arange(4), verbose=0)
    changed = {path for path in before if not np.array_equal(before[path], weight_of(model, path))}
    assert {path for path in before if path.split("/")[0] in ("patch_embed1", "block1_0", "norm1")} & changed == set()
    assert {"block2_1/norm1/moving_mean", "block4_0/attn/spatial_gating_unit/conv_spatial/kernel"} <= changed
    assert "block3_0/layer_scale_1" in changed


def weight_of(model, path):
    return keras.ops.convert_to_numpy(next(weight for weight in model.weights if weight.path == path))


def test_drop_path_drops_whole_samples():
    from van.keras.layers import Block

    block = Block(4, 8, drop_path_rate=0.5, layer_scale_init=1.0)
    x = np.random.default_rng(0).standard_normal((64, 3, 3, 4)).astype(np.float32)
    out = keras.ops.convert_to_numpy(block(x, training=True)) - x
    kept = np.abs(out).reshape(64, -1).max(1) > 0
    assert 0 < kept.sum() < 64


def test_norm_eval_keeps_the_statistics(file):
    model = VAN(weights=file, norm_eval=True)
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.non_trainable_weights]
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(images_of(sides=(32, 32)).transpose(0, 2, 3, 1), np.zeros(2))
    after = map(keras.ops.convert_to_numpy, model.non_trainable_weights)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(("dtype", "tolerance"), [("mixed_bfloat16", 0.2), ("mixed_float16", 0.03)])
def test_mixed_precision(file, dtype, tolerance):
    x = images_of(sides=(32, 32))
    exact, model = VAN(weights=file), VAN(weights=file, dtype=dtype)
    assert model.get_layer("block1_0").compute_dtype == dtype.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(model.output.dtype) == "float32"
    got = run(model, x)
    assert not np.array_equal(got, run(exact, x))
    near(got, run(exact, x), tolerance)
    back = VAN.from_config(model.get_config())
    assert back.get_layer("block1_0").compute_dtype == dtype.removeprefix("mixed_")


@pytest.mark.skipif(BACKEND == "torch", reason="Keras's torch backend compiles with torch.compile, which takes minutes")
def test_jit_compile(file):
    model, x = VAN(weights=file), images_of(sides=(32, 32)).transpose(0, 2, 3, 1)
    want = keras.ops.convert_to_numpy(model(x, training=False))
    losses = []
    for jit in (True, False):
        model = VAN(weights=file)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, jit_compile=jit)
        near(model.predict_on_batch(x), want)
        losses.append([float(model.train_on_batch(x, np.arange(2))) for _ in range(2)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# The port's README


def test_the_ports_readme_runs(tmp_path, monkeypatch):
    custom = VAN(
        in_chans=3,
        num_classes=1000,
        embed_dims=[8, 16, 24, 32],
        mlp_ratios=[4, 4, 4, 4],
        drop_rate=0.0,
        drop_path_rate=0.0,
        depths=[1, 2, 1, 1],
        num_stages=4,
        include_top=True,
        classifier_activation="softmax",
        data_format="channels_last",
    )
    assert custom.name == "van_custom"
    metrics = ["accuracy", "sparse_top_k_categorical_accuracy"]
    custom.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=metrics)
    custom.fit(images_of(sides=(32, 32)).transpose(0, 2, 3, 1), np.zeros(2), verbose=0)

    port, asked = keras_port(tmp_path / "van_b0.h5", state("keras_van_b0")), []
    monkeypatch.setattr(keras.utils, "get_file", lambda name, url, **_: asked.append(url) or str(port))
    image = images_of(sides=(64, 64)).transpose(0, 2, 3, 1)
    model = VAN(configuration="van_b0", pretrained=True, include_top=True, classifier_activation="softmax")
    near(keras.ops.convert_to_numpy(model(image)).sum(1), 1)
    images = keras.layers.Input(shape=(64, 64, 3), dtype="float32")
    features = VAN(configuration="van_b0", pretrained=True, include_top=False)(images)
    outputs = keras.layers.Dense(10, activation="softmax")(features)
    assert keras.Model(inputs=images, outputs=outputs)(image).shape == (2, 10)
    assert {url.rsplit("/")[-1] for url in asked} == {"van_b0.h5"}
    assert type(VAN.from_preset("van_b0", load_weights=False)) is VAN
    assert VANImageConverter.from_preset("openmmlab/van_b4_in21k").record == IMAGENET


# What is refused


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"configuration": "van_b9"}, "unknown model 'van_b9'.*van_b0"),
        ({"embed_dims": (8, 16, 24)}, "depths has 4 entries, embed_dims has 3"),
        ({"depths": (1, 1), "num_stages": 4}, "depths has 2 entries, num_stages is 4"),
        ({"num_stages": 5}, "num_stages is 5; expected 1 to 4"),
        ({"in_chans": 0}, "in_chans is 0"),
        ({"input_shape": (32, 32, 1), "in_chans": 3}, "input_shape has 1 channels, in_chans is 3"),
        ({"input_shape": (32, 32)}, r"expected \(height, width, channels\)"),
        ({"input_shape": (32, 32, 3), "img_resolution": 64}, "give one of the two"),
        ({"img_resolution": -1}, "img_resolution as pixels"),
        ({"data_format": "NCHW"}, "unknown data_format 'NCHW'.*channels_last, channels_first"),
        ({"pooling": "sum"}, "unknown pooling 'sum'.*avg, max"),
        ({"pooling": None}, "pooling=None gives the map"),
        ({"include_top": False, "classifier_activation": "softmax"}, "belongs to the head"),
        ({"classes": ["a"], "num_classes": 2}, "1 names of classes for a head of 2"),
        ({"colour": 1}, "unknown architecture option 'colour'"),
        ({"drop_rate": 2.0}, "drop_rate is 2.0"),
        ({"pretrained": True, "weights": "x"}, "were both given"),
        ({"configuration": "van_b5", "pretrained": True}, "no ImageNet-1K weights.*van_b5; there are some for van_b0"),
        ({"ema": True}, "none is given"),
    ],
)
def test_bad_arguments_are_value_errors_that_name_the_valid(options, told):
    with pytest.raises(ValueError, match=told) as caught:
        VAN(**options)
    assert "\n" not in str(caught.value)


def test_weights_of_another_size_are_refused(file, tmp_path):
    with pytest.raises(CheckpointError, match="contradicts the tensors"):
        VAN("van_b1", weights=file)
    with pytest.raises(CheckpointError, match=r"contradicts the tensors"):
        VAN(weights=file, in_chans=1)
    with pytest.raises(CheckpointError, match="no such file"):
        VAN(weights=tmp_path / "gone.h5")
    with pytest.raises(UnknownNameError, match="unknown preset"):
        VAN.from_preset("nonsense")
    headless = tmp_path / "headless.safetensors"
    checkpoints.write(checkpoint_of(TINY.with_options(num_classes=0)), headless, "van")
    with pytest.raises(ConfigError, match="have no head"):
        VAN(weights=headless)


# Preprocessing


RECORDS = [
    (Preprocess(size=48), (90, 70)),
    (Preprocess(size=48), (40, 50)),
    (Preprocess(size=(32, 48), crop_pct=0.875, interpolation="bilinear"), (90, 71)),
    (Preprocess(size=33, crop_pct=1.0, interpolation="nearest"), (50, 64)),
    (Preprocess(size=32, interpolation="lanczos", mean=(0.5,), std=(0.25,)), (60, 61)),
    (IMAGENET.with_overrides(size=(40, 56), resize="squash"), (31, 77)),
]


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(("record", "sides"), RECORDS)
def test_converter_is_the_executor_within_a_gray_level(record, sides, data_format):
    pixels = np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)
    converter = VANImageConverter(**record.to_dict(), data_format=data_format)
    want = record(Image.fromarray(pixels))
    x = pixels if data_format == "channels_last" else pixels.transpose(2, 0, 1)
    batch = keras.ops.convert_to_numpy(converter(x[None]))
    assert batch.shape[1:] == converter.compute_output_shape(x.shape)
    if data_format == "channels_last":
        batch = batch.transpose(0, 3, 1, 2)
    gray_levels = np.abs(batch[0] - want) * 255 * np.array(record.std)[:, None, None]
    assert gray_levels.max() < 1.01
    assert (gray_levels > 0.01).mean() < 0.01  # a rounding tie now and then
    one = keras.ops.convert_to_numpy(converter(x))
    near(one, batch[0] if data_format == "channels_first" else batch[0].transpose(1, 2, 0), 0)
    assert VANImageConverter.from_config(converter.get_config()).record == record


def test_converter_mixes_channels_and_refuses_others():
    gray = np.random.default_rng(0).integers(0, 256, (40, 40, 1), np.uint8)
    record = Preprocess(size=32)
    near(
        keras.ops.convert_to_numpy(VANImageConverter(size=32, data_format="channels_last")(gray)).transpose(2, 0, 1),
        record(Image.fromarray(gray[..., 0])),
        1.01 / 127.5,
    )
    with pytest.raises(ValueError, match="images have 4 channels"):
        VANImageConverter()(np.zeros((1, 8, 8, 4), np.uint8))


def test_a_model_brings_its_converter(file):
    model = VAN(weights=file, img_resolution=64, data_format="channels_first")
    assert model.preprocessor.record.size == (64, 64)
    assert model.preprocessor.data_format == "channels_first"
    whole = keras.Sequential([keras.Input((3, 80, 100)), model.preprocessor, model])
    assert whole(np.zeros((1, 3, 80, 100), np.float32)).shape == (1, 7)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has graphs without sizes")
def test_converter_in_a_data_pipeline_of_unknown_sizes():
    import tensorflow as tf

    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    signature = tf.TensorSpec((None, None, 3), tf.uint8)
    converter = VANImageConverter(size=32, data_format="channels_last")
    (out,) = tf.data.Dataset.from_generator(lambda: [pixels], output_signature=signature).map(converter)
    assert np.array_equal(out, converter(pixels))


# The command line


@pytest.fixture
def digits_file(tmp_path):
    path = tmp_path / "digits.safetensors"
    checkpoints.write(checkpoint_of(TINY.with_options(num_classes=10)), path, "van")
    return path


def test_eval_prints_both_engines_and_their_difference(digits_file, tmp_path, capsys):
    file = digits_file
    code = main(["eval", str(file), "--data", "digits", "--engine", "keras", "--size", "32", "--json", f"{tmp_path}/e"])
    out = capsys.readouterr().out
    assert code == 0, out
    lines = [line.split() for line in out.splitlines() if line.startswith(str(file))]
    assert [line[1] for line in lines if not line[1][0].isdigit()] == ["torch", "keras", "difference"]
    assert lines[-1][-2:] == ["+0.00", "+0.00"]
    one, two = json.loads((tmp_path / "e").read_text())["results"]
    assert (one["engine"], two["engine"]) == ("torch", "keras")
    assert one["confusion"] == two["confusion"]
    assert one["loss"] == pytest.approx(two["loss"], abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--engine", "jx"], "unknown engine 'jx'"), (["--engine", "keras", "--optimize"], "belongs to the torch engine")],
)
def test_eval_refuses_what_an_engine_cannot(digits_file, capsys, arguments, told):
    assert main(["eval", str(digits_file), "--data", "digits", "--size", "32", *arguments]) == 2
    assert told in capsys.readouterr().err


# Torch stays out


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_torch_is_not_imported_under_another_backend(backend, file, tmp_path):
    pytest.importorskip(backend, reason=f"Keras's backend {backend} is not installed")
    checkpoints.write(checkpoint_of(), tmp_path / "a.weights.h5", "keras")
    keras_port(tmp_path / "port.h5", state("keras_van_b0"))
    code = f"""
import sys, warnings
warnings.simplefilter("ignore")
from van.keras import VAN, save
for name in ({str(file)!r}, {str(tmp_path / "a.weights.h5")!r}, {str(tmp_path / "port.h5")!r}):
    model = VAN(weights=name)
save(model, {str(tmp_path / "b.safetensors")!r}, format="van")
assert "torch" not in sys.modules, "torch was imported"
print("clean")
"""
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.endswith("clean\n"), done.stderr[-2000:]


def test_no_module_of_van_keras_imports_torch():
    import van.keras

    for path in Path(van.keras.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "torch" for name in names), path.name


def test_a_missing_backend_is_told():
    code = "import sys; sys.modules['tensorflow'] = None\nimport van.keras"
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "set KERAS_BACKEND to an installed backend" in done.stderr


@pytest.mark.slow
def test_the_example_learns(tmp_path):
    example = Path(__file__).parent.parent / "examples" / "keras_digits.py"
    done = subprocess.run(
        [sys.executable, example, "--out", tmp_path / "d.keras"], capture_output=True, text=True, check=True
    )
    assert float(done.stdout.splitlines()[-1].split("%")[0].split()[-1]) > 90
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert keras.saving.load_model(tmp_path / "d.keras").classes == tuple("0123456789")
