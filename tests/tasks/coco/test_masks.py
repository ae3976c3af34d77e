"""Masks of a network at the size of the image: as torchvision pastes them."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from van.images import rle
from van.tasks.coco.masks import enlarge, paste

SIZE = (60, 90)
BOXES = [
    [10.2, 5.7, 40.9, 33.1],
    [-3.0, -2.0, 20.0, 30.0],  # beyond the left and the upper edge
    [70.0, 40.0, 95.0, 66.0],  # beyond the right and the lower one
    [30.0, 30.0, 30.0, 30.0],  # of no size
    [0.0, 0.0, 90.0, 60.0],
    [12.5, 12.5, 13.1, 40.0],
]


@pytest.mark.parametrize("side", [7, 28])
def test_boxed_masks_are_pasted_as_torchvision_does(side):
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    masks = torch.rand(len(BOXES), side, side, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor(BOXES)
    theirs = paste_masks_in_image(masks[:, None], boxes, SIZE)[:, 0]
    for threshold in (0.3, 0.5, 0.7):
        ours = rle.decode(paste(masks, boxes, SIZE, threshold), SIZE)
        assert np.array_equal(ours, (theirs > threshold).numpy())


def test_a_box_outside_the_image_has_no_pixel():
    ours = rle.decode(paste(torch.ones(1, 7, 7), torch.tensor([[200.0, 10, 230, 40]]), SIZE, 0.5), SIZE)
    assert ours.shape == (1, *SIZE)
    assert not ours.any()


def test_masks_of_the_whole_image_are_resized_before_they_are_cut():
    masks = torch.randn(5, 15, 22, generator=torch.Generator().manual_seed(0))
    wanted = F.interpolate(masks[:, None], SIZE, mode="bilinear", align_corners=False)[:, 0] > 0
    assert np.array_equal(rle.decode(enlarge(masks, SIZE, 0.0), SIZE), wanted.numpy())


def test_many_masks_are_made_a_few_at_a_time(monkeypatch):
    import van.tasks.coco.masks as module

    masks, boxes = torch.rand(6, 7, 7, generator=torch.Generator().manual_seed(0)), torch.tensor(BOXES)
    pasted, whole = paste(masks, boxes, SIZE, 0.5), enlarge(masks, SIZE, 0.5)
    monkeypatch.setattr(module, "_CHUNK", SIZE[0] * SIZE[1] * 2)
    assert paste(masks, boxes, SIZE, 0.5) == pasted
    assert enlarge(masks, SIZE, 0.5) == whole


def test_no_masks():
    assert paste(torch.zeros(0, 7, 7), torch.zeros(0, 4), SIZE, 0.5) == ()
    assert enlarge(torch.zeros(0, 7, 7), SIZE, 0.5) == ()
