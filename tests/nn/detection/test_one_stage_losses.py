"""The losses of RetinaNet, ATSS and GFL: hand-made values, gradients by finite differences, perfect answers."""

import math

import pytest
import torch

pytest.importorskip("torchvision")

from torchvision_detectors import tiny

from van.nn.detection.anchors import anchors_of, centers_of
from van.nn.detection.assignment import by_overlap, by_statistics
from van.nn.detection.one_stage_losses import (
    centerness,
    distribution_focal_loss,
    expected_distance,
    paired_iou,
    quality_focal_loss,
)

LN2 = math.log(2)


class TestQualityFocalLoss:
    def test_is_squared_distance_times_cross_entropy(self):
        logits = torch.zeros(2, 2)  # probability 0.5 everywhere
        labels, quality = torch.tensor([1, 2]), torch.tensor([0.9, 0.0])
        # quality 0.9 of one class: 0.4² · ln 2; quality 0 of the three others: 0.5² · ln 2
        expected = 0.16 * LN2 + 3 * 0.25 * LN2
        assert quality_focal_loss(logits, labels, quality).item() == pytest.approx(expected)

    def test_vanishes_where_the_probability_is_the_quality(self):
        logits = torch.tensor([[math.log(0.7 / 0.3)]])
        assert quality_focal_loss(logits, torch.tensor([0]), torch.tensor([0.7])).item() == pytest.approx(0, abs=1e-12)

    def test_gradient_by_finite_differences(self):
        logits = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        labels, quality = torch.tensor([0, 3, 2, 1]), torch.tensor([0.3, 0.0, 0.8, 0.5], dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda x: quality_focal_loss(x, labels, quality), logits)


class TestDistributionFocalLoss:
    def test_is_the_cross_entropy_with_the_two_bins_around(self):
        logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
        log = logits.log_softmax(1)[0]
        found = distribution_focal_loss(logits, torch.tensor([1.25])).item()
        assert found == pytest.approx(-(0.75 * log[1] + 0.25 * log[2]).item())

    def test_whole_distances_and_the_last_bin(self):
        logits = torch.tensor([[1.0, 2.0, 3.0]] * 2)
        log = logits[0].log_softmax(0)
        found = distribution_focal_loss(logits, torch.tensor([1.0, 2.0]))
        assert found.tolist() == pytest.approx([-log[1].item(), -log[2].item()])

    def test_is_least_where_the_mean_is_the_distance(self):
        logits = torch.tensor([[-40.0, math.log(0.3), math.log(0.7), -40.0]], requires_grad=True)
        assert expected_distance(logits.detach()).item() == pytest.approx(1.7)
        distribution_focal_loss(logits, torch.tensor([1.7])).sum().backward()
        assert logits.grad.abs().max() < 1e-6

    def test_gradient_by_finite_differences(self):
        logits = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        distance = torch.tensor([0.2, 3.9, 2.0], dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda x: distribution_focal_loss(x, distance), logits)


def test_centerness_is_one_in_the_middle_and_falls_to_the_rim():
    boxes = torch.tensor([[0.0, 0, 8, 4]] * 3)
    places = torch.tensor([[4.0, 2], [2, 2], [0, 2]])
    assert centerness(places, boxes).tolist() == pytest.approx([1, math.sqrt(2 / 6), 0])


def test_paired_overlaps_are_torchvisions():
    from torchvision.ops import box_iou

    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 6, 2, generator=generator)
    boxes = torch.cat([corner, corner + torch.rand(2, 6, 2, generator=generator)], 2)
    torch.testing.assert_close(paired_iou(*boxes), box_iou(*boxes).diag())


# ---- whole losses of maps that are made for the purpose: one object of class 1 in an image of 64 x 96

OBJECT = torch.tensor([[20.0, 10.0, 50.0, 42.0]])
TARGET = {"boxes": OBJECT, "labels": torch.tensor([1]), "size": (64, 96)}
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "size": (64, 96)}
IMAGE = torch.zeros(1, 3, 64, 96)


class Answering:
    """A detector whose maps say the same at every anchor: `logit` to every class, `numbers` as deltas."""

    def __init__(self, name, logit=0.0, numbers=None, classes=None):
        self.model = tiny(name, smallest_anchor=16)
        maps = self.model.maps(IMAGE)
        self.levels = anchors_of(self.model.anchor_generator, maps["logits"], (64, 96))
        self.anchors, places = torch.cat(self.levels), self.model.places
        maps = {key: [torch.zeros_like(x) for x in value] for key, value in maps.items()}
        start = 0
        for level, x in enumerate(maps["logits"]):
            count, (h, w) = len(self.levels[level]), x.shape[-2:]
            maps["logits"][level] = torch.full_like(x, logit)
            if classes is not None:
                rows = classes[start : start + count]  # (h · w · a, K)
                maps["logits"][level] = rows.view(h, w, places, -1).permute(2, 3, 0, 1).reshape(1, -1, h, w)
            if numbers is not None:
                rows = numbers[start : start + count]
                maps["deltas"][level] = rows.view(h, w, places, -1).permute(2, 3, 0, 1).reshape(1, -1, h, w)
            start += count
        self.maps = maps
        self.model.maps = lambda images: self.maps

    def losses(self, target=TARGET):
        found = self.model.losses(IMAGE, [target])
        return {key: value.item() for key, value in found.items()}


def deltas_to(anchors, weights):
    from torchvision.models.detection._utils import BoxCoder

    return BoxCoder((*weights,)).encode_single(OBJECT.expand(len(anchors), 4), anchors)


def test_retinanets_losses_of_known_answers():
    plain = Answering("retinanet_van_b0")
    matched = by_overlap(plain.anchors, OBJECT)
    positive, valid = int((matched >= 0).sum()), int((matched != -2).sum())
    assert 1 < positive < valid < len(matched)
    # probability 0.5: 0.25 · 0.25 · ln 2 of the class of a positive anchor, 0.75 · 0.25 · ln 2 of all others
    expected = 0.25 * LN2 * (0.25 * positive + 0.75 * (3 * valid - positive)) / positive
    away = deltas_to(plain.anchors[matched >= 0], (1.0,) * 4).abs().sum().item() / positive
    assert plain.losses() == pytest.approx({"classification": expected, "bbox_regression": away}, rel=1e-5)
    perfect = Answering("retinanet_van_b0", numbers=deltas_to(plain.anchors, (1.0,) * 4))
    assert perfect.losses()["bbox_regression"] == pytest.approx(0, abs=1e-6)
    without = plain.losses(NOTHING)  # divided by 1, not by 0
    assert without == pytest.approx(
        {"classification": 0.75 * 0.25 * LN2 * 3 * len(matched), "bbox_regression": 0}, rel=1e-5
    )


def test_atss_losses_of_known_answers():
    plain = Answering("atss_van_b0")
    matched = by_statistics(plain.levels, OBJECT)
    positive = matched >= 0
    count, total = int(positive.sum()), len(matched)
    assert count > 1
    middle = centerness(centers_of(plain.anchors[positive]), OBJECT.expand(count, 4))
    from torchvision.ops import generalized_box_iou_loss

    away = generalized_box_iou_loss(plain.anchors[positive], OBJECT.expand(count, 4))
    expected = {
        "classification": 0.25 * LN2 * (0.25 * count + 0.75 * (3 * total - count)) / count,
        "bbox_regression": 2 * ((away * middle).sum() / middle.sum().clamp(min=1)).item(),
        "centerness": LN2,
    }
    assert plain.losses() == pytest.approx(expected, rel=1e-5)
    perfect = Answering("atss_van_b0", numbers=deltas_to(plain.anchors, (10.0, 10.0, 5.0, 5.0)))
    assert perfect.losses()["bbox_regression"] == pytest.approx(0, abs=1e-5)


def test_gfl_losses_of_known_answers():
    plain = Answering("gfl_van_b0", logit=0.0)
    positive = by_statistics(plain.levels, OBJECT) >= 0
    count, total = int(positive.sum()), len(positive)
    strides = torch.cat([torch.full((len(level),), 8.0 * 2**k) for k, level in enumerate(plain.levels)])[positive]
    centers = centers_of(plain.anchors[positive])
    # equal logits: every side is 8 strides from the place, the mean of 0 … 16
    boxes = torch.cat([centers - 8 * strides[:, None], centers + 8 * strides[:, None]], 1)
    truth = OBJECT.expand(count, 4)
    from torchvision.ops import generalized_box_iou_loss

    quality = paired_iou(boxes, truth)
    focal = ((quality - 0.5) ** 2 * LN2).sum().item() + 0.25 * LN2 * (3 * total - count)
    weight = 0.5 * count / max(0.5 * count, 1)  # every positive anchor's best probability is 0.5
    away = generalized_box_iou_loss(boxes / strides[:, None], truth / strides[:, None]).mean().item()
    expected = {
        "classification": focal / count,
        "bbox_regression": 2 * away * weight,
        "distribution": 0.25 * math.log(17) * weight,
    }
    assert plain.losses() == pytest.approx(expected, rel=1e-4)


def test_gfls_perfect_answers_cost_little():
    plain = Answering("gfl_van_b0")
    strides = torch.cat([torch.full((len(level), 1), 8.0 * 2**k) for k, level in enumerate(plain.levels)])
    centers = centers_of(plain.anchors)
    sides = torch.cat([centers - OBJECT[:, :2], OBJECT[:, 2:] - centers], 1) / strides
    left = sides.clamp(0, 15).floor()
    bins = torch.arange(17.0)
    near = torch.where(bins == left[..., None], 1 - (sides - left)[..., None], 0.0)
    near = near + torch.where(bins == left[..., None] + 1, (sides - left)[..., None], 0.0)
    positive = by_statistics(plain.levels, OBJECT) >= 0
    classes = torch.full((len(positive), 3), -20.0)
    classes[positive, 1] = 20.0
    perfect = Answering("gfl_van_b0", numbers=near.clamp(min=1e-12).log().flatten(1), classes=classes)
    losses = perfect.losses()
    assert losses["classification"] == pytest.approx(0, abs=1e-4)
    assert losses["bbox_regression"] == pytest.approx(0, abs=1e-4)
