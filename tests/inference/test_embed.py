"""Features of stages."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import TINY, lived_in, tiny

import van
from van.configs.segmenter import SEGMENTERS
from van.errors import ConfigError, DataError
from van.images.preprocess import Preprocess
from van.inference.embed import Embedder, embed
from van.inference.predictor import Failure
from van.nn.segmenter import Segmenter


@pytest.fixture
def classifier():
    model = tiny().eval()
    model.preprocess = Preprocess(size=(64, 64))
    return model


@pytest.fixture
def segmenter():
    config = SEGMENTERS["light_ham_van_b0"]
    config = replace(
        config, backbone=TINY.with_options(num_classes=0), num_classes=3, channels=32, ham_channels=32, ham_rank=4
    )
    return lived_in(Segmenter(config)).eval()


def noise(seed=0, shape=(70, 80, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def prepared(embedder, image):
    from PIL import Image

    (inputs,) = embedder.processor.inputs(Image.fromarray(image))
    return torch.from_numpy(inputs)[None]


def test_the_last_map_is_forward_features(classifier):
    embedder = Embedder(classifier, pool="none", optimize=False)
    with torch.no_grad():
        expected = classifier.forward_features(prepared(embedder, noise()))[0].numpy()
    assert expected.shape == (32, 2, 2)
    np.testing.assert_allclose(embedder(noise()), expected, rtol=1e-5, atol=1e-6)


def test_the_pooled_feature_is_what_the_head_gets(classifier):
    embedder = Embedder(classifier)
    with torch.no_grad():
        x = classifier.forward_features(prepared(embedder, noise()))
        expected = classifier.forward_head(x, pre_logits=True)[0].numpy()
    np.testing.assert_allclose(embedder(noise()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_every_stage_of_another_task(segmenter, stage):
    embedder = Embedder(segmenter, stage=stage, pool="none")
    with torch.no_grad():
        expected = segmenter.backbone(prepared(embedder, noise()))[stage - 1][0].numpy()
    found = embedder(noise())
    assert found.shape[0] == embedder.channels
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_many_images_in_order_and_bad_ones_as_failures(classifier):
    images = [noise(0), b"nothing", noise(1), noise(2)]
    found = list(Embedder(classifier, batch_size=2).embed_many(images))
    assert isinstance(found[1], Failure)
    assert found[1].image == "image 1"
    for image, features in zip(images, found, strict=True):
        if not isinstance(image, bytes):
            np.testing.assert_allclose(features, Embedder(classifier)(image), rtol=1e-5, atol=1e-6)


def test_images_of_several_sizes_give_maps_of_several_sizes(segmenter):
    embedder = Embedder(segmenter, stage=1, pool="none")
    shapes = [(64, 64, 3), (64, 128, 3), (64, 128, 3)]
    found = list(embedder.embed_many(noise(0, shape) for shape in shapes))
    assert found[0].shape != found[1].shape == found[2].shape
    with pytest.raises(DataError, match="one array needs one shape"):
        embed(segmenter, [noise(0, shape) for shape in shapes], stage=1, pool="none")


def test_embed_is_public_and_stacks(classifier):
    assert van.embed(classifier, [noise(0), noise(1)], stage=3).shape == (2, 24)
    assert van.embed(classifier, []).shape == (0, 32)
    with pytest.raises(DataError, match="image 1"):
        van.embed(classifier, [noise(0), b"nothing"])


def test_an_embedder_can_be_pickled(classifier):
    embedder = Embedder(classifier, stage=2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(embedder))(noise()), embedder(noise()))


def test_features_that_are_no_numbers_are_a_failure(classifier):
    with torch.no_grad():
        classifier.backbone.stages[3].norm.weight.fill_(float("nan"))
    with pytest.raises(DataError, match="not finite"):
        Embedder(classifier)(noise())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stage": 0}, "stage is 0; expected 1 to 4"),
        ({"stage": 5}, "stage is 5; expected 1 to 4"),
        ({"pool": "max"}, "pool is 'max'; expected one of avg, none"),
        ({"flip": True}, "flip belongs to"),
    ],
)
def test_options_that_cannot_be_are_refused(classifier, options, says):
    with pytest.raises(ConfigError, match=says):
        Embedder(classifier, **options)


def test_several_views_have_no_features_in_common(segmenter):
    with pytest.raises(DataError, match="several windows or scales"):
        Embedder(segmenter, flip=True)(noise())


def test_what_has_no_stages_is_refused():
    class Other(torch.nn.Module):
        num_classes = 3
        config = TINY.with_options(num_classes=3)

        def forward(self, images):
            return images.mean((2, 3))

    with pytest.raises(ConfigError, match="has no stages"):
        Embedder(Other())
