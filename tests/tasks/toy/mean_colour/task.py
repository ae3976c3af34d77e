"""The toy as the contract has it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from van.configs.model_config import ModelConfig
from van.tasks import base
from van.tasks.base import EvaluationData, ResultTable, Subject, Task
from van.tasks.options import option

from .config import MeanColourConfig
from .data import Colours, open_colours
from .evaluation import MeanColourEvaluator
from .model import MeanColour
from .processor import MeanColourProcessor, MeanColourResults
from .training import ColourRecipe, MeanColourTraining


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    decimals: int = option(3, "of the colours", kind=int, group="colour guessers")


@dataclass(frozen=True, kw_only=True)
class EvalOptions(base.EvalOptions):
    tolerance: float = option(0.1, "error up to which a colour is right", kind=float, group="colour guessers")


class MeanColourTask(Task):
    name: ClassVar[str] = "mean_colour"
    noun: ClassVar[str] = "colour guesser"
    config: ClassVar[type[ModelConfig]] = MeanColourConfig
    predict_options: ClassVar[type] = PredictOptions
    eval_options: ClassVar[type[base.EvalOptions]] = EvalOptions
    results: ClassVar[ResultTable] = MeanColourResults()
    data_help: ClassVar[str] = "'colours'"

    def build(self, config: ModelConfig) -> nn.Module:
        return MeanColour(config)

    def processor(self, subject: Subject, options: object) -> MeanColourProcessor:
        return MeanColourProcessor(getattr(options, "decimals", 3))

    def open_data(self, path: str | Path, split: str | None = None, **options: Any) -> Colours:
        return open_colours(path, split, **options)

    def evaluator(self, subject: Subject, data: EvaluationData, options: EvalOptions) -> MeanColourEvaluator:
        return MeanColourEvaluator(data, options.tolerance)

    @property
    def recipe(self) -> type[ColourRecipe]:
        return ColourRecipe

    def training(self, recipe: ColourRecipe) -> MeanColourTraining:
        return MeanColourTraining(recipe)


MEAN_COLOUR = MeanColourTask()
