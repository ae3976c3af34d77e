"""Recipes of semantic segmentation: ADE20K as published, digit scenes."""

from .ade20k import SEGMENTATION_RECIPES
from .presets import PRESETS
from .spec import SegmentationRecipe

__all__ = ["PRESETS", "SEGMENTATION_RECIPES", "SegmentationRecipe"]
