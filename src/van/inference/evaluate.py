"""Evaluate classifiers on labelled images: top-1, top-5, loss, per-class scores, confusion matrix."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import nn

from ..checkpoints.find import find_checkpoints
from ..data import ClassificationData, has_own_val, open_classification
from ..data.split import VAL_FRACTION
from ..data.split_folders import is_split_name
from ..errors import ConfigError, DataError, UnknownNameError, UnknownOptionError, VanNotice
from ..files import why_no_path
from ..images.preprocess import Preprocess
from ..tasks.classification.class_plan import ClassPlan, plan_classes
from ..tasks.classification.meter import ClassificationMeter, ClassScore, RealMeter
from ..tasks.classification.real_labels import RealLabels
from .batch_backoff import HalvingEngine
from .evaluate_masks import MaskEvaluation, evaluate_segmenter
from .prefetch import default_workers, in_order, reason_of
from .segmenter_session import OpenedSegmenter, is_segmenter
from .session import Opened, open_classifier

Source = str | Path | nn.Module | Opened
Data = str | Path | ClassificationData
Progress = Callable[[int, int], None]

MAX_CONFUSION_CLASSES = 5000  # beyond, the matrix alone would take hundreds of megabytes


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """How to evaluate.

    split: "train", "val" or "all"; None means val, but all of a folder of class folders that is called val,
        validation or test, or that comes with real labels, a subset or a class map.
    seed, val_fraction: of the automatic split of data without a val/ folder; None: those that the checkpoint was
        trained with, so that nothing it learned from is evaluated, else 0 and 0.2.
    batch_size: images at a time, halved when memory runs out; workers: threads that read images.
    engine, device, precision, ema, test_time_pool, optimize, trust: see `engines.open_classifier`.
    exif: images are turned as their EXIF orientation says; False: pixels as stored, as published protocols had them.
    size, crop_pct, interpolation, mean, std, resize: override the checkpoint's preprocessing.
    real_labels: JSON list of label lists in the order of ILSVRC2012_val_00000001 … (ImageNet-ReaL); top-1 and top-5
        then count any of an image's labels, and images without labels do not count. Labels are indices of the
        data set's classes when it has them all, else of the model's.
    classes_subset, class_map: see `metrics.plan_classes`.
    """

    split: str | None = None
    seed: int | None = None
    val_fraction: float | None = None
    batch_size: int = 32
    workers: int | None = None
    engine: str = "torch"
    device: str = "cpu"
    precision: str = "fp32"
    ema: bool = False
    test_time_pool: bool = False
    optimize: bool = False
    trust: bool = False
    exif: bool = True
    size: int | tuple[int, int] | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    resize: str | None = None
    real_labels: str | Path | None = None
    classes_subset: Iterable[str | int] | str | Path | None = None
    class_map: Mapping[str, str | int] | str | Path | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> EvalOptions:
        """From keyword arguments; raises UnknownNameError for one that does not exist."""
        known = [each.name for each in fields(cls)]
        for name in values:
            if name not in known:
                raise UnknownOptionError.of("evaluation option", name, known)
        return cls(**values)

    @property
    def preprocess_overrides(self) -> dict[str, Any]:
        """The options that are fields of Preprocess."""
        return {each.name: getattr(self, each.name) for each in fields(Preprocess)}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came out; iterating yields (name, value) of every figure.

    top1, top5: percent; loss: mean cross-entropy in nats; count: images; macro_precision, macro_recall, macro_f1: means
    over the classes that have images or were predicted, in percent; batch_size: what fitted into memory.
    With real labels top1, top5 and count are theirs, and original_* those of the data set's own labels, to which loss,
    per_class, macro_* and confusion always refer.
    classes: names of the evaluated classes; confusion: (K, K) counts, row true and column predicted, None beyond
    5000 classes. non_finite: images whose logits were not all numbers.
    """

    checkpoint: str
    engine: str
    data: str
    split: str
    top1: float
    top5: float
    loss: float
    count: int
    original_top1: float | None
    original_top5: float | None
    original_count: int | None
    macro_precision: float
    macro_recall: float
    macro_f1: float
    non_finite: int
    seconds: float
    batch_size: int
    preprocess: Preprocess
    classes: tuple[str, ...]
    per_class: tuple[ClassScore, ...]
    confusion: np.ndarray | None

    @property
    def images_per_second(self) -> float:
        """Reading, preprocessing and network together."""
        return (self.original_count or self.count) / self.seconds

    def __iter__(self) -> Iterator[tuple[str, float]]:
        names = [
            "top1",
            "top5",
            "loss",
            "count",
            "original_top1",
            "original_top5",
            "original_count",
            "macro_precision",
            "macro_recall",
            "macro_f1",
            "images_per_second",
        ]
        yield from ((name, getattr(self, name)) for name in names if getattr(self, name) is not None)

    def __getitem__(self, name: str) -> float:
        """A figure by its name: `evaluation["top1"]`; raises UnknownNameError."""
        figures = dict(self)
        if name not in figures:
            raise UnknownNameError.of("figure", name, figures)
        return figures[name]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; a figure that is no number becomes None."""
        values = {each.name: getattr(self, each.name) for each in fields(self)} | dict(self)
        values |= {name: None for name, value in values.items() if isinstance(value, float) and math.isnan(value)}
        values["preprocess"] = self.preprocess.to_dict()
        values["classes"] = list(self.classes)
        values["per_class"] = [asdict(score) for score in self.per_class]
        values["confusion"] = None if self.confusion is None else self.confusion.tolist()
        return values


@dataclass(frozen=True)
class Failure:
    """A checkpoint that could not be evaluated, and why."""

    checkpoint: str
    reason: str


def evaluate(source: Source, data: Data, *, progress: Progress | None = None, **options: Any) -> Evaluation:
    """Evaluate one classifier on labelled images: `dict(evaluate("model.safetensors", "digits"))["top1"]`.

    source: what `van.load` takes, a model (taken over: moved to `device`, into eval mode), or an `engines.Opened`.
    data: what `data.open_classification` takes, or its result; options: fields of EvalOptions.
    progress: called with (images done, images in all).
    Raises CheckpointError, ConfigError, DataError; an image that cannot be read is a DataError, never left out.
    """
    chosen = EvalOptions.of(options)
    return _evaluate(source, _Source(data, chosen), chosen, progress)


def evaluate_many(
    sources: Iterable[str | Path] | str | Path,
    data: Data,
    *,
    progress: Progress | None = None,
    on_result: Callable[[Evaluation | Failure], None] | None = None,
    **options: Any,
) -> list[Evaluation | Failure]:
    """Evaluate several checkpoints alike, best top-1 first; one that fails becomes a Failure at the end.

    sources: files, folders, globs, hub ids, as `engines.find_checkpoints` takes them; data, options: see `evaluate`.
    on_result: called with each as soon as it is there.
    Raises CheckpointError when there is none, DataError and ConfigError for data that cannot be opened.
    """
    chosen = EvalOptions.of(options)
    checkpoints = find_checkpoints([sources] if isinstance(sources, str | Path) else sources)
    images = _Source(data, chosen)
    results: list[Evaluation | Failure] = []
    for checkpoint in checkpoints:
        try:
            results.append(_evaluate(checkpoint, images, chosen, progress))
        except Exception as error:  # whatever is wrong with one checkpoint, the others still count
            results.append(Failure(checkpoint, reason_of(error)))
        if on_result is not None:
            on_result(results[-1])
    done = [each for each in results if isinstance(each, Evaluation)]
    failed = [each for each in results if isinstance(each, Failure)]
    return [*sorted(done, key=lambda each: -each.top1), *failed]


@dataclass(frozen=True)
class _Images:
    data: ClassificationData
    name: str
    split: str


class _Source:
    """The data; where it is split automatically, once for every split that a checkpoint was trained with."""

    def __init__(self, data: Data, options: EvalOptions) -> None:
        if isinstance(data, str) and (reason := why_no_path(data)):
            raise DataError(f"data {data!r} {reason}; expected a folder, or 'digits'")
        if isinstance(data, ClassificationData) and not options.exif:
            raise ConfigError("exif is for data that is opened here; the data set given has its own way to read images")
        self.data, self.options = data, options
        self.automatic = not isinstance(data, ClassificationData) and str(data) != "digits" and not has_own_val(data)
        self.split = options.split or self._split(data)
        self.opened: dict[tuple[int, float], ClassificationData] = {}
        self.told: set[tuple[int, float]] = set()
        self._open(self._drawn({}))  # what is wrong with the data is no checkpoint's fault

    def images(self, provenance: Mapping[str, Any]) -> _Images:
        """Those to evaluate a checkpoint on; says so when that is only a part of them."""
        if isinstance(self.data, ClassificationData):
            return _Images(self.data, type(self.data).__name__, self.split)
        drawn = self._drawn(provenance)
        images = self._open(drawn)
        if self.options.split is None and self.split == "val" and self.automatic and drawn not in self.told:
            self.told.add(drawn)
            warnings.warn(
                f"{self.data} has no val/ folder: evaluating the {len(images)} image(s) that training holds out of it "
                f"(seed {drawn[0]}); split 'all' takes every image",
                VanNotice,
                stacklevel=5,
            )
        return _Images(images, str(self.data), self.split)

    def _split(self, data: Data) -> str:
        if isinstance(data, ClassificationData):
            return "all"
        options = self.options
        foreign = (options.real_labels, options.classes_subset, options.class_map) != (None, None, None)
        return "all" if self.automatic and (is_split_name(Path(data).resolve().name, "val") or foreign) else "val"

    def _drawn(self, provenance: Mapping[str, Any]) -> tuple[int, float]:
        """(seed, fraction) of the automatic split: as told, as trained, else the defaults."""
        trained = provenance.get("split") or {}
        seed, fraction = self.options.seed, self.options.val_fraction
        return (
            trained.get("seed", 0) if seed is None else seed,
            trained.get("val_fraction", VAL_FRACTION) if fraction is None else fraction,
        )

    def _open(self, drawn: tuple[int, float]) -> ClassificationData:
        if isinstance(self.data, ClassificationData):
            return self.data
        if drawn not in self.opened:
            seed, fraction = drawn
            self.opened[drawn] = open_classification(
                self.data, self.split, seed=seed, val_fraction=fraction, exif=self.options.exif
            )
        return self.opened[drawn]


def _evaluate(source: Source, data: _Source, options: EvalOptions, progress: Progress | None) -> Evaluation:
    opened = open_classifier(
        source,
        engine=options.engine,
        device=options.device,
        precision=options.precision,
        ema=options.ema,
        test_time_pool=options.test_time_pool,
        optimize=options.optimize,
        trust=options.trust,
        overrides=options.preprocess_overrides,
    )
    images = data.images(opened.provenance)
    plan = plan_classes(
        images.data.classes,
        opened.num_classes,
        opened.classes,
        subset=options.classes_subset,
        class_map=options.class_map,
    )
    run = _Run(opened, images.data, plan, options)
    run.finish(progress)
    return run.evaluation(images)


class _Run:
    """One pass over the images."""

    def __init__(self, opened: Opened, data: ClassificationData, plan: ClassPlan, options: EvalOptions) -> None:
        self.opened, self.data, self.plan = opened, data, plan
        self.meter = ClassificationMeter(plan.classes)
        self.real = RealLabels(options.real_labels, plan.targets, plan.columns) if options.real_labels else None
        self.real_meter = RealMeter()
        self.engine = HalvingEngine(opened.engine, options.batch_size)
        self.workers = default_workers() if options.workers is None else options.workers
        self.engine_name = opened.runtime
        self.seconds = 0.0
        self._target = {label: target for label, target in enumerate(plan.targets) if target is not None}

    def finish(self, progress: Progress | None) -> None:
        """Run every image of the evaluated classes."""
        wanted = [i for i, label in enumerate(self.data.labels) if label in self._target]
        if not wanted:
            raise DataError("there is no image to evaluate: the split or the subset of labels is empty")
        start = time.perf_counter()
        for indices, arrays in self._batches(wanted):
            logits = self.plan.select(self.engine.logits(arrays))
            self.meter.update(logits, [self._target[self.data.labels[i]] for i in indices])
            if self.real:
                self.real_meter.update(logits, [self.real.of(self.data.name(i)) for i in indices])
            if progress:
                progress(self.meter.count, len(wanted))
        self.seconds = time.perf_counter() - start
        if self.meter.non_finite:
            warnings.warn(
                f"{self.meter.non_finite} of {self.meter.count} images gave logits that are not finite; a NaN never "
                "counts as right (try precision fp32)",
                VanNotice,
                stacklevel=5,
            )

    def _batches(self, indices: Sequence[int]) -> Iterator[tuple[list[int], list[np.ndarray]]]:
        """Decoded images in order, as many at a time as the engine takes by now."""
        names: list[int] = []
        arrays: list[np.ndarray] = []
        ahead = 2 * self.engine.batch_size
        for index, array in in_order(self._decode, indices, workers=self.workers, ahead=ahead):
            if isinstance(array, Exception):
                name, reason = self.data.name(index), reason_of(array)
                raise DataError(reason if name in reason else f"{name}: {reason}") from array
            names.append(index)
            arrays.append(array)
            if len(names) >= self.engine.batch_size:
                yield names, arrays
                names, arrays = [], []
        if names:
            yield names, arrays

    def _decode(self, index: int) -> np.ndarray:
        return self.opened.preprocess(self.data.load(index)[0])

    def evaluation(self, images: _Images) -> Evaluation:
        """The figures of the finished run."""
        own = (self.meter.top1, self.meter.top5, self.meter.count)
        top1, top5, count = (self.real_meter.top1, self.real_meter.top5, self.real_meter.count) if self.real else own
        original = own if self.real else (None, None, None)
        return Evaluation(
            checkpoint=self.opened.name,
            engine=self.engine_name,
            data=images.name,
            split=images.split,
            top1=top1,
            top5=top5,
            loss=self.meter.loss,
            count=count,
            original_top1=original[0],
            original_top5=original[1],
            original_count=original[2],
            **self.meter.macro(),
            non_finite=self.meter.non_finite,
            seconds=self.seconds,
            batch_size=self.engine.batch_size,
            preprocess=self.opened.preprocess,
            classes=self.plan.classes,
            per_class=self.meter.per_class(),
            confusion=self.meter.confusion() if len(self.plan.classes) <= MAX_CONFUSION_CLASSES else None,
        )


def evaluate_any(source: Any, data: Any, **options: Any) -> Evaluation | MaskEvaluation:
    """Evaluate a classifier or a segmenter: `van.evaluate("model.safetensors", "my_data")["top1"]`, `["mIoU"]`.

    source: a checkpoint, a folder with one, an exported file, a model, or what `engines` opened; data: what `van eval
    --data` takes, or an opened data set.
    options: those of `evaluate` for classifiers, of `evaluate_masks.evaluate_segmenter` for segmenters.
    Raises CheckpointError, ConfigError, DataError.
    """
    if isinstance(source, OpenedSegmenter) or (not isinstance(source, Opened) and is_segmenter(source)):
        return evaluate_segmenter(source, data, **options)
    return evaluate(source, data, **options)


class _Evaluate(ModuleType):
    """This module, called as `van.evaluate(…)`."""

    def __call__(self, source: Any, data: Any, **options: Any) -> Evaluation | MaskEvaluation:
        return evaluate_any(source, data, **options)


sys.modules[__name__].__class__ = _Evaluate
