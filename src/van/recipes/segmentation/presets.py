"""Recipes for smaller machines: the same global batch, fewer images or devices at a time."""

from __future__ import annotations

from collections.abc import Callable

from ..one_device import two_images_at_a_time, whole_batch
from .spec import SegmentationRecipe


def one_gpu(recipe: SegmentationRecipe) -> SegmentationRecipe:
    """The recipe on one device that holds the whole batch: the same BatchNorm statistics as SyncBN's on eight."""
    return whole_batch(recipe)


def small_gpu(recipe: SegmentationRecipe) -> SegmentationRecipe:
    """The recipe on one small device: two images at a time, accumulated to the same batch, bf16, blocks recomputed.

    BatchNorm then sees two images at a time, where SyncBN saw the whole batch.
    Raises ConfigError for an odd batch.
    """
    return two_images_at_a_time(recipe)


PRESETS: dict[str, Callable[[SegmentationRecipe], SegmentationRecipe]] = {"one_gpu": one_gpu, "small_gpu": small_gpu}
