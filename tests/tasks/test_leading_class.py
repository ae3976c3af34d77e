"""The class that stands out in a result, of every task that has one."""

import numpy as np
from PIL import Image

from van.tasks.classification.output import Prediction
from van.tasks.results import Output
from van.tasks.segmentation.output import MaskPrediction


def test_a_classifiers_is_the_likeliest():
    prediction = Prediction(image="x.jpg", top=(("cat", 1, 0.75), ("dog", 0, 0.25)))
    assert prediction.leading() == ("cat", 1, 0.75)


def test_a_segmenters_covers_most_pixels():
    mask = np.array([[2, 2, 0], [2, 1, 0]])
    prediction = MaskPrediction(
        image="x.jpg",
        picture=Image.new("RGB", (3, 2)),
        mask=mask,
        classes=("sky", "road", "tree"),
        palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)),
    )
    assert prediction.leading() == ("tree", 2, 0.5)


def test_a_task_need_not_have_one():
    class Boxes(Output):
        image = "x.jpg"

        def to_dict(self):
            return {}

        def draw(self):
            return Image.new("RGB", (1, 1))

    assert Boxes().leading() is None
