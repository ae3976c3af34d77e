"""Instance segmentation: a box, a mask and a class for every object."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ...configs.model_config import ModelConfig
from ...configs.object_config import InstanceSegmenterConfig
from ..coco.task import ObjectTask

if TYPE_CHECKING:
    from ...recipes import BaseRecipe, InstanceRecipe
    from .evaluation import InstanceEvaluation
    from .report import InstanceReport
    from .training import InstanceTraining


class Instance(ObjectTask):
    """Images with masks of their objects: COCO's AP of masks, and of boxes."""

    name: ClassVar[str] = "instance"
    noun: ClassVar[str] = "instance segmenter"
    config: ClassVar[type[ModelConfig]] = InstanceSegmenterConfig
    masks: ClassVar[bool] = True

    @property
    def evaluation(self) -> type[InstanceEvaluation]:
        from .evaluation import InstanceEvaluation

        return InstanceEvaluation

    @property
    def report(self) -> type[InstanceReport]:
        from .report import InstanceReport

        return InstanceReport

    @property
    def recipe(self) -> type[InstanceRecipe]:
        from ...recipes import InstanceRecipe

        return InstanceRecipe

    def training(self, recipe: BaseRecipe) -> InstanceTraining:
        from ...recipes import InstanceRecipe
        from .training import InstanceTraining

        assert isinstance(recipe, InstanceRecipe)
        return InstanceTraining(recipe)


INSTANCE = Instance()
