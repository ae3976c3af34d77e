"""Mirroring moves an image and its label map together, and leaves random numbers alone where it is off."""

import numpy as np
import pytest
import torch
from PIL import Image

from van.data.joint import JointTransform
from van.errors import ConfigError
from van.images.preprocess import Preprocess
from van.recipes import get_recipe

PLAIN = {"crop": (6, 8), "base": None, "scale": (1.0, 1.0), "max_class_share": 1.0, "photometric": False}
PIXELS = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
LABELS = np.arange(48, dtype=np.uint8).reshape(6, 8)


def transformed(seed=0, **options):
    transform = JointTransform(preprocess=Preprocess(mean=(0, 0, 0), std=(1, 1, 1)), **{**PLAIN, **options})
    return transform(Image.fromarray(PIXELS), LABELS, np.random.default_rng(seed))


@pytest.mark.promise("22")
@pytest.mark.parametrize(("flip", "vflip"), [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)])
def test_both_are_mirrored(flip, vflip):
    image, labels = transformed(flip=flip, vflip=vflip)
    axes = [axis for axis, chance in ((0, vflip), (1, flip)) if chance]
    assert np.array_equal(labels.numpy(), np.flip(LABELS, axes))
    want = torch.from_numpy(np.flip(PIXELS, axes).copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(image, want)


@pytest.mark.promise("22")
def test_about_half_are_mirrored_top_to_bottom():
    upside_down = [int(transformed(seed, flip=0.0, vflip=0.5)[1][0, 0]) == 40 for seed in range(200)]
    assert 70 < sum(upside_down) < 130


@pytest.mark.promise("22")
def test_what_cannot_be():
    with pytest.raises(ConfigError, match="vflip is 2"):
        JointTransform(preprocess=Preprocess(), vflip=2.0)
    with pytest.raises(ConfigError, match=r"augment\.vflip is -1"):
        get_recipe("light_ham_digits").with_options(**{"augment.vflip": -1.0})
