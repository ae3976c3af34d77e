"""Mask2Former's losses: computed on small cases, matched as they should be, and the same over two processes."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("scipy")

from van.configs.mask2former import INSTANCE_MASK2FORMERS
from van.nn.detection.mask_losses import MaskCriterion, at_points

SIDE = 8
LEFT, RIGHT = slice(0, 4), slice(4, 8)
GRID = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="xy"), -1).flatten(0, 1)
CENTRES = (GRID + 0.5) / SIDE  # of all pixels, (64, 2)


def every_pixel(*shape, device=None):
    """As many rounds over the centres of all pixels as fit."""
    return CENTRES.repeat(shape[-2] // len(CENTRES), 1).expand(shape)


def criterion(**options):
    options = {"num_classes": 3, "train_points": 64, "oversample_ratio": 1.0, "importance_ratio": 0.0} | options
    return MaskCriterion(INSTANCE_MASK2FORMERS["mask2former_instance_van_b0"].with_options(**options), every_pixel)


def target(*regions, labels=None):
    """Segments of columns."""
    masks = torch.zeros(len(regions), SIDE, SIDE, dtype=torch.uint8)
    for mask, columns in zip(masks, regions, strict=True):
        mask[:, columns] = 1
    labels = torch.tensor(labels or range(len(regions)), dtype=torch.int64)
    return {"size": (SIDE, SIDE), "boxes": torch.zeros(len(regions), 4), "labels": labels, "masks": masks}


def output(*queries, num_classes=3):
    """Logits of one image; a query is (class, columns, size of its logits)."""
    classes, masks = torch.zeros(1, len(queries), num_classes + 1), torch.zeros(1, len(queries), SIDE, SIDE)
    for i, (label, columns, size) in enumerate(queries):
        classes[0, i, label] = size
        masks[0, i] = -size
        masks[0, i, :, columns] = size
    return classes, masks


def test_queries_are_matched_with_the_segments_they_resemble():
    outputs = [output((2, RIGHT, 4), (3, LEFT, 1), (0, LEFT, 4)), output((0, LEFT, 4), (2, RIGHT, 4), (3, LEFT, 4))]
    truth = target(LEFT, RIGHT, labels=[0, 2])
    pairs = [
        dict(zip(segments.tolist(), rows.tolist(), strict=True))
        for rows, segments in criterion().match(outputs, [truth])
    ]
    assert pairs == [{0: 2, 1: 0}, {0: 0, 1: 1}]


@pytest.mark.parametrize(("weight", "closest"), [("class_weight", 0), ("mask_weight", 1), ("dice_weight", 1)])
def test_class_mask_and_dice_each_are_a_cost_of_a_match(weight, closest):
    only = {"class_weight": 0, "mask_weight": 0, "dice_weight": 0, weight: 1}
    queries = output((0, RIGHT, 4), (1, LEFT, 2), (1, slice(0, 8), 1))
    ((rows, _),) = criterion(**only).match([queries], [target(LEFT)])
    assert rows.tolist() == [closest]


def test_matches_count_queries_and_segments_through_the_batch():
    classes, masks = output((0, LEFT, 4), (1, RIGHT, 4))
    batch = [(classes.repeat(3, 1, 1), masks.repeat(3, 1, 1, 1))]
    ((rows, segments),) = criterion().match(batch, [target(RIGHT), target(), target(LEFT, RIGHT)])
    assert (rows.tolist(), segments.tolist()) == ([1, 4, 5], [0, 1, 2])


def test_with_more_segments_than_queries_the_closest_are_matched():
    ((rows, segments),) = criterion().match([output((1, RIGHT, 4))], [target(LEFT, RIGHT)])
    assert (rows.tolist(), segments.tolist()) == ([0], [1])


def test_what_is_no_number_is_matched_last():
    classes, masks = output((0, LEFT, 1), (0, LEFT, 4))
    masks[0, 1, 0, 0] = float("nan")
    ((rows, _),) = criterion().match([(classes, masks)], [target(LEFT)])
    assert rows.tolist() == [0]


def test_losses_of_a_case_computed_by_formula():
    weights = {"class_weight": 3.0, "mask_weight": 5.0, "dice_weight": 7.0, "no_object_weight": 0.1}
    found = criterion(**weights)([output((0, LEFT, 2.0), (3, LEFT, 1.0))], [target(slice(0, 2), labels=[0])])
    matched, other = math.log(1 + 3 * math.exp(-2)), math.log(1 + 3 * math.exp(-1))
    assert found["class"].item() == pytest.approx(3 * (matched + 0.1 * other) / 1.1, rel=1e-5)
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))  # 6 columns of 8, and 2
    assert found["mask"].item() == pytest.approx(5 * (6 * right + 2 * wrong) / 8, rel=1e-5)
    inside, outside = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))
    dice = 1 - (2 * 16 * inside + 1) / (32 * inside + 32 * outside + 16 + 1)
    assert found["dice"].item() == pytest.approx(7 * dice, rel=1e-5)
    assert set(found) == {"class", "mask", "dice"}


def test_earlier_outputs_add_up_as_auxiliary_losses():
    last, earlier = output((0, LEFT, 2.0)), output((1, RIGHT, 1.0))
    truth, losses = [target(LEFT)], criterion()
    alone, other = losses([last], truth), losses([earlier], truth)
    together = losses([earlier, earlier, last], truth)
    for name in ("class", "mask", "dice"):
        assert together[name] == alone[name]
        torch.testing.assert_close(together[f"{name}_auxiliary"], 2 * other[name])


def test_points_lie_where_the_prediction_is_least_sure():
    classes, masks = output((0, LEFT, 6.0))
    masks[0, 0, 3, 2] = 0.1  # the only pixel in doubt, and it is wrong of nothing else
    truth = [target(LEFT)]
    sure = criterion(train_points=16, oversample_ratio=4.0, importance_ratio=1 / 16)
    sure.draw = lambda *shape, device=None: CENTRES[-shape[-2] :].expand(shape)
    doubted = sure([(classes, masks)], truth)["mask"]
    expected = (math.log(1 + math.exp(-0.1)) + 15 * math.log(1 + math.exp(-6))) / 16
    assert doubted.item() == pytest.approx(5 * expected, rel=1e-4)


def test_values_between_pixels_are_interpolated_and_nothing_lies_outside():
    maps = torch.tensor([[0.0, 4.0], [8.0, 12.0]])[None, None]
    points = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.5, 0.5], [0.0, 0.25]]])
    assert at_points(maps, points).tolist() == [[[0.0, 4.0, 6.0, 0.0]]]
    assert at_points(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2)).item() == 0.25


RANK = """
import sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from test_mask_losses import batch, criterion
rank, ranks = int(sys.argv[3]), int(sys.argv[4])
if ranks > 1:
    dist.init_process_group("gloo", init_method="file://" + sys.argv[2] + "/meet", rank=rank, world_size=ranks)
outputs, truth = batch()
mine = slice(rank * 4 // ranks, (rank + 1) * 4 // ranks)
losses = criterion()([tuple(x[mine] for x in output) for output in outputs], truth[mine])
sum(losses.values()).backward()
gradients = [x.grad for output in outputs for x in output]
if ranks > 1:
    for gradient in gradients:
        dist.all_reduce(gradient)
        gradient /= ranks
torch.save(gradients, sys.argv[2] + f"/{rank}_of_{ranks}")
"""


def batch():
    """Logits of four images and their truth: 3, 0, 1 and 0 segments, so that two processes have unequal shares."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((4, 5, 4), (4, 5, SIDE, SIDE))
    outputs = [tuple(torch.randn(size, generator=generator).requires_grad_() for size in sizes) for _ in range(2)]
    return outputs, [target(LEFT, RIGHT, slice(2, 6)), target(), target(RIGHT, labels=[2]), target()]


@pytest.mark.long
def test_gradients_over_two_processes_are_those_of_one(tmp_path):
    here = str(Path(__file__).parent)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RANK, here, str(tmp_path)]
    ranks = [subprocess.Popen([*command, *r], env=environment) for r in (["0", "1"], ["0", "2"], ["1", "2"])]
    assert [rank.wait(120) for rank in ranks] == [0, 0, 0]
    one, first, second = (torch.load(tmp_path / name) for name in ("0_of_1", "0_of_2", "1_of_2"))
    for alone, a, b in zip(one, first, second, strict=True):
        assert alone.abs().max() > 0
        torch.testing.assert_close(a, alone, atol=1e-7, rtol=1e-5)
        assert torch.equal(a, b)
