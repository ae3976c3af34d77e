"""Object detection: a box and a class for every object."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ...configs.model_config import ModelConfig
from ...configs.object_config import DetectorConfig
from ..coco.task import ObjectTask
from ..comparison import Comparison
from .comparison import COMPARISON

if TYPE_CHECKING:
    from ...recipes import BaseRecipe, DetectionRecipe
    from .evaluation import DetectionEvaluation
    from .training import DetectionTraining


class Detection(ObjectTask):
    """Images with boxes: COCO's AP."""

    name: ClassVar[str] = "detection"
    noun: ClassVar[str] = "detector"
    config: ClassVar[type[ModelConfig]] = DetectorConfig
    masks: ClassVar[bool] = False
    comparison: ClassVar[Comparison] = COMPARISON

    @property
    def evaluation(self) -> type[DetectionEvaluation]:
        from .evaluation import DetectionEvaluation

        return DetectionEvaluation

    @property
    def recipe(self) -> type[DetectionRecipe]:
        from ...recipes import DetectionRecipe

        return DetectionRecipe

    def training(self, recipe: BaseRecipe) -> DetectionTraining:
        from ...recipes import DetectionRecipe
        from .training import DetectionTraining

        assert isinstance(recipe, DetectionRecipe)
        return DetectionTraining(recipe)


DETECTION = Detection()
