"""Recipes of instance segmentation: COCO as published, digit scenes."""

from __future__ import annotations

from collections.abc import Callable

from .coco import INSTANCE_RECIPES as _COCO
from .spec import InstanceRecipe

__all__ = ["INSTANCE_RECIPES", "InstanceRecipe"]

INSTANCE_RECIPES: dict[str, Callable[[], InstanceRecipe]] = {**_COCO}
