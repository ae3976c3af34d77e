"""Raw outputs of two forms of a detector: what counts as the same."""

import numpy as np
import pytest

from van.tasks.detection.comparison import COMPARISON


def queries(boxes, logits):
    return {"logits": np.array([logits], np.float32), "boxes": np.array([boxes], np.float32)}


ORIGINAL = queries([[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1]], [[2, -3], [-1, 1], [-4, -4]])


def test_queries_in_another_order_are_the_same_answers():
    pytest.importorskip("scipy")
    other = {name: values[:, [1, 2, 0]] for name, values in ORIGINAL.items()}
    aligned = COMPARISON.aligned(other, ORIGINAL)
    assert all(np.array_equal(aligned[name], ORIGINAL[name]) for name in ORIGINAL)
    assert COMPARISON.agreement([other], [ORIGINAL]) == 1.0


def test_a_class_that_is_gone_is_another_answer():
    pytest.importorskip("scipy")
    other = {name: values.copy() for name, values in ORIGINAL.items()}
    other["logits"][0, 0, 0] = -0.5
    assert COMPARISON.agreement([other], [ORIGINAL]) == pytest.approx(5 / 6)


def test_maps_stay_in_their_places():
    maps = {
        "logits_p3": np.array([[[[1.0, -1.0]]]]),
        "logits_p4": np.array([[[[-1.0]]]]),
        "deltas_p3": np.ones((1, 4, 1, 2)),
    }
    assert COMPARISON.aligned(maps, maps) is maps
    assert COMPARISON.decide(maps).tolist() == [True, False, False]


def test_outputs_that_are_no_numbers_are_left_for_the_errors_to_show():
    other = ORIGINAL | {"boxes": np.full_like(ORIGINAL["boxes"], np.nan)}
    assert np.isnan(COMPARISON.aligned(other, ORIGINAL)["boxes"]).all()
