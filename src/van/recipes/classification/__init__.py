"""Recipes of classification: ImageNet-1K and -22K as published, your own images, the embedded digits."""

from __future__ import annotations

from collections.abc import Callable

from .digits import digits_van_b0
from .finetune import finetune, finetune_few, finetune_head
from .imagenet import IMAGENET_RECIPES
from .imagenet22k import IMAGENET22K_RECIPES
from .presets import CLASSIFICATION_PRESETS
from .spec import Recipe

__all__ = ["CLASSIFICATION_PRESETS", "CLASSIFICATION_RECIPES", "Recipe"]

CLASSIFICATION_RECIPES: dict[str, Callable[[], Recipe]] = {
    **{recipe.__name__: recipe for recipe in (digits_van_b0, finetune, finetune_few, finetune_head)},
    **IMAGENET_RECIPES,
    **IMAGENET22K_RECIPES,
}
