"""Evaluate segmenters on labelled pictures: aAcc, mIoU, mAcc, per-class scores, confusion matrix, spread over bases."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from .data.segmentation import SegmentationData, open_segmentation
from .engines.segmenters import OpenedSegmenter, open_segmenter
from .errors import ConfigError, DataError, VanNotice
from .metrics.segmentation import ConfusionMatrix
from .nn.hamburger import factorisations
from .segment import Inference, confusion, evaluate_seeds

OnMask = Callable[[int, Image.Image, np.ndarray, np.ndarray], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class MaskEvaluation:
    """What came out; `dict(evaluation)` has aAcc, mIoU, mAcc, IoU.<class> and Acc.<class>, in [0, 1].

    matrix: pixels by label (row) and prediction (column). count: pictures.
    seeds: with several draws of the NMF bases, `mIoU.seed0` …, their mean `mIoU` and spread `mIoU.std`, and so on.
    """

    checkpoint: str
    data: str
    split: str
    matrix: ConfusionMatrix
    classes: tuple[str, ...]
    palette: Any
    count: int
    seconds: float
    inference: Inference
    seeds: Mapping[str, float] | None = None

    @property
    def images_per_second(self) -> float:
        """Reading, network and counting together."""
        return self.count / self.seconds

    def keys(self) -> list[str]:
        """Names of the scores."""
        return list(self.matrix.scores(self.classes))

    def __getitem__(self, name: str) -> float:
        return self.matrix.scores(self.classes)[name]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON, the scores under MMSegmentation's key names."""
        facts = {"checkpoint": self.checkpoint, "data": self.data, "split": self.split, "count": self.count}
        how = {"inference": asdict(self.inference), "seeds": None if self.seeds is None else dict(self.seeds)}
        speed = {"seconds": self.seconds, "images_per_second": self.images_per_second}
        return {**facts, **self.matrix.to_dict(self.classes), **how, **speed}


def open_masks(opened: OpenedSegmenter, data: str | Path, split: str | None = None, **options: Any) -> SegmentationData:
    """A split ("val" by default) of a data set, drawn as the segmenter's training drew it where nothing else is said.

    options: as in `open_segmentation`, None where nothing is said.
    Raises DataError when the segmenter has another number of classes.
    """
    said = {name: value for name, value in options.items() if value is not None}
    drawn = {name: value for name, value in (opened.provenance.get("split") or {}).items() if value is not None}
    pictures = open_segmentation(data, split or "val", **{**drawn, **said})
    if len(pictures.classes) != opened.num_classes:
        raise DataError(
            f"{opened.name} has {opened.num_classes} classes, {data} has {len(pictures.classes)}; expected the data "
            "set it was trained for"
        )
    named = opened.classes != tuple(map(str, range(opened.num_classes)))
    if named and opened.classes != pictures.classes:
        at = next(i for i, (a, b) in enumerate(zip(opened.classes, pictures.classes, strict=True)) if a != b)
        warnings.warn(
            f"classes are compared by number, but number {at} is {opened.classes[at]!r} for the segmenter and "
            f"{pictures.classes[at]!r} in {data}",
            VanNotice,
            stacklevel=3,
        )
    return pictures


def evaluate_masks(
    source: str | Path | nn.Module | OpenedSegmenter,
    data: str | Path | SegmentationData,
    *,
    split: str | None = None,
    seeds: int | None = None,
    progress: Progress | None = None,
    on_mask: OnMask | None = None,
    data_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> MaskEvaluation:
    """Evaluate one segmenter on labelled pictures: `evaluate_masks("model.safetensors", "scenes")["mIoU"]`.

    data: what `data.open_segmentation` takes, or its result; data_options: of the former.
    options: device, precision, ema, optimize, overrides as in `engines.open_segmenter`.
    seeds: evaluate as many draws of a Hamburger's bases too. progress: called with (pictures done, pictures in all).
    on_mask: called with (index, picture, prediction, label) after each picture.
    Raises CheckpointError, ConfigError, DataError.
    """
    opened = source if isinstance(source, OpenedSegmenter) else open_segmenter(source, **options)
    pictures = data if isinstance(data, SegmentationData) else open_masks(opened, data, split, **(data_options or {}))
    if seeds is not None:
        check_seeds(opened.model, seeds)
    done = 0

    def told(index: int, image: Image.Image, mask: np.ndarray, label: np.ndarray) -> None:
        nonlocal done
        done += 1
        if on_mask is not None:
            on_mask(index, image, mask, label)
        if progress is not None:
            progress(done, len(pictures))

    start = time.perf_counter()
    with opened.autocast():
        matrix = confusion(opened.model, pictures, inference=opened.inference, on_mask=told)
        seconds = time.perf_counter() - start
        spread = None
        if seeds is not None:
            spread = dict(evaluate_seeds(opened.model, pictures, seeds=seeds, inference=opened.inference))
    return MaskEvaluation(
        checkpoint=opened.name,
        data=str(data) if isinstance(data, str | Path) else type(data).__name__,
        split=pictures.split,
        matrix=matrix,
        classes=pictures.classes,
        palette=pictures.palette,
        count=len(pictures),
        seconds=seconds,
        inference=opened.inference,
        seeds=spread,
    )


def check_seeds(model: nn.Module, seeds: int) -> None:
    """Before hours of work: raises ConfigError for fewer than 2 seeds, and for a model without bases to draw."""
    if seeds < 2:
        raise ConfigError(f"seeds is {seeds}; a spread needs at least 2")
    if not factorisations(model):
        raise ConfigError("seeds draws the bases of a Hamburger, which this segmenter does not have; leave it out")
