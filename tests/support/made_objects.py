"""Objects and detections drawn from a seed: truth as data sets give it, and results as processors give them."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from van.data.objects import Objects
from van.images import rle
from van.tasks.coco.found import Found

SIZE = (192, 256)  # height, width
_SIDES = np.array(SIZE[::-1])


def made_objects(
    image_id, boxes: Sequence[Sequence[float]], labels: Sequence[int], *, size=SIZE, crowd=None, areas=None, ids=None
) -> Objects:
    """Objects whose masks are the ellipses in their boxes."""
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    masks = ellipses(corners, size)
    return Objects(
        size=size,
        image_id=image_id,
        boxes=corners,
        labels=np.array(labels, np.int64),
        areas=masks.sum((1, 2)).astype(np.float64) if areas is None else np.array(areas, np.float64),
        crowd=np.zeros(len(labels), bool) if crowd is None else np.array(crowd, bool),
        ids=np.arange(len(labels)) if ids is None else np.array(ids, np.int64),
        read_masks=partial(ellipses, corners, size),
    )


def made_found(boxes: Sequence[Sequence[float]], labels: Sequence[int], scores: Sequence[float], *, size=SIZE) -> Found:
    """Detections with elliptical masks, the surest first."""
    order = np.argsort(-np.array(scores, np.float32), kind="stable")
    corners = np.array(boxes, np.float32).reshape(-1, 4)[order]
    return Found(
        size=size,
        boxes=corners,
        labels=np.array(labels, np.int64)[order],
        scores=np.array(scores, np.float32)[order],
        masks=tuple(rle.encode(ellipses(corners, size))),
    )


def ellipses(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(K, H, W) uint8."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum(boxes[:, 2:] - boxes[:, :2], 1) / 2
    x = (columns[None] - center[:, 0, None, None]) / half[:, 0, None, None]
    y = (rows[None] - center[:, 1, None, None]) / half[:, 1, None, None]
    return (x**2 + y**2 <= 1).astype(np.uint8)


def drawn_images(count: int, classes: int, *, seed: int = 0, crowded: int | None = None):
    """(Objects, Found) of images with objects of all sizes, crowds, images without objects or without detections.

    crowded: the image that has more than a hundred detections of one class.
    """
    draw = np.random.default_rng(seed)
    found = []
    for image in range(count):
        number = 1 if image == crowded else 0 if image % 5 == 3 else int(draw.integers(1, 8))
        sides = np.exp(draw.uniform(np.log(6), np.log(180), (number, 2)))
        corner = draw.uniform(0, 1, (number, 2)) * (_SIDES - np.minimum(sides, _SIDES))
        boxes = np.concatenate((corner, np.minimum(corner + sides, _SIDES)), 1).round(1)
        labels = draw.integers(0, classes - 1, number)  # nothing is of the last class
        truth = made_objects(image, boxes, labels, crowd=draw.uniform(size=number) < 0.15)
        repeats = 120 if image == crowded else 0 if image % 7 == 5 else int(draw.integers(1, 3))
        noise = draw.normal(0, 0.06, (number * repeats, 4)) * np.repeat(sides[:, [0, 1, 0, 1]], repeats, 0)
        near = np.repeat(boxes, repeats, 0) + noise
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        guesses = np.where(draw.uniform(size=len(near)) < 0.8, np.repeat(labels, repeats), draw.integers(0, classes))
        scores = draw.uniform(size=len(near)).round(2)  # many are equal
        found.append((truth, made_found(near, guesses, scores)))
    return found
