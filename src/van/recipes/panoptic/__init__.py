"""Recipes of panoptic segmentation: COCO as published, digit scenes."""

from __future__ import annotations

from collections.abc import Callable

from .coco import PANOPTIC_RECIPES as _COCO
from .digits import mask2former_digits
from .spec import PanopticRecipe

__all__ = ["PANOPTIC_RECIPES", "PanopticRecipe"]

PANOPTIC_RECIPES: dict[str, Callable[[], PanopticRecipe]] = {
    **{recipe.__name__: recipe for recipe in (mask2former_digits,)},
    **_COCO,
}
