"""Recipes on one device, with the global batch that they have on several."""

from __future__ import annotations

from typing import TypeVar

from ..errors import ConfigError
from .base import BaseRecipe

R = TypeVar("R", bound=BaseRecipe)


def whole_batch(recipe: R) -> R:
    """The recipe on one device that holds the whole batch, bf16."""
    batch = recipe.global_batch
    return recipe.with_options(
        **{"trainer.devices": 1, "trainer.batch_size": batch, "trainer.accumulate": 1, "trainer.precision": "bf16"}
    )


def two_images_at_a_time(recipe: R) -> R:
    """The recipe on one small device: two images at a time, accumulated to the same batch, bf16, blocks recomputed.

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
