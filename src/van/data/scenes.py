"""Digit scenes: the embedded digits on cluttered canvases, with exact semantic, instance and panoptic truth.

A scene depends on (seed, split, index, size) alone and is made when it is asked for. Training and validation scenes
draw from disjoint digits: the two parts of the classification data set `digits`. A digit's region is its ink up to
its contour; where two digits overlap, the upper one owns the pixels. Digits are lighter than what lies below them, in
any hue, as is some of the clutter.

H = W = size of the canvas; classes: 0 background, 1 … 10 the digits 0 … 9.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ..errors import ConfigError
from ..images.palettes import Color
from .digits import Digits
from .labelled_pixels import SegmentationData

PALETTE: tuple[Color, ...] = (
    *((0, 0, 0), (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48)),
    *((145, 30, 180), (70, 240, 240), (240, 50, 230), (170, 255, 195), (200, 150, 110)),
)
COUNTS = {"train": 4000, "val": 400}
MIN_SIZE, MAX_SIZE = 32, 1024
# Side of a digit's scan relative to the canvas: 27 … 41 of 64 pixels, with strokes of 5 … 10.
SIDES = (0.42, 0.64)
MAX_ANGLE_DEGREES = 15.0
MAX_DIGITS = 3
# Ink of a scan counts from here, of 0 … 1; the contour is then sharpened.
INK, SHARPNESS = 0.45, 4.0
# No digit may lose more than this share of its pixels to others.
MAX_HIDDEN = 0.08
MIN_CONTRAST = 70.0
_BORDER = 2
_TRIES = 8


@dataclass(frozen=True)
class Segment:
    """One digit of a scene: its id in `Scene.instances`, its class 1 … 10, its visible box and pixels.

    box: (left, top, right, bottom) in pixels, right and bottom excluded.
    """

    id: int
    label: int
    box: tuple[int, int, int, int]
    area: int


@dataclass(frozen=True, eq=False)
class Scene:
    """An RGB image with its truth.

    semantic: class of each pixel, (H, W) uint8; instances: 0 background, 1 … n the digits, (H, W) uint8.
    segments: the digits, in order of their ids; with the background they are the panoptic truth.
    """

    image: Image.Image
    semantic: np.ndarray
    instances: np.ndarray
    segments: tuple[Segment, ...]


class Scenes(SegmentationData):
    """Digit scenes of one split ("train" or "val").

    size: side of the canvas in pixels; count: number of scenes (4000 and 400 by default).
    cache: keep scenes in memory once made (20 kB each at 64 pixels).
    Raises ConfigError for impossible sizes and counts, MissingExtraError without scikit-learn.
    """

    def __init__(
        self, split: str = "val", *, size: int = 64, seed: int = 0, count: int | None = None, cache: bool = False
    ) -> None:
        if split not in COUNTS:
            raise ConfigError(f"split is {split!r}; expected train or val")
        if not MIN_SIZE <= size <= MAX_SIZE:
            raise ConfigError(f"a scene of {size} pixels a side; expected {MIN_SIZE} … {MAX_SIZE}")
        if count is not None and count < 1:
            raise ConfigError(f"count is {count}; expected at least one scene")
        digits = Digits(split)
        self.split, self.size, self.seed = split, size, seed
        self.count = COUNTS[split] if count is None else count
        self.classes = ("background", *digits.classes)
        self.palette = PALETTE
        self._labels = digits.labels
        # a border of no ink, so that a contour closes when the scan touches its edge
        self._scans = np.pad(digits.pixels, ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER)))  # (N, 12, 12)
        self._cache: dict[int, Scene] | None = {} if cache else None

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"scenes/{self.split}/{index}"

    def load(self, index: int) -> tuple[Image.Image, np.ndarray]:
        scene = self.scene(index)
        return scene.image, scene.semantic

    def scene(self, index: int) -> Scene:
        """The scene with its instances; raises IndexError outside 0 … len - 1."""
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        if self._cache is None:
            return self._make(index)
        if index not in self._cache:
            self._cache[index] = self._make(index)
        return self._cache[index]

    def _make(self, index: int) -> Scene:
        rng = np.random.default_rng([self.seed, ("train", "val").index(self.split), index])
        canvas = _cluttered(rng, self.size)
        instances = np.zeros((self.size, self.size), np.uint8)
        areas: list[int] = []  # pixels of each digit before others cover it
        labels: list[int] = []
        for _ in range(int(rng.integers(1, MAX_DIGITS + 1))):
            chosen = int(rng.integers(len(self._labels)))
            ink = self._place(rng, chosen, instances, areas)
            if ink is None:
                continue
            mask = ink >= 0.5
            labels.append(self._labels[chosen] + 1)
            areas.append(int(mask.sum()))
            instances[mask] = len(areas)
            color = _lighter(rng, canvas[mask].mean(0))
            canvas += ink[..., None] * (color - canvas)
        canvas += rng.normal(0, rng.uniform(2, 12), canvas.shape)
        image = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
        return _with_truth(image, instances, labels)

    def _place(
        self, rng: np.random.Generator, chosen: int, instances: np.ndarray, areas: list[int]
    ) -> np.ndarray | None:
        """Opacity (H, W) in 0 … 1 of a digit at a free place; None when no try found one."""
        before = np.bincount(instances.ravel(), minlength=len(areas) + 1)[1:]
        for _ in range(_TRIES):
            side = rng.uniform(*SIDES) * self.size
            center = rng.uniform(0.46 * side, self.size - 0.46 * side, 2)
            angle = math.radians(rng.uniform(-MAX_ANGLE_DEGREES, MAX_ANGLE_DEGREES))
            ink = _stamp(self._scans[chosen], self.size, center, side, angle, rng.uniform(0.8, 1.15))
            covered = np.bincount(instances[ink >= 0.5], minlength=len(areas) + 1)[1:]
            if all(
                left - gone >= (1 - MAX_HIDDEN) * area for left, gone, area in zip(before, covered, areas, strict=True)
            ):
                return ink
        return None


def _stamp(scan: np.ndarray, size: int, center: np.ndarray, side: float, angle: float, stretch: float) -> np.ndarray:
    """A scan, turned and scaled to `side` pixels around `center`, as opacity: (size, size) float32.

    stretch: width relative to height.
    """
    step = (scan.shape[0] - 2 * _BORDER) / side  # pixels of the scan per pixel of the canvas
    cos, sin, middle = step * math.cos(angle), step * math.sin(angle), scan.shape[0] / 2
    x, y = center
    rows = (cos / stretch, sin / stretch, middle - (cos * x + sin * y) / stretch, -sin, cos, middle + sin * x - cos * y)
    ink = Image.fromarray(scan).transform((size, size), Image.Transform.AFFINE, rows, Image.Resampling.BICUBIC)
    return np.clip((np.asarray(ink, np.float32) / 255 - INK) * SHARPNESS + 0.5, 0, 1)


def _cluttered(rng: np.random.Generator, size: int) -> np.ndarray:
    """A textured background with blobs and lines: (size, size, 3) float32, 0 … 255."""
    coarse = rng.uniform(15, 150, 3) + rng.uniform(-30, 30, (4, 4, 3))
    smooth = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(smooth)
    for _ in range(int(rng.integers(2, 6))):
        color = tuple(int(c) for c in rng.integers(0, 256, 3))
        x0, y0, x1, y1 = rng.uniform(-0.1, 1.1, 4) * size
        width = int(rng.integers(1, max(2, size // 20) + 1))
        match int(rng.integers(3)):
            case 0:
                draw.line((x0, y0, x1, y1), color, width)
            case 1:
                r = rng.uniform(0.03, 0.1) * size
                draw.ellipse((x0 - r, y0 - r, x0 + r, y0 + r), color)
            case _:
                box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
                start = rng.uniform(0, 360)
                draw.arc(box, start, start + rng.uniform(60, 200), color, width)
    canvas = np.array(smooth, np.float32)
    grain = rng.normal(0, rng.uniform(0, 14), (size // 2, size // 2, 1)).repeat(2, 0).repeat(2, 1)
    canvas[: grain.shape[0], : grain.shape[1]] += grain
    return canvas


def _lighter(rng: np.random.Generator, below: np.ndarray) -> np.ndarray:
    """A colour, (3,), lighter than the mean colour `below` it, by MIN_CONTRAST levels or as far as white allows."""
    gain = rng.uniform(0.3, 1, 3) * MIN_CONTRAST / 0.65
    return np.minimum(below + gain + rng.uniform(0, 60), 255)


def _with_truth(image: Image.Image, instances: np.ndarray, labels: list[int]) -> Scene:
    semantic = np.array([0, *labels], np.uint8)[instances]
    segments = []
    for id_, label in enumerate(labels, 1):
        rows, columns = np.nonzero(instances == id_)
        box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        segments.append(Segment(id_, label, box, len(rows)))
    return Scene(image, semantic, instances, tuple(segments))


def pixel_baseline_miou(train: SegmentationData, val: SegmentationData, *, limit: int = 400) -> float:
    """mIoU on `val` of the best classifier that sees one pixel's colour and nothing else.

    Colours fall into 16 x 16 x 16 bins; a bin gets its most frequent training class, or the class for which it is most
    typical (frequencies divided by the class's), whichever scores higher on `val`. At most `limit` images of each.
    """
    classes = len(train.classes)
    counts = np.zeros((16**3, classes))
    for bins, labels in _pixels(train, limit):
        counts += np.bincount(bins * classes + labels, minlength=counts.size).reshape(counts.shape)
    typical = counts / counts.sum(0).clip(1)
    scores = []
    for table in (counts.argmax(1), typical.argmax(1)):
        confusion = np.zeros((classes, classes))
        for bins, labels in _pixels(val, limit):
            confusion += np.bincount(labels * classes + table[bins], minlength=classes**2).reshape(classes, classes)
        union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
        scores.append(float(np.mean(confusion.diagonal()[union > 0] / union[union > 0])))
    return max(scores)


def _pixels(data: SegmentationData, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for index in range(min(len(data), limit)):
        image, labels = data.load(index)
        colors = np.asarray(image).astype(np.int64) >> 4
        known = labels != data.ignore_index
        bins = colors[..., 0] << 8 | colors[..., 1] << 4 | colors[..., 2]
        yield bins[known], labels[known].astype(np.int64)
