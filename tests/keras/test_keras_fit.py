"""The Keras model in compile, fit, mixed precision and compiled, on the backend that KERAS_BACKEND names."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from keras_case import BACKEND, cross_entropy, keras, near, run, small_images, tiny_file
from keras_networks import TINY
from reference_data import golden, image, state

import van
from van.keras import VAN
from van.keras.layers import Block, FanOut

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "keras_digits.py"
# Keras's torch backend compiles with torch.compile, which takes a minute
slow_on_torch = pytest.mark.slow if BACKEND == "torch" else lambda test: test


@pytest.fixture
def file(tmp_path):
    return tiny_file(tmp_path)


def step(model, x, labels):
    """The loss before one step of training."""
    model.reset_metrics()  # older Keras gives the mean over all steps since
    return float(model.train_on_batch(x, labels))


def test_one_training_step_is_the_originals(tmp_path):
    path = tmp_path / "b0.pth"
    torch.save({key: torch.from_numpy(array) for key, array in state("official_van_b0").items()}, path)
    want = golden("train_step_official_van_b0")
    model = VAN(weights=path)
    model.compile(keras.optimizers.SGD(0.05), cross_entropy())
    x = image("train_x", (4, 3, 64, 64)).transpose(0, 2, 3, 1)
    losses = [step(model, x, want["labels"]) for _ in range(2)]
    assert losses == pytest.approx([7.192274, 1.665172], rel=1e-4)


def test_fresh_kernels_are_drawn_as_published():
    def drawn(seed):
        keras.utils.set_random_seed(seed)
        return keras.ops.convert_to_numpy(FanOut()((5, 5, 400, 2), "float32"))

    assert drawn(0).std() == pytest.approx((2 / (5 * 5 * 2)) ** 0.5, rel=0.02)
    assert abs(drawn(0).mean()) < 0.01
    assert np.array_equal(drawn(0), drawn(0))
    assert not np.array_equal(drawn(0), drawn(1))
    block = VAN("van_b0", embed_dims=(8, 16, 24, 32), depths=(2, 1, 1, 1)).get_layer("block1_0")
    kernels = [keras.ops.convert_to_numpy(part.kernel) for part in (block.attn.proj_1, block.attn.proj_2)]
    assert not np.array_equal(*kernels)


def test_training_trains_and_frozen_stages_do_not(file):
    keras.utils.set_random_seed(0)  # a dropped path leaves a block's weights as they were
    model = VAN(weights=file, frozen_stages=0, drop_path_rate=0.3, drop_rate=0.1)
    before = {weight.path: keras.ops.convert_to_numpy(weight).copy() for weight in model.weights}
    model.compile("sgd", cross_entropy())
    model.fit(small_images(16), np.arange(16) % 7, batch_size=16, verbose=0)
    after = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert {path for path in before if path.split("/")[0] in ("patch_embed1", "block1_0", "norm1")} & changed == set()
    assert {"block2_1/norm1/moving_mean", "block4_0/attn/spatial_gating_unit/conv_spatial/kernel"} <= changed
    assert "block3_0/layer_scale_1" in changed


def test_drop_path_drops_whole_samples():
    block = Block(4, 8, drop_path_rate=0.5, layer_scale_init=1.0)
    x = np.random.default_rng(0).standard_normal((64, 3, 3, 4)).astype(np.float32)
    out = keras.ops.convert_to_numpy(block(x, training=True)) - x
    kept = np.abs(out).reshape(64, -1).max(1) > 0
    assert 0 < kept.sum() < 64


def test_norm_eval_keeps_the_statistics(file):
    model = VAN(weights=file, norm_eval=True)
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.non_trainable_weights]
    model.compile("sgd", cross_entropy())
    model.train_on_batch(small_images(), np.zeros(2))
    after = map(keras.ops.convert_to_numpy, model.non_trainable_weights)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(("dtype", "tolerance"), [("mixed_bfloat16", 0.2), ("mixed_float16", 0.03)])
def test_mixed_precision(file, dtype, tolerance):
    x, labels = small_images(), np.arange(2)
    exact, model = VAN(weights=file), VAN(weights=file, dtype=dtype)
    assert model.get_layer("block1_0").compute_dtype == dtype.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(model.output.dtype) == "float32"
    got, want = (run(each, x.transpose(0, 3, 1, 2)) for each in (model, exact))
    assert not np.array_equal(got, want)
    near(got, want, tolerance)
    loss = float(cross_entropy()(labels, exact(x, training=True)))
    model.compile("sgd", cross_entropy())
    assert step(model, x, labels) == pytest.approx(loss, abs=tolerance)
    assert step(model, x, labels) < loss
    back = VAN.from_config(model.get_config())
    assert back.get_layer("block1_0").compute_dtype == dtype.removeprefix("mixed_")


@slow_on_torch
def test_jit_compile(file):
    x = small_images()
    want = run(VAN(weights=file), x.transpose(0, 3, 1, 2))
    losses = []
    for jit in (True, False):
        model = VAN(weights=file)
        model.compile("sgd", cross_entropy(), jit_compile=jit)
        assert model.jit_compile is jit
        near(model.predict_on_batch(x), want)
        losses.append([step(model, x, np.arange(2)) for _ in range(2)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_the_example_learns(tmp_path):
    """On a slim network: the docstring tells what B0 reaches, and in what time."""
    slim = van.create_model("van_b0", **TINY.with_options(num_classes=10).to_dict(), seed=0)
    van.save(slim, tmp_path / "slim.safetensors")
    command = [sys.executable, EXAMPLE, "--weights", tmp_path / "slim.safetensors", "--out", tmp_path / "d.keras"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.splitlines()[-1].split("%")[0].split()[-1]) > 60
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert keras.saving.load_model(tmp_path / "d.keras").classes == tuple("0123456789")
