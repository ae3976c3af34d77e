"""From an image to its label map, as segmenters are tested: whole or in windows, at several scales, mirrored.

Memory stays bounded on large pictures: what is kept of a view is its logits at the head's size; logits at the
picture's size exist for one tile of rows at a time (nn/tiling.py).

Shape legend: K classes, C channels, H and W of the picture, h and w of the head's logits.
Source: the test pipeline of the VAN segmentation code (MMSegmentation 0.2x): ResizeToMultiple, slide, aug_test.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ...configs.backbone import check_number
from ...errors import ConfigError, DataError, VanNotice
from ...images.preprocess import IMAGENET, MAX_RESIZED_PIXELS, to_color
from ...images.resize import fit_within, resize_bilinear, round_up
from ...nn.hamburger import factorisations, reseed_bases
from ...nn.tiling import Resized, Rows, Sliding, WholeLogits
from .confusion_matrix import ConfusionMatrix

# What a checkpoint says of how it is to look at pictures: these fields of Inference, as its training set them.
RECORDED = ("resize", "window", "stride", "size_divisor")

PUBLISHED_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

MOST = 2**16  # of a side in pixels, and of any factor
# Pictures too large for one piece are cut into these; 512 is the crop that every published segmenter learned from.
LARGE_WINDOW, LARGE_STRIDE = 512, 384


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How a segmenter looks at a picture. The default is the published single-scale test on ADE20K.

    Fields are checked on construction; impossible ones raise ConfigError.

    resize: (longest, shortest) side in pixels that the picture is scaled into, its shape kept; None: as it is.
    scales: factors on that size; the probabilities of all views are averaged.
    flip: every scale also mirrored.
    window, stride: square windows of `window` pixels every `stride` pixels, their logits averaged; stride defaults
        to two thirds of the window. None: the whole picture at once.
    size_divisor: sides are rounded up to a multiple by stretching the picture, not by padding it; 1: left alone, as in
        HamNet's published test.
    mean, std: per channel, on the 0 … 1 scale.
    whole_limit_pixels: with neither `window` nor `resize`, larger pictures are cut into windows and a VanNotice says
        so; None: never.
    band_bytes: size of one band of logits at the picture's size; a few of them are alive at a time.
    """

    resize: tuple[int, int] | None = (2048, 512)
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: int | None = None
    stride: int | None = None
    size_divisor: int = 32
    mean: tuple[float, ...] = IMAGENET.mean
    std: tuple[float, ...] = IMAGENET.std
    whole_limit_pixels: int | None = 2**21
    band_bytes: int = 2**24

    def __post_init__(self) -> None:
        for name in ("scales", "mean", "std"):
            object.__setattr__(self, name, tuple(map(float, self._numbers(name, whole=False))))
        if self.resize is not None:
            object.__setattr__(self, "resize", tuple(map(int, self._numbers("resize", whole=True))))
        for name in ("window", "stride", "size_divisor", "whole_limit_pixels", "band_bytes"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), whole=True)
                object.__setattr__(self, name, int(getattr(self, name)))
        self._check()

    def _numbers(self, name: str, *, whole: bool) -> Sequence[Any]:
        """The values of a field with several; raises ConfigError for what is none."""
        values = getattr(self, name)
        if not isinstance(values, list | tuple):
            raise ConfigError(f"{name} is {values!r:.80}; expected several numbers")
        for value in values:
            check_number(name, value, whole=whole)
            if abs(value) > MOST:
                raise ConfigError(f"{name} is {values!r:.80}; no picture is that large")
        return values

    def _check(self) -> None:
        if self.resize is not None and (len(self.resize) != 2 or min(self.resize) < 1):
            raise ConfigError(f"resize is {self.resize}; expected (longest, shortest) side in pixels, e.g. (2048, 512)")
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise ConfigError(f"scales is {self.scales}; expected positive factors, e.g. (0.5, 1.0, 1.5)")
        if self.window is not None and not 1 <= self.window <= MOST:
            raise ConfigError(f"window is {self.window}; expected a side in pixels, e.g. 512")
        if self.stride is not None and self.window is None:
            raise ConfigError(f"stride is {self.stride} without a window; set window too, e.g. 512")
        if self.stride is not None and self.window is not None and not 1 <= self.stride <= self.window:
            raise ConfigError(
                f"stride is {self.stride}; expected 1 to {self.window}, the window, or pixels would be left out"
            )
        divisor = self.size_divisor
        if isinstance(divisor, bool) or not isinstance(divisor, int) or not 1 <= divisor <= MOST:
            raise ConfigError(f"size_divisor is {divisor!r:.80}; expected a whole number, e.g. 32, or 1 for none")
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3) or min(self.std) <= 0:
            raise ConfigError(
                f"mean is {self.mean}, std is {self.std}; expected three entries each or one each, std positive"
            )
        if self.band_bytes < 1 or (self.whole_limit_pixels is not None and self.whole_limit_pixels < 1):
            raise ConfigError(
                f"band_bytes is {self.band_bytes}, whole_limit_pixels {self.whole_limit_pixels}; expected positive"
            )

    @property
    def views(self) -> tuple[tuple[float, bool], ...]:
        """(scale, mirrored) of every view, in the order in which they are added up."""
        return tuple((scale, mirrored) for scale in self.scales for mirrored in (False, True)[: 1 + self.flip])

    def size(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        """(H, W) of a picture before rounding to the divisor, for one of the scales."""
        limits = (width, height) if self.resize is None else self.resize
        return fit_within(height, width, int(max(limits) * scale), int(min(limits) * scale))

    def windows(self, height: int, width: int) -> tuple[int, int] | None:
        """(window, stride) for a picture of this size, or None for the whole at once."""
        if self.window is not None:
            return self.window, self.stride or max(1, self.window * 2 // 3)
        if self.resize is not None or self.whole_limit_pixels is None or height * width <= self.whole_limit_pixels:
            return None
        return LARGE_WINDOW, LARGE_STRIDE


PUBLISHED = Inference()
PUBLISHED_MULTI_SCALE = Inference(scales=PUBLISHED_SCALES, flip=True)


def predict_mask(model: nn.Module, image: Image.Image, inference: Inference = PUBLISHED) -> np.ndarray:
    """The class of every pixel: (H, W) of the picture, uint8 (uint16 beyond 256 classes).

    model: a Segmenter, folded or not, or anything that maps (1, C, h, w) to logits; run in eval mode, mode restored.
    Raises ConfigError when the model does not take the picture's channels.
    """
    return _predict(model, image, inference)


def confusion(
    model: nn.Module,
    data: Any,
    *,
    inference: Inference = PUBLISHED,
    indices: Iterable[int] | None = None,
    on_mask: Callable[[int, Image.Image, np.ndarray, np.ndarray], None] | None = None,
) -> ConfusionMatrix:
    """Predict every picture of a SegmentationData and count the pixels.

    indices: the part to do, `range(rank, len(data), ranks)` for one of several devices; their matrices add up exactly.
    on_mask: called with (index, picture, prediction, label) after each one.
    Raises ConfigError when the classes of model and data differ in number, DataError for unfit label maps.
    """
    num_classes = getattr(model, "num_classes", len(data.classes))
    if num_classes != len(data.classes):
        raise ConfigError(f"the model has {num_classes} classes, the data {len(data.classes)}; they must agree")
    matrix = ConfusionMatrix(num_classes, ignore_index=data.ignore_index)
    for i in range(len(data)) if indices is None else indices:
        image, label = data.load(i)
        if label.shape != (image.height, image.width):
            raise DataError(f"{data.name(i)}: picture {image.height} x {image.width}, label map {label.shape}")
        mask = _predict(model, image, inference)
        matrix.update(mask, label, name=data.name(i))
        if on_mask is not None:
            on_mask(i, image, mask, label)
    return matrix


def seed_matrices(
    model: nn.Module,
    data: Any,
    *,
    seeds: int,
    inference: Inference = PUBLISHED,
    indices: Iterable[int] | None = None,
) -> Iterator[ConfusionMatrix]:
    """A Ham segmenter under several draws of its NMF bases, a matrix per draw; the model gets its own bases back.

    Raises ConfigError for models without an NMF; other arguments as `confusion`.
    """
    kept = [(module, module.bases) for module in factorisations(model)]
    chosen = None if indices is None else list(indices)
    try:
        for seed in range(seeds):
            reseed_bases(model, seed)
            yield confusion(model, data, inference=inference, indices=chosen)
    finally:
        for module, bases in kept:
            module.bases = bases


def spread(matrices: Sequence[ConfusionMatrix]) -> dict[str, float]:
    """Scores of each draw, their means and sample standard deviations: aAcc.seed0, …, aAcc, aAcc.std and so on."""
    runs = [matrix.summary() for matrix in matrices]
    scores = {f"{name}.seed{seed}": value for seed, run in enumerate(runs) for name, value in run.items()}
    for name in runs[0]:
        values = [run[name] for run in runs]
        scores |= {name: statistics.fmean(values), f"{name}.std": statistics.stdev(values)}
    return scores


def _predict(model: nn.Module, image: Image.Image, inference: Inference) -> np.ndarray:
    _announce_windows(image, inference)
    with _evaluating(model), torch.inference_mode():
        pixels = _pixels(image, len(inference.mean))
        decode = _decoder(model, inference)
        views = [(_view(decode, pixels, scale, mirrored, inference), mirrored) for scale, mirrored in inference.views]
        return _argmax(views, inference.band_bytes)


def _announce_windows(image: Image.Image, inference: Inference) -> None:
    sizes = [inference.size(image.height, image.width, scale) for scale in inference.scales]
    if inference.window is None and any(inference.windows(*size) for size in sizes):
        text = (
            f"a picture of {image.height} x {image.width} pixels is segmented in windows of {LARGE_WINDOW}, one every"
            f" {LARGE_STRIDE}, to bound memory; set window, resize, or whole_limit_pixels=None"
        )
        warnings.warn(text, VanNotice, stacklevel=4)


def _argmax(views: Sequence[tuple[Rows, bool]], band_bytes: int) -> np.ndarray:
    """The class with the largest mean probability, band by band: (H, W)."""
    height, width = views[0][0].size
    num_classes = views[0][0].rows(0, 1).shape[0]
    mask = np.empty((height, width), np.uint8 if num_classes <= 256 else np.uint16)
    step = max(1, band_bytes // (4 * num_classes * width))
    for start in range(0, height, step):
        stop = min(start + step, height)
        mask[start:stop] = _total(views, start, stop).max(0).indices.cpu().numpy()
    return mask


def _total(views: Sequence[tuple[Rows, bool]], start: int, stop: int) -> Tensor:
    """Sum of all views' probabilities, (K, stop - start, W); of a single view the logits, which rank the same."""
    total: Tensor | None = None
    for view, mirrored in views:
        rows = view.rows(start, stop)
        rows = rows.softmax(0) if len(views) > 1 else rows
        rows = rows.flip(2) if mirrored else rows
        total = rows if total is None else total.add_(rows)
    assert total is not None  # there is a view
    return total


def _view(
    decode: Callable[[Tensor], Tensor], array: np.ndarray, scale: float, mirrored: bool, inference: Inference
) -> Rows:
    """Logits at the picture's size, from the picture (H, W, C) at one scale; still mirrored if `mirrored`."""
    original = (array.shape[0], array.shape[1])
    size = inference.size(*original, scale)
    rounded = round_up(size, inference.size_divisor)
    if math.prod(rounded) > max(MAX_RESIZED_PIXELS, math.prod(original)):
        raise DataError(
            f"a picture of {original[0]} x {original[1]} pixels would be resized to {rounded[0]} x {rounded[1]}; use "
            "smaller scales, resize or size_divisor"
        )
    array = resize_bilinear(resize_bilinear(array, size), rounded)
    pixels = torch.from_numpy(array).permute(2, 0, 1)  # (C, h, w) uint8
    pixels = pixels.flip(2) if mirrored else pixels
    windows = inference.windows(*size)
    if windows is not None:
        return Resized(Sliding(decode, pixels, *windows), original)
    seen = (pixels.shape[-2], pixels.shape[-1])
    return Resized(Resized(WholeLogits(decode(pixels)), seen), original)


def _decoder(model: nn.Module, inference: Inference) -> Callable[[Tensor], Tensor]:
    """Pixels (C, H, W) uint8 to logits (K, h, w) float32, at the head's size for a model that has `decode`."""
    run = getattr(model, "decode", model)
    like = next(model.parameters(), torch.empty(0))
    mean, std = torch.tensor((inference.mean, inference.std), dtype=torch.float32)[:, :, None, None] * 255

    def decode(pixels: Tensor) -> Tensor:
        images = (pixels.float() - mean).div_(std)[None]
        return run(images.to(like.device, like.dtype))[0].float().contiguous()

    return decode


def _pixels(image: Image.Image, channels: int) -> np.ndarray:
    """(H, W, C) uint8."""
    array = np.array(to_color(image, "L" if channels == 1 else "RGB"))
    return array.reshape(*array.shape[:2], channels)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode; afterwards every module has its own mode back, frozen ones theirs."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
