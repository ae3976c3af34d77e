"""A picture that a segmenter cannot use leaves the others of the list alone."""

import numpy as np
import pytest
from PIL import Image

import van
from van.inference.predictor import Failure, MaskPrediction


@pytest.mark.promise("13")
def test_one_unusable_picture_does_not_end_the_others():
    model = van.create_model("light_ham_van_b0", num_classes=2)
    predictor = van.Predictor(model, inference={"resize": None})
    good, bad = Image.new("RGB", (40, 30)), Image.fromarray(np.full((30, 40), np.nan, np.float32))
    first, second, third = predictor.predict_many([good, bad, good])
    assert isinstance(second, Failure)
    assert "NaN" in second.reason
    assert isinstance(first, MaskPrediction)
    assert isinstance(third, MaskPrediction)
