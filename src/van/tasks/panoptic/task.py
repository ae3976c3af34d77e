"""Panoptic segmentation: every pixel belongs to a thing or to stuff."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...configs.model_config import ModelConfig
from ...configs.object_config import ObjectConfig, PanopticSegmenterConfig
from .. import base
from ..base import DataSet, EvaluationData, ResultTable, Subject, Task
from ..coco.options import SizeOptions
from .options import EvalOptions, PredictOptions
from .output import PanopticResults

if TYPE_CHECKING:
    from torch import Tensor

    from ...recipes import BaseRecipe, PanopticRecipe
    from .evaluation import PanopticEvaluator
    from .processor import PanopticProcessor
    from .report import PanopticReport
    from .training import PanopticTraining


class PanopticSegmentation(Task):
    """Images whose pixels all belong to segments: PQ."""

    name: ClassVar[str] = "panoptic"
    noun: ClassVar[str] = "panoptic segmenter"
    config: ClassVar[type[ModelConfig]] = PanopticSegmenterConfig
    predict_options: ClassVar[type] = PredictOptions
    eval_options: ClassVar[type[base.EvalOptions]] = EvalOptions
    results: ClassVar[ResultTable] = PanopticResults()
    data_help: ClassVar[str] = "'scenes', or a folder with COCO's panoptic JSON and PNG"

    def class_scores(self, config: ModelConfig, raw: Mapping[str, Tensor]) -> Tensor:
        """The best score of each class."""
        from ...nn.object_model import class_scores

        assert isinstance(config, ObjectConfig)
        return class_scores(config, raw)

    def processor(self, subject: Subject, options: object) -> PanopticProcessor:
        from .processor import processor_of

        assert isinstance(options, SizeOptions)
        return processor_of(subject, options)

    def open_data(self, path: str | Path, split: str | None = None, **options: Any) -> DataSet[Any]:
        from ...data.object_data import open_panoptic

        given = {name: value for name, value in options.items() if value is not None}
        return open_panoptic(path, split or "val", **given)

    def evaluator(self, subject: Subject, data: EvaluationData, options: base.EvalOptions) -> PanopticEvaluator:
        from .evaluation import evaluator_of

        assert isinstance(options, EvalOptions)
        return evaluator_of(subject, data, options)

    @property
    def report(self) -> type[PanopticReport]:
        from .report import PanopticReport

        return PanopticReport

    @property
    def recipe(self) -> type[PanopticRecipe]:
        from ...recipes import PanopticRecipe

        return PanopticRecipe

    def training(self, recipe: BaseRecipe) -> PanopticTraining:
        from ...recipes import PanopticRecipe
        from .training import PanopticTraining

        assert isinstance(recipe, PanopticRecipe)
        return PanopticTraining(recipe)


PANOPTIC = PanopticSegmentation()
