"""What networks get of an image: as torchvision's detectors prepare it."""

import numpy as np
import pytest
import torch
from fake_objects import fake_model
from PIL import Image

from van.errors import ConfigError
from van.tasks.coco.resizing import Resizing


def picture(height, width):
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def resizing(**options):
    return Resizing.of(fake_model("detection", **options).config)


@pytest.mark.parametrize("size", [(50, 70), (70, 50), (64, 64), (31, 200), (333, 127)])
def test_an_image_becomes_what_torchvision_makes_of_it(size):
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    own = resizing(min_size=64, max_size=96)
    transform = GeneralizedRCNNTransform(64, 96, list(own.mean), list(own.std)).eval()
    pixels = torch.from_numpy(np.array(picture(*size))).permute(2, 0, 1).float() / 255
    theirs, _ = transform([pixels])
    seen = own.resized(own.pixels(picture(*size)))
    assert tuple(seen.shape[-2:]) == theirs.image_sizes[0]
    assert torch.equal(own.padded(seen), theirs.tensors[0])


def test_a_scale_is_a_factor_on_both_sides():
    assert resizing(min_size=100, max_size=150).size(50, 60, 0.5) == (50, 60)
    assert resizing(min_size=100, max_size=150).size(50, 60, 2.0) == (200, 240)


def test_a_thin_strip_keeps_a_row():
    assert resizing(min_size=64, max_size=96).size(1, 1000) == (1, 96)


def test_a_size_replaces_the_models_own_in_proportion():
    config = fake_model("detection", min_size=80, max_size=100).config
    assert (Resizing.of(config, 40).min_size, Resizing.of(config, 40).max_size) == (40, 50)
    assert (Resizing.of(config, (60, 40)).min_size, Resizing.of(config, (60, 40)).max_size) == (40, 60)


@pytest.mark.parametrize("size", [0, -3, (1, 2, 3), True, 2**17])
def test_a_size_that_cannot_be_is_refused(size):
    with pytest.raises(ConfigError, match="expected pixels"):
        Resizing.of(fake_model("detection").config, size)


def test_stretched_images_are_squares():
    from van.configs.dfine import DFINES

    own = Resizing.of(DFINES["dfine_van_b0"])
    assert own.size(100, 300) == (640, 640)
    assert own.size(100, 300, 0.51) == (352, 352)  # 326, rounded up: nothing is padded
    with pytest.raises(ConfigError, match="takes squares"):
        Resizing.of(DFINES["dfine_van_b0"], (640, 320))
