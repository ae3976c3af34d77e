"""Evaluate segmenters on labelled pictures: aAcc, mIoU, mAcc, per-class scores, confusion matrix, spread over bases."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from ..data.segmentation import SegmentationData, open_segmentation
from ..errors import ConfigError, DataError, UnknownNameError, VanNotice
from ..nn.hamburger import factorisations
from ..tasks.class_names import first_difference, places
from ..tasks.segmentation.confusion_matrix import ConfusionMatrix
from ..tasks.segmentation.views import Inference, spread
from .devices import Shard, count
from .engines.torch_engine import available_device
from .segmenter_session import ExportedSegmenter, OpenedSegmenter, open_segmenter

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
        """Reading, network and counting together, every draw of the bases included."""
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
    if named and places(opened.classes, pictures.classes) != tuple(range(opened.num_classes)):
        at = first_difference(opened.classes, pictures.classes)
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
    devices: Sequence[str] = (),
    **options: Any,
) -> MaskEvaluation:
    """Evaluate one segmenter on labelled pictures: `evaluate_masks("model.safetensors", "scenes")["mIoU"]`.

    data: what `data.open_segmentation` takes, or its result; data_options: of the former.
    options: device, precision, ema, optimize, trust, overrides as in `engines.open_segmenter`.
    seeds: evaluate as many draws of a Hamburger's bases too. progress: called with (pictures done, pictures in all).
    on_mask: called with (index, picture, prediction, label) after each picture.
    devices: share the pictures among several, a process each (so a script needs `if __name__ == "__main__":`);
        the totals are exactly those of one device that computes the same masks. Data and on_mask must be picklable.
    Raises CheckpointError, ConfigError, DataError.
    """
    opened = source if isinstance(source, OpenedSegmenter) else open_segmenter(source, **options)
    pictures = data if isinstance(data, SegmentationData) else open_masks(opened, data, split, **(data_options or {}))
    targets = [available_device(device) for device in devices]
    if isinstance(opened.model, ExportedSegmenter) and any(target.type != "cpu" for target in targets):
        raise ConfigError(f"devices {', '.join(devices)} are for checkpoints; exported files run on the cpu here")
    if seeds is not None:
        check_seeds(opened.model, seeds)
    if not len(pictures):
        raise DataError(f"{data} has no pictures to evaluate on")
    shard = Shard(opened=opened, data=pictures, seeds=seeds or 0, on_mask=on_mask)
    start = time.perf_counter()
    totals: list[ConfusionMatrix] = []
    for done, matrices in enumerate(count(shard, targets), 1):
        totals = [a + b for a, b in zip(totals, matrices, strict=True)] if totals else matrices
        if progress is not None:
            progress(done, len(pictures))
    seconds = time.perf_counter() - start
    return MaskEvaluation(
        checkpoint=opened.name,
        data=str(data) if isinstance(data, str | Path) else type(data).__name__,
        split=pictures.split,
        matrix=totals[0],
        classes=pictures.classes,
        palette=pictures.palette,
        count=len(pictures),
        seconds=seconds,
        inference=opened.inference,
        seeds=None if seeds is None else spread(totals[1:]),
    )


def evaluate_segmenter(source: Any, data: Any, **options: Any) -> MaskEvaluation:
    """`evaluate_masks` with everything by its own name: fields of Inference, seed and val_fraction of the split too.

    Raises UnknownNameError for an option that does not exist, and what `evaluate_masks` raises.
    """
    looks = [each.name for each in fields(Inference)]
    own = [*_keywords(evaluate_masks), *_keywords(open_segmenter)]
    drawn = ("seed", "val_fraction")
    for name in options:
        if name not in (*looks, *own, *drawn):
            raise UnknownNameError.of("evaluation option of a segmenter", name, [*looks, *own, *drawn])
    chosen = {name: options.pop(name) for name in looks if name in options}
    split = {name: options.pop(name) for name in drawn if name in options}
    if not isinstance(source, OpenedSegmenter):
        options["overrides"] = {**options.get("overrides", {}), **chosen}
    elif chosen:
        raise ConfigError(f"{next(iter(chosen))} belongs to what is opened here; give it to open_segmenter")
    if split:
        options["data_options"] = {**options.get("data_options", {}), **split}
    return evaluate_masks(source, data, **options)


def _keywords(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]


def check_seeds(model: nn.Module, seeds: int) -> None:
    """Before hours of work: raises ConfigError for fewer than 2 seeds, and for a model without bases to draw."""
    if seeds < 2:
        raise ConfigError(f"seeds is {seeds}; a spread needs at least 2")
    if not factorisations(model):
        raise ConfigError("seeds draws the bases of a Hamburger, which this segmenter does not have; leave it out")
