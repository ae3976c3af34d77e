"""Training recipes: one short function each, returning a frozen Recipe. Names, never objects; stdlib only.

A recipe's docstring tells command, hardware, time, expected score, what is published and what is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..detectors import is_detector, only_created
from ..errors import ConfigError, UnknownNameError
from .digits import digits_van_b0
from .finetune import finetune, finetune_few, finetune_head
from .imagenet import IMAGENET_RECIPES
from .imagenet22k import IMAGENET22K_RECIPES
from .presets import CLASSIFICATION_PRESETS
from .segmentation import PRESETS, SEGMENTATION_RECIPES
from .segmentation_spec import SegmentationRecipe
from .spec import (
    AugmentSpec,
    CriterionSpec,
    DataSpec,
    ModelSpec,
    OptimSpec,
    Recipe,
    ScheduleSpec,
    TrackSpec,
    TrainerSpec,
)

__all__ = [
    "CLASSIFICATION_PRESETS",
    "PRESETS",
    "RECIPES",
    "AnyRecipe",
    "AugmentSpec",
    "CriterionSpec",
    "DataSpec",
    "ModelSpec",
    "OptimSpec",
    "Recipe",
    "ScheduleSpec",
    "SegmentationRecipe",
    "TrackSpec",
    "TrainerSpec",
    "get_recipe",
    "recipe_of",
    "summary",
    "with_preset",
]

AnyRecipe = Recipe | SegmentationRecipe

CLASSIFICATION_RECIPES: dict[str, Callable[[], Recipe]] = {
    **{recipe.__name__: recipe for recipe in (digits_van_b0, finetune, finetune_few, finetune_head)},
    **IMAGENET_RECIPES,
    **IMAGENET22K_RECIPES,
}
RECIPES: dict[str, Callable[[], AnyRecipe]] = {**CLASSIFICATION_RECIPES, **SEGMENTATION_RECIPES}


def get_recipe(name: str) -> Any:
    """The recipe of that name (dashes allowed); raises UnknownNameError with a suggestion."""
    key = name.lower().replace("-", "_")
    if is_detector(key):
        raise ConfigError(only_created(key))
    if key not in RECIPES:
        raise UnknownNameError.of("recipe", name, RECIPES)
    return RECIPES[key]()


def with_preset(recipe: Any, name: str) -> Any:
    """A recipe for a smaller machine; raises UnknownNameError, ConfigError for a preset of the other task."""
    known: dict[str, Any] = {**CLASSIFICATION_PRESETS, **PRESETS}
    if name not in known:
        raise UnknownNameError.of("preset", name, known)
    classifies = isinstance(recipe, Recipe)
    own: dict[str, Any] = CLASSIFICATION_PRESETS if classifies else PRESETS
    if name not in own:
        task = "segmentation" if classifies else "classification"
        raise ConfigError(f"--preset {name} belongs to {task} recipes; this one has {', '.join(own)}")
    return own[name](recipe)


def recipe_of(values: Mapping[str, Any]) -> AnyRecipe:
    """The recipe in a nested dict: a segmentation's says `task: segmentation`. Raises as `Recipe.from_dict`."""
    return SegmentationRecipe.from_dict(values) if values.get("task") else Recipe.from_dict(values)


def summary(name: str) -> str:
    """First line of a recipe's docstring."""
    return (RECIPES[name].__doc__ or "").strip().splitlines()[0]
