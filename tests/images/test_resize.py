"""Bilinear resizing of 8-bit pictures, bit for bit that of OpenCV."""

import hashlib

import numpy as np
import pytest

from van.images import resize
from van.images.resize import fit_within, resize_bilinear, round_up

# shape, new size, first digits of the sha256 of what cv2.resize (5.0.0, INTER_LINEAR) makes of pattern(shape)
MEASURED = [
    ((75, 97, 3), (80, 103), "a9eef7e66bf85621"),
    ((683, 512, 3), (512, 384), "763d940c9d08b8e1"),
    ((64, 83, 3), (96, 96), "8f5efcb32e6d4815"),
    ((300, 400, 3), (150, 200), "ad506ffec02e5166"),
    ((33, 50, 1), (64, 64), "9f03e739af625d73"),
    ((300, 410, 3), (37, 49), "371b3420aa9f560e"),
]


def pattern(height, width, channels):
    numbers = np.arange(height * width * channels, dtype=np.uint64) * 2654435761 >> np.uint64(11)
    return numbers.astype(np.uint8).reshape(height, width, channels)


@pytest.mark.parametrize("rows", [256, 7])
@pytest.mark.parametrize(("shape", "size", "digest"), MEASURED)
def test_bits_are_those_of_opencv(shape, size, digest, rows, monkeypatch):
    monkeypatch.setattr(resize, "BAND_ROWS", rows)
    out = resize_bilinear(pattern(*shape), size)
    assert out.shape == (*size, shape[2])
    assert hashlib.sha256(out.tobytes()).hexdigest()[:16] == digest


def test_by_hand():
    column = np.array([0, 100], np.uint8).reshape(2, 1, 1)
    assert resize_bilinear(column, (4, 1)).flatten().tolist() == [0, 25, 75, 100]
    assert resize_bilinear(np.array([[[0], [1]]], np.uint8), (1, 1)).item() == 1  # halves go up
    same = pattern(5, 6, 3)
    assert resize_bilinear(same, (5, 6)) is same


def test_sizes():
    assert fit_within(683, 512, 2048, 512) == (683, 512)
    assert fit_within(500, 3000, 2048, 512) == (341, 2048)
    assert fit_within(1, 1000, 10, 10) == (1, 10)
    assert round_up((33, 64), 32) == (64, 64)
    assert round_up((33, 65), 1) == (33, 65)
