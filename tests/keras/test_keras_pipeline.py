"""The converter inside tf.data pipelines, on the backend that KERAS_BACKEND names; skipped where TensorFlow is not."""

import numpy as np
import pytest
from keras_case import BACKEND, keras
from PIL import Image

from van.images.preprocess import IMAGENET, Preprocess
from van.keras import VANImageConverter, preprocess_input

tf = pytest.importorskip("tensorflow", reason="lane keras has it")

RECORDS = [
    Preprocess(size=48),
    Preprocess(size=(32, 48), crop_pct=0.875, interpolation="bilinear"),
    Preprocess(size=33, crop_pct=1.0, interpolation="nearest"),
    Preprocess(size=32, interpolation="lanczos", mean=(0.5,), std=(0.25,)),
    IMAGENET.with_overrides(size=(56, 40), resize="squash"),
    IMAGENET.with_overrides(size=(40, 56), resize="squash"),
]
SIDES = ((90, 70), (40, 50), (31, 77), (150, 30))


def pictures():
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (*sides, 3), np.uint8) for sides in SIDES]


def stream(images, shape):
    return tf.data.Dataset.from_generator(lambda: images, output_signature=tf.TensorSpec(shape, tf.uint8))


@pytest.mark.promise("19")
@pytest.mark.parametrize("record", RECORDS)
def test_images_of_unknown_size_become_what_the_executor_makes(record):
    converter = VANImageConverter(**record.to_dict(), data_format="channels_last")
    prepared = list(stream(pictures(), (None, None, 3)).map(converter, num_parallel_calls=2))
    assert all(tf.is_tensor(each) for each in prepared)
    for got, pixels in zip(prepared, pictures(), strict=True):
        want = record(Image.fromarray(pixels)).transpose(1, 2, 0)
        gray_levels = np.abs(got.numpy() - want) * 255 * np.array(record.std)
        assert gray_levels.max() < 1.01
        assert (gray_levels > 0.01).mean() < 0.01  # a rounding tie now and then


@pytest.mark.promise("19")
def test_batches_of_known_size_and_labels_beside_them():
    images, labels = np.stack([pictures()[0]] * 4).transpose(0, 3, 1, 2), np.arange(4)
    converter = VANImageConverter(size=32, data_format="channels_first")
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(3)
    first, second = data.map(lambda x, y: (converter(x), y))
    assert (first[0].shape, second[0].shape) == ((3, 3, 32, 32), (1, 3, 32, 32))
    want = keras.ops.convert_to_numpy(converter(images))
    gray_levels = np.abs(np.concatenate([first[0], second[0]]) - want) * 127.5
    assert gray_levels.max() < 1.01
    assert (gray_levels > 0.01).mean() < 0.01
    assert data.map(lambda x, y: converter(x)).element_spec.shape[1:] == (3, 32, 32)


@pytest.mark.promise("19")
def test_pipeline_feeds_fit():
    converter = VANImageConverter(size=8, mean=(0.5,), std=(0.25,), data_format="channels_last")
    data = stream(pictures(), (None, None, 3)).map(lambda x: (converter(x), 0)).batch(3)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert np.isfinite(model.fit(data, verbose=0).history["loss"][0])


@pytest.mark.promise("19")
def test_other_channels_and_giant_strips_are_refused():
    converter = VANImageConverter(size=32, data_format="channels_last")
    with pytest.raises(Exception, match="images have 4 channels"):  # which TensorFlow wraps
        stream([], (None, None, 4)).map(converter)
    strip = np.zeros((1, 3_000_000, 3), np.uint8)
    with pytest.raises(tf.errors.InvalidArgumentError, match="resized to more than"):
        list(stream([strip], (None, None, 3)).map(converter))


@pytest.mark.promise("19")
def test_eager_tensors_become_the_backends_own():
    converter = VANImageConverter(size=32, data_format="channels_last")
    (pixels, *_) = pictures()
    out = converter(tf.constant(pixels))
    assert np.array_equal(keras.ops.convert_to_numpy(out), keras.ops.convert_to_numpy(converter(pixels)))
    assert tf.is_tensor(out) is (BACKEND == "tensorflow")


@pytest.mark.promise("19")
def test_preprocess_input_in_a_pipeline():
    (pixels, *_) = pictures()
    (got,) = stream([pixels], (None, None, 3)).map(preprocess_input)
    np.testing.assert_allclose(got, preprocess_input(pixels), rtol=0, atol=1e-6)
