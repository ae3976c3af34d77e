"""Recipes for smaller machines: the same global batch, fewer images or devices at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ...errors import ConfigError
from .recipe import ObjectRecipe

R = TypeVar("R", bound=ObjectRecipe)


def one_gpu(recipe: R) -> R:
    """The recipe on one device that holds the whole batch, bf16; BatchNorm sees all of it at a time."""
    batch = recipe.global_batch
    return recipe.with_options(
        **{"trainer.devices": 1, "trainer.batch_size": batch, "trainer.accumulate": 1, "trainer.precision": "bf16"}
    )


def small_gpu(recipe: R) -> R:
    """The recipe on one small device: two images at a time, accumulated to the same batch, bf16, blocks recomputed.

    Losses are then divided by the objects of two images at a time.
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


def presets() -> dict[str, Callable[[R], R]]:
    """The presets of a task's recipes."""
    return {"one_gpu": one_gpu, "small_gpu": small_gpu}
