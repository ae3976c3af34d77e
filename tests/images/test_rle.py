"""Run-length masks: pycocotools' format, both ways, and damaged ones are refused before they are decoded."""

import numpy as np
import pytest

from van.errors import DataError
from van.images import rle
from van.images.rle import Rle

SIZE = (7, 5)


def masks(count=6, size=SIZE, seed=0):
    return (np.random.default_rng(seed).random((count, *size)) < 0.4).astype(np.uint8)


def test_encoding_is_pycocotools_and_decodes_to_the_same_masks():
    from pycocotools import mask as reference

    given = np.concatenate((masks(), np.zeros((1, *SIZE), np.uint8), np.ones((1, *SIZE), np.uint8)))
    encoded = rle.encode(given)
    columns = np.asfortranarray(given.transpose(1, 2, 0))
    assert [each.counts for each in encoded] == [each["counts"] for each in reference.encode(columns)]
    assert (rle.decode(encoded, SIZE) == given).all()
    assert (rle.areas(encoded) == given.sum((1, 2))).all()


def test_every_value_but_zero_belongs_to_the_mask():
    given = masks()
    assert rle.encode(given * 255) == rle.encode(given.astype(bool)) == rle.encode(given)


def test_boxes_go_around_the_pixels():
    given = np.zeros((2, *SIZE), np.uint8)
    given[0, 2:5, 1:3] = 1
    assert rle.boxes(rle.encode(given)).tolist() == [[1, 2, 3, 5], [0, 0, 0, 0]]


def test_no_masks_are_no_masks():
    assert rle.encode(np.zeros((0, *SIZE), np.uint8)) == []
    assert rle.decode([], SIZE).shape == (0, *SIZE)
    assert rle.areas([]).shape == (0,)
    assert rle.boxes([]).shape == (0, 4)


@pytest.mark.parametrize("size", [SIZE, (300, 400)])
def test_reading_takes_texts_bytes_and_run_lengths(size):
    for encoded, mask in zip(rle.encode(masks(size=size)), masks(size=size), strict=True):
        assert Rle.read(encoded.to_json(), size) == encoded
        assert Rle.read({"size": list(size), "counts": encoded.counts}) == encoded
        changes = np.flatnonzero(np.diff(np.concatenate(([0], mask.T.ravel()))))
        runs = np.diff(np.concatenate(([0], changes, [mask.size]))).tolist()
        assert Rle.read({"size": list(size), "counts": runs}, size) == encoded


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("text", "no run-length encoding"),
        ({"size": [7, 5]}, "no run-length encoding"),
        ({"size": [5, 7], "counts": "S1"}, "5 x 7 pixels, its image 7 x 5"),
        ({"size": [7], "counts": "S1"}, "expected .height, width."),
        ({"size": [7, 2**20], "counts": "S1"}, "expected .height, width."),
        ({"size": [7, 5.0], "counts": "S1"}, "expected .height, width."),
        ({"size": [7, 5], "counts": ""}, "are empty"),
        ({"size": [7, 5], "counts": "7"}, "cover 7 pixels, the mask of 7 x 5 has 35"),
        ({"size": [7, 5], "counts": "S"}, "end within a number"),
        ({"size": [7, 5], "counts": "zz"}, "characters that"),
        ({"size": [7, 5], "counts": "\u00e9"}, "outside ASCII"),
        ({"size": [7, 5], "counts": "oooooooo0"}, "beyond any image"),
        ({"size": [7, 5], "counts": "?O"}, "negative"),
        ({"size": [7, 5], "counts": [3, 4]}, "cover 7 pixels"),
        ({"size": [7, 5], "counts": [40, -5]}, "run length is -5"),
        ({"size": [7, 5], "counts": [35.0]}, "run length is 35.0"),
        ({"size": [7, 5], "counts": 35}, "expected a text or a list"),
    ],
)
def test_damaged_masks_are_refused(value, says):
    with pytest.raises(DataError, match=says):
        Rle.read(value, SIZE)


def test_polygons_are_filled_as_pycocotools_fills_them():
    from pycocotools import mask as reference

    rng = np.random.default_rng(3)
    for _ in range(20):
        polygons = [rng.uniform(-5, 45, 2 * int(rng.integers(3, 9))).round(2).tolist() for _ in range(2)]
        expected = reference.merge(reference.frPyObjects(polygons, 30, 40))
        assert rle.from_polygons(polygons, (30, 40)) == Rle((30, 40), expected["counts"])
        assert rle.read_segmentation(polygons, (30, 40)).counts == expected["counts"]


@pytest.mark.parametrize(
    ("polygons", "says"),
    [
        ([], "without polygons"),
        ([[0, 0, 1, 1]], "has 4 numbers"),
        ([[0, 0, 1, 1, 2, 2, 3]], "has 7 numbers"),
        ([[0, 0, 1, 1, 2, float("nan")]], "reaches nan"),
        ([[0, 0, 1, 1, 2, "3"]], "a polygon is .0, 0, 1, 1, 2, '3'"),
        ([[0, 0, 1, 1, 2, 1e9]], "reaches 1e.09"),
        ([5], "a polygon is 5"),
    ],
)
def test_impossible_polygons_are_refused(polygons, says):
    with pytest.raises(DataError, match=says):
        rle.read_segmentation(polygons, SIZE)
