"""Training recipes: one short function each, returning a frozen Recipe. Names, never objects; stdlib only.

A recipe's docstring gives command, hardware, time, expected score, what is published and what is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from ..configs.catalog import why_created_only
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
    "KINDS",
    "PRESETS",
    "PRESETS_OF",
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
    "configured",
    "get_recipe",
    "kind_of",
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
# class of recipes -> preset -> what makes a recipe fit a smaller machine
PRESETS_OF: dict[type[AnyRecipe], Mapping[str, Callable[[Any], AnyRecipe]]] = {
    Recipe: CLASSIFICATION_PRESETS,
    SegmentationRecipe: PRESETS,
}
KINDS = tuple(PRESETS_OF)
RECIPES: dict[str, Callable[[], AnyRecipe]] = {**CLASSIFICATION_RECIPES, **SEGMENTATION_RECIPES}


def get_recipe(name: str) -> Any:
    """The recipe of that name (dashes allowed); raises UnknownNameError with a suggestion."""
    key = name.lower().replace("-", "_")
    if reason := why_created_only(key):
        raise ConfigError(reason)
    if key not in RECIPES:
        raise UnknownNameError.of("recipe", name, RECIPES)
    return RECIPES[key]()


def with_preset(recipe: Any, name: str) -> Any:
    """A recipe for a smaller machine; raises UnknownNameError, ConfigError for a preset of the other task."""
    known = dict.fromkeys(each for own in PRESETS_OF.values() for each in own)
    if name not in known:
        raise UnknownNameError.of("preset", name, known)
    classifies = isinstance(recipe, Recipe)
    own = PRESETS_OF[type(recipe)]
    if name not in own:
        task = "segmentation" if classifies else "classification"
        raise ConfigError(f"--preset {name} belongs to {task} recipes; this one has {', '.join(own)}")
    return own[name](recipe)


def kind_of(values: Mapping[str, Any]) -> type[AnyRecipe]:
    """The class of the recipe in a nested dict: a segmentation's says `task: segmentation`."""
    return SegmentationRecipe if values.get("task") else Recipe


def recipe_of(values: Mapping[str, Any]) -> AnyRecipe:
    """The recipe in a nested dict, of the class that `kind_of` gives. Raises as `Recipe.from_dict`."""
    return kind_of(values).from_dict(values)


def configured(recipe: str | AnyRecipe, settings: Mapping[str, Any]) -> AnyRecipe:
    """A recipe (or the one of that name) with settings changed: `{"optim.lr": 1e-4}`, or `{"optim": {"lr": 1e-4}}`.

    Raises UnknownNameError for a setting that does not exist, ConfigError for one that cannot be.
    """
    base = get_recipe(recipe) if isinstance(recipe, str) else recipe
    if not isinstance(base, Recipe | SegmentationRecipe):
        raise ConfigError(f"got a recipe of type {type(base).__name__}; expected a name, as 'finetune', or a Recipe")
    values = base.to_dict()
    for name, value in settings.items():
        section, _, key = name.rpartition(".")
        inner = {key: value} if section else value if isinstance(value, Mapping) else None
        section = section or name
        if inner is None and name in ("name", "task"):
            values[name] = value
        elif inner is None or section not in base.sections():
            known = [f"{part}.{each}" for part, keys in values.items() if isinstance(keys, dict) for each in keys]
            raise UnknownNameError.of("setting", name, known)
        else:
            values[section] |= {key: str(each) if isinstance(each, PurePath) else each for key, each in inner.items()}
    return recipe_of(values)


def summary(name: str) -> str:
    """First line of a recipe's docstring."""
    return (RECIPES[name].__doc__ or "").strip().splitlines()[0]
