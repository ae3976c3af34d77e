"""From an image to its label map, as segmenters are tested: whole or in windows, at several scales, mirrored.

Memory stays bounded on large pictures: what is kept of a view is its logits at the head's size; logits at the
picture's size exist for one tile of rows at a time (nn/tiling.py).

Shape legend: K classes, C channels, H and W of the picture, h and w of the head's logits.
Source: the test pipeline of the VAN segmentation code (MMSegmentation 0.2x): ResizeToMultiple, slide, aug_test.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ...errors import ConfigError, DataError, VanNotice
from ...images.preprocess import MAX_RESIZED_PIXELS, to_color
from ...images.resize import resize_bilinear, round_up
from ...nn.hamburger import factorisations, reseed_bases
from ...nn.tiling import Resized, Rows, Sliding, WholeLogits
from .confusion_matrix import ConfusionMatrix
from .inference import (
    PUBLISHED,
    PUBLISHED_MULTI_SCALE,
    PUBLISHED_SCALES,
    RECORDED,
    Inference,
    inference_of,
)
from .metric import spread

__all__ = [
    "PUBLISHED",
    "PUBLISHED_MULTI_SCALE",
    "PUBLISHED_SCALES",
    "RECORDED",
    "Decode",
    "Inference",
    "confusion",
    "inference_of",
    "predict",
    "predict_mask",
    "seed_matrices",
    "spread",
]

# Pixels (C, H, W) uint8 -> logits (K, h, w) float32 at the head's own size.
Decode = Callable[[Tensor], Tensor]


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


def _predict(model: nn.Module, image: Image.Image, inference: Inference) -> np.ndarray:
    with _evaluating(model), torch.inference_mode():
        return predict(_decoder(model, inference), image, inference)


def predict(decode: Decode, image: Image.Image, inference: Inference) -> np.ndarray:
    """The class of every pixel by a network of any runtime: (H, W) of the picture, uint8 or uint16."""
    _announce_windows(image, inference)
    original, pixels = (image.height, image.width), _pixels(image, len(inference.mean))
    with torch.inference_mode():
        views = [
            (_view(decode, _seen(pixels, scale, mirrored, inference), original, scale, inference), mirrored)
            for scale, mirrored in inference.views
        ]
        return _argmax(views, inference.band_bytes)


def inputs(image: Image.Image, inference: Inference) -> Iterator[Tensor]:
    """What the network gets of a picture, view by view, window by window: (C, h, w) float32 each."""
    original, array = (image.height, image.width), _pixels(image, len(inference.mean))
    for scale, mirrored in inference.views:
        pixels = _seen(array, scale, mirrored, inference)
        windows = inference.windows(*inference.size(*original, scale))
        crops = [pixels] if windows is None else Sliding(lambda crop: crop, pixels, *windows).crops()
        yield from (normalized(crop, inference) for crop in crops)


def whole(image: Image.Image, inference: Inference) -> Tensor:
    """The picture at the first scale, in one piece: (C, h, w) float32, of at most `whole_limit_pixels`."""
    array = _pixels(image, len(inference.mean))
    scale = inference.scales[0]
    height, width = inference.size(image.height, image.width, scale)
    limit = inference.whole_limit_pixels or height * width
    scale *= min(1.0, math.sqrt(limit / (height * width)))
    return normalized(_seen(array, scale, False, inference), inference)


def normalized(pixels: Tensor, inference: Inference) -> Tensor:
    """Pixels (C, H, W) uint8 as the network gets them, float32."""
    mean, std = torch.tensor((inference.mean, inference.std), dtype=torch.float32)[:, :, None, None] * 255
    return (pixels.float() - mean).div_(std)


def _announce_windows(image: Image.Image, inference: Inference) -> None:
    sizes = [inference.size(image.height, image.width, scale) for scale in inference.scales]
    cut = next((windows for size in sizes if (windows := inference.windows(*size))), None)
    if inference.window is None and cut is not None:
        text = (
            f"a picture of {image.height} x {image.width} pixels is segmented in windows of {cut[0]}, one every"
            f" {cut[1]}, to bound memory; set window, resize, or whole_limit_pixels=None"
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


def _seen(array: np.ndarray, scale: float, mirrored: bool, inference: Inference) -> Tensor:
    """The picture (H, W, C) at one scale, mirrored or not: (C, h, w) uint8."""
    original = (array.shape[0], array.shape[1])
    size = inference.size(*original, scale)
    rounded = round_up(size, inference.size_divisor)
    if math.prod(rounded) > max(MAX_RESIZED_PIXELS, math.prod(original)):
        raise DataError(
            f"a picture of {original[0]} x {original[1]} pixels would be resized to {rounded[0]} x {rounded[1]}; use "
            "smaller scales, resize or size_divisor"
        )
    array = resize_bilinear(resize_bilinear(array, size), rounded)
    pixels = torch.from_numpy(array).permute(2, 0, 1)
    return pixels.flip(2) if mirrored else pixels


def _view(decode: Decode, pixels: Tensor, original: tuple[int, int], scale: float, inference: Inference) -> Rows:
    """Logits at the picture's size, from what `_seen` gives; still mirrored if that is."""
    windows = inference.windows(*inference.size(*original, scale))
    if windows is not None:
        return Resized(Sliding(decode, pixels, *windows), original)
    size = (pixels.shape[-2], pixels.shape[-1])
    return Resized(Resized(WholeLogits(decode(pixels)), size), original)


def _decoder(model: nn.Module, inference: Inference) -> Decode:
    """Logits at the head's size for a model that has `decode`, else whatever the model gives."""
    run = getattr(model, "decode", model)
    like = next(model.parameters(), torch.empty(0))

    def decode(pixels: Tensor) -> Tensor:
        images = normalized(pixels, inference)[None]
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
