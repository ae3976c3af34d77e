"""What Keras's own files keep of a model that was changed after it was built, on the backend of KERAS_BACKEND."""

import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from keras_case import BACKEND, cross_entropy, images_of, keras, near, run, small_images, tiny_file
from keras_networks import TINY

from van.errors import CheckpointError, VanNotice
from van.keras import VAN, save

SIZES = {"embed_dims": TINY.embed_dims, "depths": TINY.depths, "mlp_ratios": TINY.mlp_ratios, "num_classes": 7}
MODES = [mode for mode in ("int8", "float8", "int4") if mode != "int4" or keras.version() >= "3.12"]
quiet = pytest.mark.filterwarnings("ignore:.*does not have a `quantize` method")


def saved_and_loaded(model, folder, name="m.keras"):
    model.save(folder / name)
    return keras.saving.load_model(folder / name)


def same_outputs(one, two):
    return np.array_equal(run(one, images_of(sides=(32, 32))), run(two, images_of(sides=(32, 32))))


def trained(model):
    return [weight.path for weight in model.trainable_weights]


def thaw(model):
    """Train every layer; under TensorFlow, Keras passes on to the layers only what changes of the model."""
    model.trainable = False
    model.trainable = True


def partly_frozen(**options):
    """Whole stages, a sublayer, and a sublayer inside a frozen block that is trained all the same."""
    model = VAN(**SIZES, **options)
    for name in ("patch_embed1", "block1_0", "norm1", "patch_embed2"):
        model.get_layer(name).trainable = False
    model.get_layer("block3_0").attn.trainable = False
    model.get_layer("block2_1").trainable = False
    model.get_layer("block2_1").mlp.fc1.trainable = True
    return model


@pytest.mark.promise("7")
def test_training_goes_on_as_if_it_had_not_been_saved(tmp_path):
    model = partly_frozen()
    model.compile(keras.optimizers.Adam(1e-3), cross_entropy())
    x, labels = small_images(4), np.arange(4)

    def fit(model):
        return model.fit(x, labels, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"]

    fit(model)
    back = saved_and_loaded(model, tmp_path)
    assert trained(back) == trained(model)
    assert len(trained(back)) < len(VAN(**SIZES).trainable_weights)
    assert fit(back) == fit(model)
    assert back.optimizer.iterations == 4


@pytest.mark.promise("7")
@pytest.mark.parametrize("options", [{"frozen_stages": 1}, {"trainable": False}, {"data_format": "channels_first"}])
def test_trainable_is_kept_whoever_set_it(tmp_path, options):
    model = VAN(**SIZES, **options)
    assert trained(saved_and_loaded(model, tmp_path)) == trained(model)
    thaw(model)
    model.get_layer("block4_0").mlp.trainable = False
    back = saved_and_loaded(model, tmp_path)
    assert trained(back) == trained(model)
    thaw(back)
    assert len(trained(back)) == len(VAN(**SIZES).trainable_weights)


@quiet
@pytest.mark.promise("7")
@pytest.mark.parametrize("mode", MODES)
def test_quantised_models_are_loaded_again(tmp_path, mode):
    model = VAN(**SIZES)
    exact = run(model, images_of(sides=(32, 32)))
    model.quantize(mode)
    back = saved_and_loaded(model, tmp_path)
    assert back.get_layer("head").dtype_policy.quantization_mode == mode
    assert same_outputs(back, model)
    near(run(back, images_of(sides=(32, 32))), exact, 0.1)
    with pytest.raises(CheckpointError, match=f"quantization_mode is {mode}.*load before that"):
        save(back, tmp_path / "m.safetensors", format="van")
    with pytest.raises(CheckpointError, match="not plain weights"):
        back.load_weights(tiny_file(tmp_path))


@pytest.mark.promise("7")
def test_dtype_policies_of_single_layers_are_kept(tmp_path):
    model = VAN(**SIZES)
    model.get_layer("block2_0").dtype_policy = "mixed_bfloat16"
    model.get_layer("block3_0").mlp.fc1.dtype_policy = "mixed_bfloat16"
    assert model.get_layer("block2_0").attn.proj_1.compute_dtype == "bfloat16"
    back = saved_and_loaded(model, tmp_path)
    for name, layer in model.parts.layers.items():
        assert back.get_layer(name).compute_dtype == layer.compute_dtype, name
    assert back.get_layer("block3_0").mlp.fc1.compute_dtype == "bfloat16"
    assert back.get_layer("block3_0").mlp.fc2.compute_dtype == "float32"
    assert same_outputs(back, model)


@pytest.mark.promise("7")
def test_a_map_of_dtype_policies_is_an_argument_and_kept(tmp_path):
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="float32")
    policies["block2_0/attn/proj_1"] = "mixed_bfloat16"
    model = VAN(**SIZES, dtype=policies)
    back = saved_and_loaded(model, tmp_path)
    for each in (model, back):
        block = each.get_layer("block2_0")
        assert (block.attn.proj_1.compute_dtype, block.attn.proj_2.compute_dtype) == ("bfloat16", "float32")
    assert same_outputs(back, model)


@pytest.mark.promise("7")
def test_the_global_policy_at_loading_changes_nothing(tmp_path):
    model = VAN(**SIZES)
    model.save(tmp_path / "m.keras")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        back = keras.saving.load_model(tmp_path / "m.keras")
        assert VAN(**SIZES).get_layer("block1_0").compute_dtype == "bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert same_outputs(back, model)


@pytest.mark.promise("7")
def test_regularizers_of_single_layers_are_kept_and_work(tmp_path):
    model = VAN(**SIZES)
    block = model.get_layer("block1_0")
    for layer in (model.get_layer("head"), block.mlp.fc1, block.mlp.dwconv):
        layer.kernel_regularizer = keras.regularizers.L2(1e-3)
    back = saved_and_loaded(model, tmp_path)
    assert len(back.losses) == 3  # Keras, too, applies one that is set late when the model is built again
    assert same_outputs(back, model)
    assert len(saved_and_loaded(back, tmp_path).losses) == 3


@pytest.mark.promise("7")
def test_renamed_layers_stay_readable_for_everybody(tmp_path):
    model = VAN(**SIZES)
    for layer in model.layers:
        layer.name = f"my_{layer.name}"
    back = saved_and_loaded(model, tmp_path)
    assert [layer.name for layer in back.layers[1:]] == [layer.name for layer in model.layers[1:]]
    assert list(back.pyramid_outputs) == ["P2", "P3", "P4", "P5"]
    model.save_weights(tmp_path / "w.weights.h5")
    save(model, tmp_path / "w.safetensors", format="van")
    for other in (back, VAN(weights=tmp_path / "w.weights.h5"), VAN(weights=tmp_path / "w.safetensors")):
        assert same_outputs(other, model)
    back.load_weights(tmp_path / "w.weights.h5")


@pytest.mark.promise("7")
def test_nested_and_cut_models_keep_all_that_too(tmp_path):
    inner = partly_frozen()
    inner.get_layer("block4_0").mlp.fc2.kernel_regularizer = "l2"
    outer = keras.Sequential([keras.Input((32, 32, 3)), inner, keras.layers.Dense(2)])
    cut = keras.Model(inner.input, inner.get_layer("block4_0").output)
    for model in (outer, cut):
        back = saved_and_loaded(model, tmp_path)
        assert len(back.trainable_weights) == len(model.trainable_weights)
        assert len(back.losses) == 1
        assert same_outputs(back, model)
    assert type(saved_and_loaded(outer, tmp_path).layers[0]) is VAN


@pytest.mark.promise("7")
def test_a_frozen_base_under_a_head_stays_frozen(tmp_path):
    base = VAN(**SIZES)
    base.trainable = False
    outer = keras.Sequential([base, keras.layers.Dense(2)])
    assert len(saved_and_loaded(outer, tmp_path).trainable_weights) == 2
    base.get_layer("block4_0").mlp.fc2.trainable = True  # alone in what is frozen
    back = saved_and_loaded(base, tmp_path)
    assert not back.trainable
    assert [len(layer.trainable_weights) for layer in back.layers] == [len(x.trainable_weights) for x in base.layers]


@pytest.mark.promise("7", "19")
@pytest.mark.parametrize("function", [None, lambda layer: layer.__class__.from_config(layer.get_config())])
def test_clones_keep_it(function):
    model = partly_frozen()
    clone = keras.models.clone_model(model, **({"clone_function": function} if function else {}))
    assert not same_outputs(clone, model)
    clone.set_weights(model.get_weights())
    assert same_outputs(clone, model)
    assert len(clone.trainable_weights) == len(model.trainable_weights)
    again = VAN.from_config(model.get_config())  # Keras's clone is a plain functional model
    assert trained(again) == trained(model)


@pytest.mark.promise("7")
def test_copies_pickles_and_older_files_keep_it(tmp_path):
    model = partly_frozen()
    for back in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), saved_and_loaded(model, tmp_path, "m.h5")):
        assert type(back) is VAN
        assert trained(back) == trained(model)
        assert same_outputs(back, model)


@pytest.mark.promise("7", "8")
def test_the_archive_describes_the_network_in_plain_json():
    model = VAN(**SIZES, attention="sigmoid", layer_norm_eps=1e-5, dilation=2, kernel_size=14, classes=list("abcdefg"))
    config = json.loads(json.dumps(model.get_config()))
    assert (config["attention"], config["layer_norm_eps"], config["dilation"]) == ("sigmoid", 1e-5, 2)
    assert (config["classes"], config["parts"]) == (list("abcdefg"), {})
    assert config["preprocess"] == model.preprocess.to_dict()
    again = VAN.from_config(config)
    assert again.get_config() == config
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    old = {key: value for key, value in config.items() if key not in ("parts", "provenance")}
    assert VAN.from_config(old).get_config() == config  # as it was written before


@pytest.mark.promise("7")
def test_where_weights_come_from_is_kept(tmp_path):
    model = VAN(weights=tiny_file(tmp_path))
    assert saved_and_loaded(model, tmp_path).provenance == model.provenance != {}


@pytest.mark.promise("19")
@pytest.mark.parametrize("name", ["m.safetensors", "m.weights.h5", "m.keras"])
@pytest.mark.filterwarnings("ignore:A total of")
def test_skip_mismatch_leaves_another_head_alone(tmp_path, name):
    model = VAN(**SIZES)
    if name.endswith(".safetensors"):
        save(model, tmp_path / name, format="van")
    else:
        model.save(tmp_path / name) if name == "m.keras" else model.save_weights(tmp_path / name)
    other = VAN(**{**SIZES, "num_classes": 3})
    before = keras.ops.convert_to_numpy(other.get_layer("head").kernel)
    with pytest.raises((CheckpointError, ValueError)):
        other.load_weights(tmp_path / name)
    if name.endswith(".safetensors"):
        with pytest.warns(
            VanNotice, match=r"2 of the model's \d+ tensors .* are left unchanged: head.weight, head.bias"
        ):
            other.load_weights(tmp_path / name, skip_mismatch=True)
        with pytest.raises(ValueError, match=r"by_name: only for \.weights\.h5 and \.keras"):
            other.load_weights(tmp_path / name, by_name=True)
    else:
        other.load_weights(tmp_path / name, skip_mismatch=True)
    assert same_outputs(other.backbone, model.backbone)
    assert np.array_equal(keras.ops.convert_to_numpy(other.get_layer("head").kernel), before)


@pytest.mark.promise("19")
def test_skip_mismatch_refuses_other_numbers_and_nothing_at_all(tmp_path):
    file = tiny_file(tmp_path)
    with pytest.raises(CheckpointError, match="layer_norm_eps is 1e-06, the model's 1e-05"):
        VAN(**SIZES, layer_norm_eps=1e-5).load_weights(file, skip_mismatch=True)
    narrow = VAN(embed_dims=(4, 5, 6, 7), depths=(1, 1, 1, 1), mlp_ratios=(3, 3, 3, 3), in_chans=1, num_classes=2)
    with pytest.raises(CheckpointError, match="no tensor of"):
        narrow.load_weights(file, skip_mismatch=True)


@pytest.mark.promise("7")
@pytest.mark.skipif(BACKEND == "torch", reason="lane keras has the other backends")
def test_files_of_this_backend_load_under_torch(tmp_path):
    model = partly_frozen(drop_path_rate=0.1)
    model.compile("adam", cross_entropy())
    model.train_on_batch(small_images(4), np.arange(4))
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", small_images())
    code = f"""
import os; os.environ["KERAS_BACKEND"] = "torch"
import keras, numpy, van.keras
model = keras.saving.load_model({str(tmp_path / "m.keras")!r})
numpy.save({str(tmp_path / "y.npy")!r}, model.predict(numpy.load({str(tmp_path / "x.npy")!r}), verbose=0))
print(len(model.trainable_weights), int(model.optimizer.iterations))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split()[-2:] == [str(len(model.trainable_weights)), "1"], done.stderr[-2000:]
    near(np.load(tmp_path / "y.npy"), model.predict(small_images(), verbose=0))
