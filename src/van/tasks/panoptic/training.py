"""Training of panoptic segmenters: images with a segment for every pixel, validated as `van eval` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from ...data.object_data import open_panoptic
from ...data.objects import PanopticData
from ...nn import Model
from ...recipes import PanopticRecipe
from ..coco.resizing import Resizing
from ..coco.training import ObjectTraining
from ..training import TrainingData
from ..validation import MetricValidator, Validator
from .metric import PanopticMetric
from .processor import PanopticProcessor

OPACITY = 0.5  # of pictures, of which a validation draws none


class PanopticTraining(ObjectTraining[PanopticRecipe]):
    """Training of a panoptic segmenter by a recipe."""

    columns: ClassVar[tuple[str, ...]] = tuple(
        f"val/{name}{part}" for part in ("", "_things", "_stuff") for name in ("PQ", "SQ", "RQ")
    )
    shown: ClassVar[Mapping[str, str]] = {"val/PQ": "PQ {:.2%}", "val/SQ": "SQ {:.2%}", "val/RQ": "RQ {:.2%}"}
    masks: ClassVar[bool] = True

    def open_split(self, split: str, **options: Any) -> PanopticData:
        return open_panoptic(self.recipe.data.path or "", split, **options)

    def validator(self, val: TrainingData, network: Model) -> Validator:
        data = cast(PanopticData, val)
        resizing = Resizing.of(network.config)
        processor = PanopticProcessor(network.config, resizing, data.classes, data.palette, OPACITY)
        metric = PanopticMetric(data.classes, data.categories.things)
        return MetricValidator(processor, metric, self.scores)
