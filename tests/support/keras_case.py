"""What the tests of the Keras model share: the backend that KERAS_BACKEND names, or a skip; small networks, images."""

import importlib.util
import os

import numpy as np
import pytest
from keras_networks import TINY, checkpoint_of

from van import checkpoints

BACKEND = os.environ["KERAS_BACKEND"]
if importlib.util.find_spec(BACKEND) is None:
    pytest.skip(f"Keras's backend {BACKEND} is not installed", allow_module_level=True)
if importlib.util.find_spec("triton"):
    import triton.knobs  # after TensorFlow, which Keras imports under JAX too, it would end the process  # noqa: F401
keras = pytest.importorskip("keras")


def run(model, images):
    """(N, C, H, W) through a model of either data format; maps come back as (N, C, H, W)."""
    last = getattr(model, "data_format", "channels_last") == "channels_last"
    out = model(images.transpose(0, 2, 3, 1) if last else images, training=False)
    array = keras.ops.convert_to_numpy(out).astype(np.float32)
    return array.transpose(0, 3, 1, 2) if last and array.ndim == 4 else array


def images_of(config=TINY, sides=(61, 48), n=2):
    return np.random.default_rng(0).standard_normal((n, config.in_chans, *sides)).astype(np.float32)


def small_images(n=2):
    """(N, 32, 32, 3)."""
    return images_of(sides=(32, 32), n=n).transpose(0, 2, 3, 1)


def near(got, want, tolerance=1e-5):
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def tiny_file(folder):
    path = folder / "tiny.safetensors"
    checkpoints.write(checkpoint_of(), path, "van")
    return path
