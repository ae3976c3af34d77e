"""Segmentation scores on cases that can be counted by hand."""

import json
import math
import warnings

import numpy as np
import pytest

from van.errors import ConfigError, DataError
from van.tasks.segmentation import confusion_matrix as segmentation
from van.tasks.segmentation.confusion_matrix import ConfusionMatrix


def counted(prediction, label, num_classes=3, **options):
    matrix = ConfusionMatrix(num_classes, **options)
    matrix.update(np.array(prediction, np.uint8), np.array(label, np.uint8))
    return matrix


def test_by_hand():
    # class 0: 3 label pixels, 2 hit, 2 predicted; class 1: 2 label, 1 hit, 2 predicted; class 2: 1, 1, 2
    matrix = counted([[0, 0, 1], [1, 2, 2]], [[0, 0, 0], [1, 1, 2]])
    np.testing.assert_array_equal(matrix.counts, [[2, 1, 0], [0, 1, 1], [0, 0, 1]])
    np.testing.assert_allclose(matrix.iou, [2 / 3, 1 / 3, 1 / 2])
    np.testing.assert_allclose(matrix.accuracy, [2 / 3, 1 / 2, 1])
    assert matrix.summary() == pytest.approx({"aAcc": 4 / 6, "mIoU": 1 / 2, "mAcc": (2 / 3 + 1 / 2 + 1) / 3})
    assert matrix.pixels == 6


@pytest.mark.promise("22")
def test_dice_and_fscore_by_hand():
    # as in the first test; precision 2/2, 1/2, 1/2, recall 2/3, 1/2, 1
    matrix = counted([[0, 0, 1], [1, 2, 2]], [[0, 0, 0], [1, 1, 2]])
    np.testing.assert_allclose(matrix.dice, [4 / 5, 2 / 4, 2 / 3])
    np.testing.assert_allclose(matrix.precision, [1, 1 / 2, 1 / 2])
    np.testing.assert_allclose(matrix.fscore, matrix.dice)  # the same where both precision and recall are known
    assert matrix.means()["mDice"] == pytest.approx((4 / 5 + 2 / 4 + 2 / 3) / 3)
    assert matrix.scores()["Recall.0"] == pytest.approx(2 / 3)


@pytest.mark.promise("22")
def test_a_class_without_precision_or_recall_has_no_fscore_as_in_mmseg():
    never_predicted = counted([[0, 0, 0]], [[0, 0, 1]])
    np.testing.assert_allclose(never_predicted.dice, [4 / 5, 0, math.nan])
    np.testing.assert_allclose(never_predicted.fscore, [4 / 5, math.nan, math.nan])
    assert never_predicted.means() == pytest.approx(
        {"aAcc": 2 / 3, "mIoU": 1 / 3, "mAcc": 1 / 2, "mDice": 2 / 5, "mFscore": 4 / 5}
    )
    all_wrong = counted([[1, 0]], [[0, 1]], num_classes=2)  # precision and recall are 0
    np.testing.assert_allclose(all_wrong.dice, [0, 0])
    assert math.isnan(all_wrong.means()["mFscore"])


def test_ignored_pixels_count_nowhere_not_even_in_the_prediction():
    matrix = counted([[0, 0, 1], [1, 2, 2]], [[0, 255, 255], [1, 255, 2]])
    np.testing.assert_array_equal(matrix.counts, np.eye(3))
    assert matrix.summary() == {"aAcc": 1.0, "mIoU": 1.0, "mAcc": 1.0}
    assert matrix.pixels == 3


def test_ignored_value_may_be_a_class_number():
    matrix = counted([[0, 1]], [[0, 1]], ignore_index=0)
    np.testing.assert_array_equal(matrix.counts.sum(1), [0, 1, 0])


def test_absent_class_leaves_the_means():
    matrix = counted([[0, 0, 1, 1]], [[0, 0, 0, 1]])
    assert math.isnan(matrix.iou[2])
    assert math.isnan(matrix.accuracy[2])
    assert matrix.summary() == pytest.approx({"aAcc": 3 / 4, "mIoU": (2 / 3 + 1 / 2) / 2, "mAcc": (2 / 3 + 1) / 2})


def test_class_that_is_only_predicted_counts_in_iou_but_not_in_accuracy():
    matrix = counted([[0, 0, 2]], [[0, 0, 0]])
    np.testing.assert_allclose(matrix.iou, [2 / 3, math.nan, 0])
    assert matrix.summary() == pytest.approx({"aAcc": 2 / 3, "mIoU": (2 / 3 + 0) / 2, "mAcc": 2 / 3})


def test_class_that_is_never_predicted_counts_as_zero_in_both():
    matrix = counted([[0, 0, 0]], [[0, 0, 1]], num_classes=2)
    assert matrix.summary() == pytest.approx({"aAcc": 2 / 3, "mIoU": (2 / 3 + 0) / 2, "mAcc": (1 + 0) / 2})


@pytest.mark.parametrize("label", [np.full((2, 2), 255), np.empty((0, 4))])
def test_nothing_to_count_is_nan_without_a_warning(label):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matrix = counted(np.zeros(label.shape), label)
        assert all(math.isnan(value) for value in matrix.scores().values())
        assert matrix.pixels == 0


def test_parts_add_up_exactly():
    rng = np.random.default_rng(0)
    label, prediction = (rng.integers(0, 5, (6, 7, 8)).astype(np.uint8) for _ in range(2))
    label[rng.random(label.shape) < 0.1] = 255
    whole, odd, even = (ConfusionMatrix(5) for _ in range(3))
    for i in range(6):
        whole.update(prediction[i], label[i])
        (odd if i % 2 else even).update(prediction[i], label[i])
    total = odd + even
    np.testing.assert_array_equal(total.counts, whole.counts)
    assert total.scores() == whole.scores()
    with pytest.raises(ConfigError, match="cannot add a matrix of 4 classes"):
        odd + ConfusionMatrix(4)


def test_large_pictures_are_counted_in_chunks(monkeypatch):
    rng = np.random.default_rng(1)
    label, prediction = (rng.integers(0, 3, (13, 17)).astype(np.uint8) for _ in range(2))
    whole = counted(prediction, label)
    monkeypatch.setattr(segmentation, "CHUNK_PIXELS", 10)
    np.testing.assert_array_equal(counted(prediction, label).counts, whole.counts)


def test_equals_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics.classification")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    label, prediction = (rng.integers(0, 9, (40, 50)).astype(np.uint8) for _ in range(2))
    label[:5] = 255
    theirs = torchmetrics.MulticlassConfusionMatrix(9, ignore_index=255)
    theirs.update(torch.from_numpy(prediction).long(), torch.from_numpy(label).long())
    np.testing.assert_array_equal(counted(prediction, label, 9).counts, theirs.compute().numpy())


def test_key_names_and_json():
    matrix = counted([[0, 0, 1]], [[0, 0, 0]])
    scores = matrix.scores(["wall", "floor, flooring", "sky"])
    names = ["wall", "floor, flooring", "sky"]
    first = ["aAcc", "mIoU", "mAcc", *(f"{k}.{n}" for k in ("IoU", "Acc") for n in names)]
    added = ["mDice", "mFscore", "mPrecision", "mRecall"]
    added += [f"{k}.{n}" for k in ("Dice", "Fscore", "Precision", "Recall") for n in names]
    assert list(scores) == first + added
    assert scores["IoU.wall"] == pytest.approx(2 / 3)
    document = json.loads(json.dumps(matrix.to_dict(names), allow_nan=False))
    assert document["IoU.sky"] is None
    assert document["confusion_matrix"] == [[2, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert matrix.table(names)[1]["predicted_pixels"] == 1
    with pytest.raises(ConfigError, match="2 class names for a matrix of 3"):
        matrix.scores(["a", "b"])


def test_values_outside_the_classes_are_named():
    label = np.array([[0, 1, 7], [7, 9, 255]], np.uint8)
    matrix = ConfusionMatrix(3)
    with pytest.raises(DataError, match=r"b\.png holds 7 \(2 pixels\), 9 \(1 pixels\); expected classes 0 to 2 or 255"):
        matrix.update(np.zeros_like(label), label, name="b.png")
    with pytest.raises(DataError, match=r"prediction for b\.png holds 5"):
        matrix.update(np.full((1, 1), 5), np.zeros((1, 1), int), name="b.png")
    with pytest.raises(DataError, match="holds -1"):
        matrix.update(np.zeros((1, 1), int), np.full((1, 1), -1))


def test_sizes_must_agree():
    with pytest.raises(DataError, match=r"b\.png has shape \(2, 3\), its prediction \(3, 2\)"):
        ConfusionMatrix(3).update(np.zeros((3, 2), int), np.zeros((2, 3), int), name="b.png")
    with pytest.raises(ConfigError, match="num_classes is 0"):
        ConfusionMatrix(0)
