"""The contract of a task. Everything outside `tasks/` that works for every task is a loop over what stands here.

A task is one frozen value in one folder. Its members import what is heavy when they are called, so that listing options
or recipes needs no torch.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
from PIL import Image

from ..configs.metadata import ModelMetadata
from ..configs.model_config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

    from ..recipes import Recipe
    from .training import Training

Json = Any  # dict, list, str, float, int, bool or None, nested
Row = tuple[str | int | float | None, ...]

Prepared = TypeVar("Prepared")
Raw = TypeVar("Raw")
Target = TypeVar("Target")


class Engine(Protocol):
    """What runs a network; `inference.engines` has one for every runtime.

    runtime: what computes, "torch", "keras", "onnxruntime" …
    """

    runtime: str

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """(N, C, H, W) float32 -> the network's raw outputs by name, float32; a classifier's are "logits"."""

    def run_tensors(self, images: Tensor) -> dict[str, Tensor]:
        """As `run`, on the engine's own device."""


class DataSet(Protocol[Target]):
    """Labelled images: `len(data)`, `data.load(i)`, `data.name(i)`."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def load(self, index: int) -> tuple[Image.Image, Target]:
        """The image and what is true of it; raises DataError for a file that cannot be used."""

    def name(self, index: int) -> str:
        """What to call the image in tables and errors."""


class Output(Protocol):
    """What a network says about one image. image: its path, or a description of an image in memory."""

    @property
    def image(self) -> str: ...

    def to_dict(self) -> dict[str, Json]:
        """JSON-ready values, "image" first."""

    def draw(self) -> Image.Image:
        """The image with the result on it, RGB."""


class Processor(ABC, Generic[Prepared, Raw]):
    """The one place where pixels become inputs, and raw outputs become results.

    Prediction, evaluation, validation, calibration, parity checks and services all go through it. Several threads may
    use one.
    batched: whether several prepared images go through the network together.
    """

    batched: ClassVar[bool]

    @abstractmethod
    def prepare(self, image: Image.Image) -> Prepared:
        """What `run` needs of an image; called in a reading thread. Raises DataError for an unfit image."""

    @abstractmethod
    def inputs(self, image: Image.Image) -> Iterator[np.ndarray]:
        """What the network gets of an image, lazily: arrays (C, H, W) float32, one, or one per tile, scale and flip."""

    @abstractmethod
    def run(self, engine: Engine, prepared: Sequence[Prepared]) -> list[Raw]:
        """One raw result per image; a single image at a time unless `batched`."""

    @abstractmethod
    def output(self, raw: Raw, prepared: Prepared, *, image: str, source: object) -> Output:
        """The result; image: what it is called; source: what the caller gave, a path or an image in memory.

        Raises DataError for a raw result that says nothing, such as logits that are not finite.
        """


class Metric(ABC, Generic[Raw, Target]):
    """Scores that add up exactly: the metrics of two halves of a data set make that of the whole."""

    @abstractmethod
    def update(self, raw: Sequence[Raw], targets: Sequence[Target], names: Sequence[str]) -> None:
        """Count some images; names: what to call them in errors."""

    @abstractmethod
    def __add__(self, other: Self) -> Self: ...

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Score by name; NaN where nothing was there to score."""

    @abstractmethod
    def table(self) -> list[dict[str, Json]]:
        """One row per class."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model that a processor or an evaluation is for: of a checkpoint, an exported file or in memory."""

    config: ModelConfig
    metadata: ModelMetadata
    name: str

    @property
    def num_classes(self) -> int:
        """Classes of the output."""
        return self.config.num_classes


class Evaluation(ABC):
    """What an evaluation found: iterating yields (name, value) of the scores, `evaluation["top1"]` is one of them.

    checkpoint, data, split: what was evaluated on what; count: images; seconds: all of reading, network and counting.
    """

    checkpoint: str
    data: str
    split: str
    count: int
    seconds: float

    @property
    @abstractmethod
    def score(self) -> float:
        """What checkpoints are ranked by, larger is better."""

    @abstractmethod
    def scores(self) -> dict[str, float]:
        """Every score by its name."""

    @abstractmethod
    def to_dict(self) -> dict[str, Json]:
        """Everything, ready for JSON."""

    @abstractmethod
    def columns(self) -> dict[str, str]:
        """The line of this checkpoint in a table for people: heading -> text, the checkpoint left out."""

    @abstractmethod
    def tables(self, *, per_class: bool) -> list[tuple[Sequence[str], Sequence[Row]]]:
        """Further tables for people, (headings, rows) each; those per class only on request or where they are short."""


@dataclass(frozen=True, kw_only=True)
class Evaluator(Generic[Prepared, Raw, Target]):
    """An evaluation that is ready to begin.

    indices: the images of the data set that count. metric: empty. target: what is counted of an image's label.
    """

    data: DataSet[Any]
    processor: Processor[Prepared, Raw]
    metric: Metric[Raw, Target]
    indices: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """How entries of results, JSON-ready dicts with an "image", become rows of CSV and a table for people.

    columns: of CSV, the image first. rows: an entry as CSV. headings, cells: an entry for people.
    """

    columns: tuple[str, ...]
    headings: tuple[str, ...]

    def rows(self, entry: Mapping[str, Json]) -> list[Row]:
        """The entry as rows of CSV."""
        raise NotImplementedError

    def cells(self, entry: Mapping[str, Json]) -> tuple[str, ...]:
        """The entry as one row for people."""
        raise NotImplementedError


class Task(ABC):
    """A task: what a model is for, and all that only this task knows.

    name: "classification"; noun: what its models are called in messages. config: the class of configuration that its
    checkpoints carry. predict_options, eval_options: frozen dataclasses of its options of prediction and evaluation,
    fields made by `tasks.options.option`. recipe: the class of its training recipes, which has sections of its own.
    """

    name: ClassVar[str]
    noun: ClassVar[str]
    config: ClassVar[type[ModelConfig]]
    predict_options: ClassVar[type]
    eval_options: ClassVar[type]
    results: ClassVar[ResultTable]

    @property
    @abstractmethod
    def recipe(self) -> type[Recipe]:
        """The class of this task's training recipes."""

    @abstractmethod
    def processor(self, subject: Subject, options: Any) -> Processor[Any, Any]:
        """How images are prepared and results are made; options: an instance of `predict_options`.

        Raises ConfigError for a model that takes no images, and for options that do not fit it.
        """

    @abstractmethod
    def open_data(self, path: str | Path, split: str | None, **options: Any) -> DataSet[Any]:
        """A data set of this task."""

    @abstractmethod
    def evaluator(self, subject: Subject, data: Any, options: Any) -> Evaluator[Any, Any, Any]:
        """An evaluation on a data set or the path of one; options: an instance of `eval_options`."""

    @abstractmethod
    def training(self, recipe: Recipe) -> Training:
        """What training by a recipe needs of this task."""
