"""The Keras model on the backend that KERAS_BACKEND names (torch in the default run, the others in lane keras)."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from keras_case import BACKEND, images_of, keras, near, run, tiny_file
from keras_networks import TINY, checkpoint_of
from PIL import Image
from published import keras_port, written
from reference_data import golden, inputs, state

import van
from van import checkpoints
from van.cli import main
from van.configs.backbone import ATTENTION_OPTIONS
from van.errors import CheckpointError, ConfigError, UnknownNameError, VanNotice
from van.images.preprocess import IMAGENET, Preprocess
from van.keras import VAN, VANBackbone, VANImageClassifier, VANImageConverter, save
from van.keras.depthwise import depthwise

FORMATS = ("channels_last", "channels_first")


def torch_model(checkpoint):
    model = van.create_model("van_b0", **checkpoint.config.to_dict()).eval()
    model.load_state_dict({key: torch.from_numpy(array) for key, array in checkpoint.arrays.items()})
    return model


@pytest.fixture
def file(tmp_path):
    return tiny_file(tmp_path)


# The reference vectors


@pytest.mark.parametrize("name", ["keras_van_b0", "keras_van_b0_eps", "official_van_b0", "official_van_b0_eps"])
def test_published_files_compute_what_their_code_computed(tmp_path, name):
    salt = "eps" if name.endswith("_eps") else ""
    path = written(name, tmp_path, state(name.removesuffix("_eps"), salt))
    for data_format in FORMATS if name.startswith("keras") else FORMATS[:1]:
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


@pytest.mark.parametrize("format", checkpoints.FORMATS)
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
    with pytest.warns(VanNotice, match="head of 7 classes is left out; a new one of 3"):
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
    # where newer Pillows change the height first, and beside the border of that
    (IMAGENET.with_overrides(size=(40, 56), resize="squash"), (90, 70)),
    (IMAGENET.with_overrides(size=(40, 56), resize="squash"), (68, 70)),
    (Preprocess(size=24, interpolation="lanczos"), (150, 31)),
    (Preprocess(size=48, interpolation="bilinear"), (260, 64)),
]


@pytest.mark.promise("19")
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


@pytest.fixture
def numbered_folders(tmp_path):
    """ImageNet-V2's layout: a folder per class, named by its index."""
    draw = np.random.default_rng(0)
    for i in range(30):
        path = tmp_path / "v2" / str(i % 10) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (40, 52, 3), np.uint8)).save(path)
    return tmp_path / "v2"


@pytest.mark.parametrize("where", ["digits", "folders"])
def test_eval_prints_both_engines_and_their_difference(digits_file, numbered_folders, where, tmp_path, capsys):
    file, data = digits_file, ["digits"] if where == "digits" else [f"{numbered_folders}", "--split", "all"]
    code = main(["eval", f"{file}", "--data", *data, "--engine", "keras", "--size", "32", "--json", f"{tmp_path}/e"])
    out = capsys.readouterr().out
    assert code == 0, out
    lines = [line.split() for line in out.splitlines() if line.startswith(str(file))]
    assert [line[1] for line in lines if not line[1][0].isdigit()] == ["torch", "keras", "difference"]
    assert lines[-1][-2:] == ["+0.00", "+0.00"]  # top-1 and top-5
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


@pytest.mark.skipif(BACKEND == "torch", reason="which is torch itself")
def test_torch_is_not_imported_under_another_backend(file, tmp_path):
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
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
