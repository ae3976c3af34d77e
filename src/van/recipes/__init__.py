"""Training recipes: one short function each, returning a frozen Recipe. Names, never objects; stdlib only.

A recipe's docstring tells command, hardware, time, expected score, what is published and what is ours.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import UnknownNameError
from .digits import digits_van_b0
from .finetune import finetune
from .imagenet import imagenet_van_b0, imagenet_van_b1, imagenet_van_b2, imagenet_van_b3
from .spec import AugmentSpec, DataSpec, ModelSpec, OptimSpec, Recipe, ScheduleSpec, TrainerSpec

__all__ = [
    "RECIPES",
    "AugmentSpec",
    "DataSpec",
    "ModelSpec",
    "OptimSpec",
    "Recipe",
    "ScheduleSpec",
    "TrainerSpec",
    "get_recipe",
    "summary",
]

RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe
    for recipe in (digits_van_b0, finetune, imagenet_van_b0, imagenet_van_b1, imagenet_van_b2, imagenet_van_b3)
}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name (dashes allowed); raises UnknownNameError with a suggestion."""
    key = name.lower().replace("-", "_")
    if key not in RECIPES:
        raise UnknownNameError.of("recipe", name, RECIPES)
    return RECIPES[key]()


def summary(name: str) -> str:
    """First line of a recipe's docstring."""
    return (RECIPES[name].__doc__ or "").strip().splitlines()[0]
