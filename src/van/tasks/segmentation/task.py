"""Semantic segmentation: one class per pixel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...configs.model_config import ModelConfig
from ...configs.segmenter import SegmenterConfig
from ...errors import ConfigError
from .. import base
from ..base import DataSet, EvaluationData, Json, ResultTable, Subject, Task
from ..comparison import Comparison
from .comparison import COMPARISON
from .options import EvalOptions, PredictOptions, ViewOptions
from .output import SegmentationResults

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ...recipes import BaseRecipe, SegmentationRecipe
    from .evaluation import SegmentationEvaluator
    from .processor import SegmentationProcessor
    from .report import SegmentationReport
    from .training import SegmentationTraining

IGNORE_INDEX = 255  # in the label maps that this package's trainings and the published ones learn from


class Segmentation(Task):
    """Pictures with a class for every pixel: mIoU."""

    name: ClassVar[str] = "segmentation"
    noun: ClassVar[str] = "segmenter"
    config: ClassVar[type[ModelConfig]] = SegmenterConfig
    predict_options: ClassVar[type] = PredictOptions
    eval_options: ClassVar[type[base.EvalOptions]] = EvalOptions
    results: ClassVar[ResultTable] = SegmentationResults()
    data_help: ClassVar[str] = "'scenes', a folder, dataset.yaml"
    channels_last: ClassVar[bool] = False  # the Hamburger's matrix products and the upsampling want rows
    comparison: ClassVar[Comparison] = COMPARISON

    def exported(self, subject: Subject) -> dict[str, Json]:
        """How the network is applied to a picture: its training's record, else its method's published way."""
        from .processor import recorded_inference

        return {"inference": recorded_inference(subject), "ignore_index": IGNORE_INDEX}

    def class_scores(self, config: ModelConfig, raw: Mapping[str, Tensor]) -> Tensor:
        """The mean logit of each class over the pixels that are given to it; -inf for a class that gets none."""
        import torch

        logits = raw["logits"][0].flatten(1)  # (K, h w)
        chosen = torch.nn.functional.one_hot(logits.argmax(0), len(logits)).T  # (K, h w)
        count = chosen.sum(1)
        return torch.where(count > 0, (logits * chosen).sum(1) / count.clamp(min=1), -torch.inf)

    def main_class(self, config: ModelConfig, raw: Mapping[str, Tensor]) -> int:
        """The class with the most pixels."""
        return int(raw["logits"][0].argmax(0).flatten().bincount().argmax())

    def processor(self, subject: Subject, options: object) -> SegmentationProcessor:
        from .processor import processor_of

        assert isinstance(options, ViewOptions)
        return processor_of(subject, options, seeds=getattr(options, "seeds", None) or 0)

    def open_data(self, path: str | Path, split: str | None = None, **options: Any) -> DataSet[np.ndarray]:
        from ...data.segmentation import open_segmentation

        given = {name: value for name, value in options.items() if value is not None}
        return open_segmentation(path, split or "val", **given)

    def evaluator(self, subject: Subject, data: EvaluationData, options: base.EvalOptions) -> SegmentationEvaluator:
        from ...data.labelled_pixels import SegmentationData
        from .evaluation import evaluator_of

        if not isinstance(data.images, SegmentationData):
            raise ConfigError(f"{subject.name} is a segmenter; expected pictures with a label for every pixel as data")
        assert isinstance(options, EvalOptions)
        return evaluator_of(subject, data.images, data.name, options)

    @property
    def report(self) -> type[SegmentationReport]:
        from .report import SegmentationReport

        return SegmentationReport

    @property
    def recipe(self) -> type[SegmentationRecipe]:
        from ...recipes import SegmentationRecipe

        return SegmentationRecipe

    def training(self, recipe: BaseRecipe) -> SegmentationTraining:
        from ...recipes import SegmentationRecipe
        from .training import SegmentationTraining

        assert isinstance(recipe, SegmentationRecipe)
        return SegmentationTraining(recipe)


SEGMENTATION = Segmentation()
