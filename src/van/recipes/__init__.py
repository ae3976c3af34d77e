"""Training recipes: one short function each, returning a frozen recipe. Names, never objects; stdlib only.

A recipe's docstring gives command, hardware, time, expected score, what is published and what is ours. What every task
shares lies here, what only one has in its folder.
"""

from .base import BaseRecipe, EpochRecipe, StepRecipe
from .classification import CLASSIFICATION_PRESETS, CLASSIFICATION_RECIPES, Recipe
from .classification.augment_spec import AugmentSpec
from .classification.data_spec import DataSpec
from .classification.loss_spec import CriterionSpec
from .classification.spec import ModelSpec, TrainerSpec
from .coco.presets import presets as _object_presets
from .detection import DETECTION_RECIPES, DetectionRecipe
from .instance import INSTANCE_RECIPES, InstanceRecipe
from .optim_spec import OptimSpec
from .panoptic import PANOPTIC_RECIPES, PanopticRecipe
from .registry import (
    KINDS,
    PRESETS_OF,
    RECIPES,
    configured,
    get_recipe,
    kind_of,
    recipe_of,
    register,
    summary,
    with_preset,
)
from .schedule_spec import ScheduleSpec
from .segmentation import PRESETS, SEGMENTATION_RECIPES, SegmentationRecipe
from .track_spec import TrackSpec

__all__ = [
    "CLASSIFICATION_PRESETS",
    "KINDS",
    "PRESETS",
    "PRESETS_OF",
    "RECIPES",
    "AnyRecipe",
    "AugmentSpec",
    "BaseRecipe",
    "CriterionSpec",
    "DataSpec",
    "DetectionRecipe",
    "EpochRecipe",
    "InstanceRecipe",
    "ModelSpec",
    "OptimSpec",
    "PanopticRecipe",
    "Recipe",
    "ScheduleSpec",
    "SegmentationRecipe",
    "StepRecipe",
    "TrackSpec",
    "TrainerSpec",
    "configured",
    "get_recipe",
    "kind_of",
    "recipe_of",
    "register",
    "summary",
    "with_preset",
]

AnyRecipe = BaseRecipe

register(Recipe, CLASSIFICATION_RECIPES, CLASSIFICATION_PRESETS)
register(SegmentationRecipe, SEGMENTATION_RECIPES, PRESETS)
register(DetectionRecipe, DETECTION_RECIPES, _object_presets())
register(InstanceRecipe, INSTANCE_RECIPES, _object_presets())
register(PanopticRecipe, PANOPTIC_RECIPES, _object_presets())
