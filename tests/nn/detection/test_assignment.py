"""Which anchors learn which objects: cases worked out on paper, and ATSS's algorithm written out in loops."""

import math
import statistics

import pytest
import torch

pytest.importorskip("torchvision")

from van.nn.detection.assignment import BACKGROUND, IGNORED, by_overlap, by_statistics

NONE = torch.zeros(0, 4)


def squares(*places, side=8.0):
    """Anchors with their centres at (x, 0)."""
    return torch.tensor([[x - side / 2, -side / 2, x + side / 2, side / 2] for x in places])


class TestByOverlap:
    def test_thresholds_and_the_best_that_an_object_has(self):
        anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 22], [0, 0, 10, 30], [50, 50, 60, 60], [90, 90, 92, 92]])
        boxes = torch.tensor([[0.0, 0, 10, 10], [52, 52, 56, 56]])
        # overlaps with the first: 1, 0.45, 0.33; the second overlaps only the fourth, by 0.16
        assert by_overlap(anchors, boxes).tolist() == [0, IGNORED, BACKGROUND, 1, BACKGROUND]

    def test_an_image_without_objects_is_background(self):
        assert by_overlap(squares(0, 8), NONE).tolist() == [BACKGROUND, BACKGROUND]


class TestByStatistics:
    def test_above_mean_and_spread_of_the_nearest(self):
        level = squares(0, 8, 16, 24)
        # the three nearest to the object, which is the second anchor, overlap it by 1, 0 and 0: 0.33 + 0.58
        assert by_statistics([level], squares(8), nearest=3).tolist() == [BACKGROUND, 0, BACKGROUND, BACKGROUND]

    def test_an_object_between_two_anchors_may_get_none(self):
        level = squares(0, 8, 16, 24)
        between = torch.tensor([[4.0, -4, 20, 4]])  # overlaps 0, 0.5, 0.5, 0; the threshold is 0.25 + 0.29
        assert by_statistics([level], between, nearest=4).tolist() == [BACKGROUND] * 4

    def test_candidates_are_the_nearest_of_every_level(self):
        fine, coarse = squares(0, 8, 16, 24), squares(0, 16, side=16.0)
        box = squares(16, side=16.0)  # overlaps fine ones by 0, 0, 0.25, 0 and coarse ones by 0 and 1
        # candidates 0.25, 0, 1, 0 of the two nearest each: mean 0.31, spread 0.47
        found = by_statistics([fine, coarse], box, nearest=2)
        assert found.tolist() == [BACKGROUND] * 5 + [0]
        # with the nearest alone: 0.25 and 1: mean 0.625, spread 0.53: nothing reaches it
        assert by_statistics([fine, coarse], box, nearest=1).tolist() == [BACKGROUND] * 6

    def test_the_centre_of_an_anchor_lies_inside_its_object(self):
        level = torch.tensor([[0.0, 0, 20, 10], [30, 0, 40, 10], [60, 0, 70, 10], [90, 0, 100, 10]])
        right_end = torch.tensor([[11.0, 0, 22, 10]])  # overlaps the first by 0.41, whose centre is at 10
        assert by_statistics([level], right_end, nearest=4).tolist() == [BACKGROUND] * 4
        with_centre = torch.tensor([[9.0, 0, 20, 10]])
        assert by_statistics([level], with_centre, nearest=4).tolist() == [0, BACKGROUND, BACKGROUND, BACKGROUND]

    def test_of_two_objects_an_anchor_takes_that_of_larger_overlap(self):
        level = squares(0, 8, 16, 24, 32, 40)
        boxes = torch.cat([torch.tensor([[3.0, -4, 13, 4]]), squares(8)])  # 0.8 and 1 of the second anchor
        assert by_statistics([level], boxes, nearest=4)[1] == 1
        assert by_statistics([level], boxes.flip(0), nearest=4)[1] == 0

    def test_an_image_without_objects_is_background(self):
        assert by_statistics([squares(0, 8), squares(0)], NONE).tolist() == [BACKGROUND] * 3

    @pytest.mark.parametrize("seed", range(4))
    def test_agrees_with_the_algorithm_in_loops(self, seed):
        generator = torch.Generator().manual_seed(seed)
        levels = [grid(side) for side in (8, 16, 32)]
        corner = torch.rand(5, 2, generator=generator) * 40
        boxes = torch.cat([corner, corner + 4 + torch.rand(5, 2, generator=generator) * 20], 1)
        assert by_statistics(levels, boxes).tolist() == in_loops(levels, boxes.tolist())


def grid(side):
    """Anchors as wide as they are apart, in an image of 64 x 64."""
    places = [(x, y) for y in range(0, 64, side) for x in range(0, 64, side)]
    half = side / 2
    return torch.tensor([[x - half, y - half, x + half, y + half] for x, y in places])


def in_loops(levels, boxes, nearest=9):
    anchors = [anchor for level in levels for anchor in level.tolist()]
    best = [(0.0, BACKGROUND)] * len(anchors)
    for number, box in enumerate(boxes):
        candidates, start = [], 0
        for level in levels:
            indices = range(start, start + len(level))
            candidates += sorted(indices, key=lambda i: math.dist(middle(anchors[i]), middle(box)))[:nearest]
            start += len(level)
        overlaps = [overlap(anchors[i], box) for i in candidates]
        threshold = statistics.mean(overlaps) + statistics.stdev(overlaps)
        for i, value in zip(candidates, overlaps, strict=True):
            x, y = middle(anchors[i])
            if value >= threshold and box[0] < x < box[2] and box[1] < y < box[3] and value > best[i][0]:
                best[i] = (value, number)
    return [number for _, number in best]


def middle(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)
