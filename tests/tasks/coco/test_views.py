"""What is found in several views of an image, as one list."""

import numpy as np
import pytest
import torch

from van.errors import ConfigError
from van.nn.object_model import Detections
from van.tasks.coco.scales import Views
from van.tasks.coco.views import in_image, kept, suppressed


def boxes_of(*boxes, scores, labels=None):
    labels = [0] * len(boxes) if labels is None else labels
    return Detections(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels),
        scores=torch.tensor(scores, dtype=torch.float32),
    )


def test_the_same_boxes_stay_as_with_torchvision():
    from torchvision.ops import batched_nms

    draw = torch.Generator().manual_seed(0)
    corners = torch.rand(200, 2, generator=draw) * 60
    boxes = torch.cat((corners, corners + 30 + torch.rand(200, 2, generator=draw) * 60), 1)
    labels, scores = torch.randint(0, 3, (200,), generator=draw), torch.rand(200, generator=draw)
    order = scores.argsort(descending=True)
    ours = order[suppressed(boxes[order], labels[order])]
    assert torch.equal(ours, batched_nms(boxes, scores, labels, 0.5))
    assert 10 < len(ours) < 150


def test_boxes_of_another_class_and_boxes_that_overlap_by_half_stay():
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 4, 2.1]])
    assert suppressed(boxes, torch.tensor([0, 1, 0, 0])).tolist() == [0, 1, 2]


def test_a_single_view_keeps_what_the_network_gives():
    found = boxes_of([0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 9, 9], scores=[0.3, 0.8, 0.01])
    assert kept([found], threshold=0.05, most=10) == [(0, 1), (0, 0)]
    assert kept([found], threshold=0.05, most=1) == [(0, 1)]


def test_of_several_views_the_surest_stays():
    one = boxes_of([0, 0, 4, 4], [50, 50, 60, 60], scores=[0.6, 0.2])
    two = boxes_of([0, 0, 4, 4.2], [20, 20, 30, 30], scores=[0.7, 0.1])
    assert kept([one, two], threshold=0.05, most=10) == [(1, 0), (0, 1), (1, 1)]


def test_boxes_that_are_no_numbers_are_left_out():
    found = boxes_of([0, 0, 4, float("nan")], [0, 0, 4, float("inf")], [0, 0, 4, 4], scores=[0.9, 0.9, float("nan")])
    assert kept([found], threshold=0.0, most=10) == []


def test_a_mirrored_view_is_mirrored_back():
    masks = torch.arange(6.0).reshape(1, 2, 3)
    found = Detections(
        boxes=torch.tensor([[10.0, 5, 30, 25]]), labels=torch.tensor([0]), scores=torch.tensor([1.0]), masks=masks
    )
    back = in_image(found, (50, 100), (100, 300), mirrored=True)
    assert back.boxes.tolist() == [[210, 10, 270, 50]]
    assert torch.equal(back.masks, masks.flip(-1))
    assert in_image(found, (50, 100), (100, 300), mirrored=False).boxes.tolist() == [[30, 10, 90, 50]]


def test_boxes_are_scaled_as_torchvision_scales_them():
    from torchvision.models.detection.transform import resize_boxes

    boxes = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) * 700
    found = Detections(boxes=boxes, labels=torch.zeros(50), scores=torch.zeros(50))
    assert torch.equal(
        in_image(found, (801, 1063), (427, 567), mirrored=False).boxes,
        resize_boxes(boxes, [801, 1063], [427, 567]),
    )


def test_the_order_of_views():
    assert list(Views(scales=(1.0, 0.5), flip=True)) == [(1.0, False), (1.0, True), (0.5, False), (0.5, True)]
    assert len(Views(scales=(1.0, 0.5), flip=True)) == 4


@pytest.mark.parametrize("scales", [(), (0.0,), (-1.0,), (np.inf,), (1e6,), ("a",)])
def test_scales_that_cannot_be(scales):
    with pytest.raises(ConfigError, match="expected positive factors"):
        Views(scales=scales)
