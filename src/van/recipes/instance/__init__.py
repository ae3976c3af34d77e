"""Recipes of instance segmentation: COCO as published, digit scenes."""

from __future__ import annotations

from collections.abc import Callable

from .coco import INSTANCE_RECIPES as _COCO
from .digits import mask_rcnn_digits
from .spec import InstanceRecipe

__all__ = ["INSTANCE_RECIPES", "InstanceRecipe"]

INSTANCE_RECIPES: dict[str, Callable[[], InstanceRecipe]] = {
    **{recipe.__name__: recipe for recipe in (mask_rcnn_digits,)},
    **_COCO,
}
