"""The report of a segmentation run: scores per class, confusion matrix, worst pictures; and the ticks of its charts."""

import json
import re

import numpy as np
import pytest
from tiny_segmentation import slim_segmentation

from van.data.scenes import Scenes
from van.data.segmentation import SegmentationData
from van.images.confusion_picture import confusion_picture
from van.tasks.segmentation.confusion_matrix import ConfusionMatrix
from van.tools.report.evaluator import WORST_MASKS, look_at_masks
from van.tools.report.page import ticks, write_report
from van.train import run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(slim_segmentation(tmp_path_factory.mktemp("runs") / "seg", **{"data.val_images": 12}))


def test_report_of_a_segmentation_run(finished):
    text = write_report(finished).read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == [
        "Curves", "Classes", "Confusion matrix", "Worst-segmented images", "Last epochs", "Recipe", "Environment",
    ]  # fmt: skip
    classes = text.split("<h2>Classes</h2>")[1].split("<h2>")[0]
    assert classes.count("<tr>") == 1 + 11
    pixels = sum(int(cells[0].replace(",", "")) for cells in re.findall(r"<td>([\d,]+)</td><td>([\d,]+)</td>", classes))
    assert pixels == 12 * 32 * 32  # of the pictures that the validations looked at
    ious = [float(share) for share in re.findall(r"</span>([\d.]+)%</td><td>", classes)]
    summary = json.loads((finished / "summary.json").read_text())
    assert np.mean(ious) == pytest.approx(100 * summary["val/mIoU"], abs=0.06)
    worst = text.split("<h2>Worst-segmented images</h2>")[1].split("<h2>")[0]
    assert worst.count("<img") == 3 * WORST_MASKS
    shown = [float(share) for share in re.findall(r"mIoU ([\d.]+)%", worst)]
    assert shown == sorted(shown)


def test_the_worst_pictures_are_the_worst(finished):
    data = Scenes("val", size=32)
    matrix, misses = look_at_masks(finished / "model.safetensors", data, images=12, device="cpu")
    everyone = []

    class One(SegmentationData):
        classes, palette, ignore_index, split = data.classes, data.palette, data.ignore_index, "val"

        def __init__(self, place):
            self.place = place

        def __len__(self):
            return 1

        def load(self, index):
            return data.load(self.place)

        def name(self, index):
            return str(self.place)

    from van.data.infinite_sampler import spread

    total = ConfusionMatrix(len(data.classes))
    for place in spread(len(data), 12):
        one, _ = look_at_masks(finished / "model.safetensors", One(place), images=None, device="cpu")
        everyone.append(one.summary()["mIoU"])
        total += one
    assert (total.counts == matrix.counts).all()
    assert [miss.iou for miss in misses] == pytest.approx(sorted(everyone)[:WORST_MASKS])


def test_counts_of_pixels_are_shares_in_the_picture():
    """Numbers that would not fit a cell: the picture is as that of a matrix of a hundredth of them, text aside."""
    few = np.array([[900, 100], [1, 999]])
    assert confusion_picture(few, ("a", "b")) != confusion_picture(few * 100, ("a", "b"))
    assert confusion_picture(few * 1000, ("a", "b")) == confusion_picture(few * 10_000, ("a", "b"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.19, 0.756], [0.0, 0.2, 0.4, 0.6, 0.8]),
        ([1.25e-6, 0.0015], [0.0, 0.0005, 0.001, 0.0015]),
        ([90.0, 99.7], [90.0, 92.5, 95.0, 97.5, 100.0]),
        ([-3.0, 4.0], [-4.0, -2.0, 0.0, 2.0, 4.0]),
        ([], [0.0, 0.25, 0.5, 0.75, 1.0]),
    ],
)
def test_ticks_are_round_and_reach_around(values, expected):
    assert ticks(values) == expected
    assert len(ticks([5.0])) >= 2
