"""Recipes for smaller machines: the same global batch, fewer images or devices at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..one_device import two_images_at_a_time, whole_batch
from .recipe import ObjectRecipe

R = TypeVar("R", bound=ObjectRecipe)


def one_gpu(recipe: R) -> R:
    """The recipe on one device that holds the whole batch, bf16; BatchNorm sees all of it at a time."""
    return whole_batch(recipe)


def small_gpu(recipe: R) -> R:
    """The recipe on one small device: two images at a time, accumulated to the same batch, bf16, blocks recomputed.

    Losses are then divided by the objects of two images at a time.
    Raises ConfigError for an odd batch.
    """
    return two_images_at_a_time(recipe)


def presets() -> dict[str, Callable[[R], R]]:
    """The presets of a task's recipes."""
    return {"one_gpu": one_gpu, "small_gpu": small_gpu}
