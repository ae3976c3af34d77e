"""Recipes of detection: COCO as published, D-FINE, digit scenes."""

from __future__ import annotations

from collections.abc import Callable

from .coco import DETECTION_RECIPES as _COCO
from .digits import dfine_digits, retinanet_digits
from .spec import DetectionRecipe

__all__ = ["DETECTION_RECIPES", "DetectionRecipe"]

DETECTION_RECIPES: dict[str, Callable[[], DetectionRecipe]] = {
    **{recipe.__name__: recipe for recipe in (retinanet_digits, dfine_digits)},
    **_COCO,
}
