"""Recipes for smaller machines: the same global batch, fewer images at a time."""

from __future__ import annotations

from ...errors import ConfigError
from .spec import Recipe


def small_gpu(recipe: Recipe) -> Recipe:
    """The recipe on one card of 8 GB: a quarter of the images at a time, accumulated, bf16, blocks recomputed.

    Raises ConfigError for a batch that does not divide.
    """
    return _divided(recipe, 4)


def tiny_gpu(recipe: Recipe) -> Recipe:
    """The recipe on one card of 4 GB: a sixteenth of the images at a time, accumulated, bf16, blocks recomputed.

    Raises ConfigError for a batch that does not divide.
    """
    return _divided(recipe, 16)


def _divided(recipe: Recipe, parts: int) -> Recipe:
    """BatchNorm then sees so many images fewer at a time."""
    spec = recipe.trainer
    if spec.batch_size % parts or (recipe.augment.mixes and spec.batch_size // parts % 2):
        raise ConfigError(
            f"trainer.batch_size {spec.batch_size} does not divide into {parts} even parts; set trainer.batch_size, "
            "trainer.accumulate and model.grad_checkpointing yourself"
        )
    return recipe.with_options(
        **{
            "trainer.devices": 1,
            "trainer.batch_size": spec.batch_size // parts,
            "trainer.accumulate": spec.accumulate * spec.devices * parts,
            "trainer.precision": "bf16",
            "model.grad_checkpointing": True,
        }
    )


CLASSIFICATION_PRESETS = {"small_gpu": small_gpu, "tiny_gpu": tiny_gpu}
