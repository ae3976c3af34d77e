"""Recipes for smaller machines: the same global batch, fewer images or devices at a time."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import ConfigError
from .spec import SegmentationRecipe


def one_gpu(recipe: SegmentationRecipe) -> SegmentationRecipe:
    """The recipe on one device that holds the whole batch: the same BatchNorm statistics as SyncBN's on eight."""
    batch = recipe.global_batch
    return recipe.with_options(
        **{"trainer.devices": 1, "trainer.batch_size": batch, "trainer.accumulate": 1, "trainer.precision": "bf16"}
    )


def small_gpu(recipe: SegmentationRecipe) -> SegmentationRecipe:
    """The recipe on one small device: two images at a time, accumulated to the same batch, bf16, blocks recomputed.

    BatchNorm then sees two images at a time, where SyncBN saw the whole batch.
    Raises ConfigError for an odd batch.
    """
    batch = recipe.global_batch
    if batch % 2:
        raise ConfigError(f"a batch of {batch} images does not split into pairs; use an even one")
    return recipe.with_options(
        **{
            "trainer.devices": 1,
            "trainer.batch_size": 2,
            "trainer.accumulate": batch // 2,
            "trainer.precision": "bf16",
            "model.grad_checkpointing": True,
        }
    )


PRESETS: dict[str, Callable[[SegmentationRecipe], SegmentationRecipe]] = {"one_gpu": one_gpu, "small_gpu": small_gpu}
