"""The contract of a task. Everything outside `tasks/` that works for every task is a loop over what stands here.

A task is one frozen value in one folder. Its members import what is heavy when they are called, so that listing options
or recipes needs no torch.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
from PIL import Image

from ..configs.metadata import ModelMetadata
from ..configs.model_config import ModelConfig
from ..errors import ConfigError, UnknownNameError
from .comparison import Comparison
from .options import option
from .results import Column as Column
from .results import Finding as Finding
from .results import Json as Json
from .results import Output as Output
from .results import ResultTable as ResultTable
from .results import Row as Row
from .results import Table as Table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..images.sources import ImageSource
    from ..recipes import BaseRecipe
    from .report_parts import TaskReport
    from .training import Training

Prepared = TypeVar("Prepared")
Raw = TypeVar("Raw")
Target = TypeVar("Target")
Target_co = TypeVar("Target_co", covariant=True)


# ---- what runs, and on what


class Engine(Protocol):
    """What runs a network; `inference.engines` has one for every runtime.

    runtime: what computes, "torch", "keras", "onnxruntime" …
    network: the torch module that is run; None where another runtime computes.
    """

    @property
    def runtime(self) -> str: ...

    @property
    def network(self) -> nn.Module | None: ...

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """(N, C, H, W) float32 -> the network's raw outputs by name, float32; of a single output "logits"."""

    def run_tensors(self, images: Tensor) -> dict[str, Tensor]:
        """As `run`; the outputs stay on the engine's own device."""

    def on(self, device: str) -> Engine:
        """An engine for the same network on another device; raises ConfigError where it cannot run there."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model that a processor or an evaluation is for: of a checkpoint, an exported file or in memory.

    name: its path, or the type of a model in memory.
    """

    config: ModelConfig
    metadata: ModelMetadata
    name: str

    @property
    def num_classes(self) -> int:
        """Classes of the output."""
        return self.config.num_classes

    @property
    def classes(self) -> tuple[str, ...]:
        """One name per class, its number as text where the model has no names."""
        return self.metadata.classes or tuple(map(str, range(self.num_classes)))


class DataSet(Protocol[Target_co]):
    """Labelled images: `len(data)`, `data.load(i)`, `data.name(i)`."""

    classes: tuple[str, ...]

    def __len__(self) -> int: ...

    def load(self, index: int) -> tuple[Image.Image, Target_co]:
        """The image and what is true of it; raises DataError for a file that cannot be used."""

    def name(self, index: int) -> str:
        """What to call the image in tables and errors."""


# ---- pixels in, results out


@dataclass(frozen=True, kw_only=True, eq=False)
class WholeView:
    """An image as a single input of the network.

    array: (C, h, w) float32, as the network gets it. picture: the image, RGB. extent: (height, width) of the part of
    the array that is filled, from the top left; the rest is padding. box: left, top, right, bottom of what fills it, in
    pixels of the picture.
    """

    array: np.ndarray
    picture: Image.Image
    extent: tuple[int, int]
    box: tuple[float, float, float, float]


class Processor(ABC, Generic[Prepared, Raw]):
    """The one place where pixels become inputs, and raw outputs become results.

    Prediction, evaluation, validation, calibration, parity checks and services all go through it. Several threads may
    use one.
    batched: whether several prepared images go through the network together.
    """

    batched: ClassVar[bool] = True

    @abstractmethod
    def prepare(self, image: Image.Image) -> Prepared:
        """What `run` needs of an image; called in a reading thread. Raises DataError for an unfit image."""

    @abstractmethod
    def inputs(self, image: Image.Image) -> Iterator[np.ndarray]:
        """What the network gets of an image, lazily: arrays (C, H, W) float32, one, or one per tile, scale and flip."""

    def whole(self, image: Image.Image) -> WholeView:
        """The image as one input, whatever tiles and views `inputs` makes of it: what explanations are of.

        Raises ConfigError for a task that makes none.
        """
        raise ConfigError(f"{type(self).__name__} makes no single input of a whole image, so it cannot be explained")

    @abstractmethod
    def run(self, engine: Engine, prepared: Sequence[Prepared]) -> list[Raw]:
        """One raw result per image; a single image at a time unless `batched`."""

    @abstractmethod
    def output(self, raw: Raw, prepared: Prepared, source: ImageSource) -> Output:
        """The result; source: where the image came from, with its name.

        Raises DataError for a raw result that means nothing, such as logits that are not finite.
        """

    def facts(self) -> dict[str, Json]:
        """How images are prepared, JSON-ready, for the head of a file of results."""
        return {}


# ---- scores


class Metric(ABC, Generic[Raw, Target]):
    """Scores that add up exactly: the metrics of two parts of a data set make that of the whole, in this order."""

    @abstractmethod
    def update(self, raw: Sequence[Raw], targets: Sequence[Target], names: Sequence[str]) -> None:
        """Count some images; names: what to call them in errors. Raises DataError for a target that does not fit."""

    @abstractmethod
    def __add__(self, other: Self) -> Self: ...

    @abstractmethod
    def empty(self) -> Self:
        """One of the same kind that has counted nothing."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Score by name; NaN where nothing was there to score."""

    @abstractmethod
    def table(self) -> list[dict[str, Json]]:
        """One row per class."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """How an evaluation went.

    checkpoint, data, split: what was evaluated on what. runtime: what computed. count: images. seconds: all of
    reading, network and counting. batch_size: what fitted into memory. optimized: whether the network was folded.
    """

    checkpoint: str
    data: str
    split: str
    runtime: str
    count: int
    seconds: float
    batch_size: int
    optimized: bool = False


class Evaluation(ABC):
    """What an evaluation found: iterating yields (name, value) of the scores, `evaluation["top1"]` is one of them.

    monitored: name of the score by which checkpoints are ranked, larger is better. perfect: the largest it can be.
    optimized: whether a folded network was run.
    """

    monitored: ClassVar[str]
    perfect: ClassVar[float] = 1.0

    checkpoint: str
    data: str
    split: str
    count: int
    seconds: float
    optimized: bool = False

    @property
    def score(self) -> float:
        """The monitored score."""
        return self[self.monitored]

    @abstractmethod
    def scores(self) -> dict[str, float]:
        """Every score by its name."""

    def __iter__(self) -> Iterator[tuple[str, float]]:
        yield from self.scores().items()

    def __getitem__(self, name: str) -> float:
        """A score by its name: `evaluation["top1"]`; raises UnknownNameError."""
        scores = self.scores()
        if name not in scores:
            raise UnknownNameError.of("figure", name, scores)
        return scores[name]

    @abstractmethod
    def to_dict(self) -> dict[str, Json]:
        """Everything, ready for JSON."""

    @abstractmethod
    def row(self) -> dict[str, str | int | float | None]:
        """The line of this checkpoint in a CSV file: column -> value, the checkpoint left out."""

    @abstractmethod
    def columns(self) -> dict[str, str]:
        """The line of this checkpoint in a table for people: heading -> text, the checkpoint left out."""

    @abstractmethod
    def headline(self) -> dict[str, float]:
        """The scores that people compare first: heading -> percent."""

    def notes(self) -> list[str]:
        """Sentences that belong to the scores."""
        return []

    def tables(self, *, per_class: bool | None) -> list[Table]:
        """Further tables for people. per_class: those of the classes too; None: where they are short."""
        return []

    def picture(self) -> bytes:
        """The confusion matrix as a PNG picture; raises VanError where there is none."""
        raise ConfigError(f"an evaluation of {self.checkpoint} has no confusion matrix; leave it out")


class Evaluator(ABC, Generic[Prepared, Raw, Target]):
    """An evaluation that is ready to begin; goes to other processes with everything in it.

    indices: the images of the data set that count. metric: empty.
    """

    data: DataSet[Target]
    processor: Processor[Prepared, Raw]
    metric: Metric[Raw, Target]
    indices: Sequence[int]

    def done(self, index: int, prepared: Prepared, raw: Raw, target: Target) -> None:
        """Called after each image, in the process that ran it; to write what it gave."""
        return

    @abstractmethod
    def evaluation(self, metric: Metric[Raw, Target], run: Pass) -> Evaluation:
        """What was found; metric: of all images."""


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Options of evaluation that every task has.

    split: "train", "val" or "all"; None: what the task evaluates on.
    seed, val_fraction: of the automatic split of data without a validation part; None: those that the model was
        trained with, so that nothing it learned from is evaluated, else 0 and 0.2.
    exif: images are turned as their EXIF orientation says; False: pixels as stored, as published protocols had them.
    """

    split: str | None = option(
        None,
        "train, val, or all of a folder of class folders (default: val; all of an evaluation-only folder)",
        group="data",
    )
    seed: int | None = option(None, "of the automatic split (default: the training's, else 0)", kind=int, group="data")
    val_fraction: float | None = option(
        None, "of the automatic split (default: the training's, else 0.2)", kind=float, group="data"
    )
    exif: bool = True

    def drawn(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """How the data set is split and read: as given, else as the model's training wrote it into its provenance."""
        trained = {name: value for name, value in (provenance.get("split") or {}).items() if value is not None}
        given = {"seed": self.seed, "val_fraction": self.val_fraction}
        return trained | {name: value for name, value in given.items() if value is not None} | {"exif": self.exif}


@dataclass(frozen=True)
class EvaluationData:
    """A data set to evaluate on; name: what it is called in results."""

    images: DataSet[Any]
    name: str
    split: str


# ---- the task itself


class Task(ABC):
    """A task: what a model is for, and all that only this task knows.

    name: "classification"; noun: what its models are called in messages. config: the class of configuration that its
    checkpoints carry. predict_options, eval_options: frozen dataclasses of its own options, fields made by
    `options.option`; eval_options is a subclass of EvalOptions. data_help: what `--data` takes. channels_last: the
    memory layout of its networks. comparison: how an exported network is compared with the original.
    """

    name: ClassVar[str]
    noun: ClassVar[str]
    config: ClassVar[type[ModelConfig]]
    predict_options: ClassVar[type]
    eval_options: ClassVar[type[EvalOptions]]
    results: ClassVar[ResultTable]
    data_help: ClassVar[str] = "a folder"
    channels_last: ClassVar[bool] = True
    comparison: ClassVar[Comparison] = Comparison()

    def build(self, config: ModelConfig) -> nn.Module:
        """The model of a configuration, with fresh weights."""
        from ..nn.build import build

        return build(config)

    def config_of(self, model: nn.Module) -> ModelConfig | None:
        """The configuration of a model in memory; None for a model of another task."""
        config = getattr(model, "config", None)
        return config if isinstance(config, self.config) else None

    def network(self, model: nn.Module, subject: Subject, options: object) -> nn.Module:
        """What to run of a model, by the options with `network`."""
        return model

    def class_scores(self, config: ModelConfig, raw: Mapping[str, Tensor]) -> Tensor:
        """Score of every class, (K,), by which an explanation is made: differentiable, -inf for a class not found.

        raw: the network's outputs for one image. Raises ConfigError for a task that has no such scores.
        """
        raise ConfigError(f"{self.noun}s have no scores of classes that could be explained")

    def main_class(self, config: ModelConfig, raw: Mapping[str, Tensor]) -> int:
        """The class that is explained unless another is asked for; `raw` as in `class_scores`."""
        return int(self.class_scores(config, raw).argmax())

    def takes_images(self, subject: Subject) -> bool:
        """Whether images can be made inputs of a model."""
        return subject.metadata.preprocess is not None

    def sized(self, subject: Subject, size: int | tuple[int, int]) -> Subject:
        """A model as for images of another size, which is the option `size` of prediction.

        Raises ConfigError for a size that cannot be, and where it means nothing.
        """
        preprocess = subject.metadata.preprocess
        if preprocess is None:
            raise ConfigError(f"size is of the preprocessing of images, which {subject.name} has none of; leave it out")
        metadata = replace(subject.metadata, preprocess=preprocess.with_overrides(size=size))
        return replace(subject, metadata=metadata)

    def exported(self, subject: Subject) -> dict[str, Json]:
        """What an exported file holds besides configuration and metadata: `inference`, how images become inputs by this
        task's own record, which a processor finds in the provenance, and `ignore_index`."""
        return {}

    @abstractmethod
    def processor(self, subject: Subject, options: object) -> Processor[Any, Any]:
        """How images are prepared and results are made; options: of `predict_options`, or of `eval_options`.

        Raises ConfigError for a model that takes no images, and for options that do not fit it.
        """

    @abstractmethod
    def open_data(self, path: str | Path, split: str | None = None, **options: Any) -> DataSet[Any]:
        """One split of a data set, "val" by default.

        options: seed, val_fraction, exif, and those that training wrote into a model's provenance; what is None or
        left out has its default.
        """

    def evaluation_data(
        self, data: str | Path | DataSet[Any], options: EvalOptions, provenance: Mapping[str, Any]
    ) -> EvaluationData:
        """What to evaluate a model of this provenance on; data: a path, or an opened data set."""
        if not isinstance(data, str | Path):
            return EvaluationData(data, type(data).__name__, options.split or str(getattr(data, "split", "all")))
        split = options.split or "val"
        return EvaluationData(self.open_data(data, split, **options.drawn(provenance)), str(data), split)

    @abstractmethod
    def evaluator(self, subject: Subject, data: EvaluationData, options: EvalOptions) -> Evaluator[Any, Any, Any]:
        """An evaluation on a data set; options: of `eval_options`. Raises DataError where the classes do not fit."""

    @property
    def report(self) -> type[TaskReport]:
        """What this task adds to the report of a training run."""
        from .metric_report import MetricReport

        return MetricReport

    @property
    def recipe(self) -> type[BaseRecipe]:
        """The class of this task's training recipes, which has sections of its own."""
        raise ConfigError(f"there are no training recipes for {self.noun}s")

    def training(self, recipe: BaseRecipe) -> Training[Any]:
        """What training by a recipe needs of this task."""
        raise ConfigError(f"{self.noun}s cannot be trained by this package")
