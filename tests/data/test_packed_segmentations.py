"""Segmentations in few bytes: what comes out is what went in, to the last bit."""

import numpy as np
import pytest

from van.data.packed_segmentations import pack, unpack


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2, 3.25, 4.01, 5.5, 6]],
        [[0.1, 0.2, 0.3], [511.99, 640, 3.07, 8]],
        [[1 / 3, 2 / 3, 0.1, 0.2, 0.3, 0.4]],
        [[1e300, 2, 3, 4, 5, 6]],
        [[2**31, 2, 3, 4, 5, 6.25]],
        [[10**400, 1]],
        [[]],
        [[], [1, 2]],
        [[1, "2"]],
        [[True, 2]],
        [1, 2, 3],
        {"size": [3, 4], "counts": "52203"},
        {"size": [3, 4], "counts": [5, 7]},
        "nonsense",
        5,
    ],
)
def test_nothing_changes(value):
    assert unpack(pack(value)) == value


def test_nan_stays():
    (numbers,) = unpack(pack([[float("nan"), 1.0]]))
    assert np.isnan(numbers[0])


def test_nothing_is_no_bytes():
    assert pack(None) == pack([]) == b""


def test_decimals_of_coco_take_four_bytes_each():
    numbers = (np.random.default_rng(0).integers(0, 64_000, 1000) / 100).tolist()
    assert unpack(pack([numbers])) == [numbers]
    assert len(pack([numbers])) < 4100
