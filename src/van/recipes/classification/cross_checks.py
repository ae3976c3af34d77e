"""Options of a classification recipe's sections that cannot act together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import ConfigError

if TYPE_CHECKING:
    from .spec import Recipe


def check_classification(recipe: Recipe) -> None:
    """Raise ConfigError for a recipe in which an option of one section leaves one of another without effect."""
    augment, trainer = recipe.augment, recipe.trainer
    if augment.mixes and trainer.batch_size % 2:
        raise ConfigError(
            f"trainer.batch_size is {trainer.batch_size}; Mixup and CutMix pair images: use an even number"
        )
    if augment.mix_off_epoch is not None and augment.mix_off_epoch >= recipe.total_epochs:
        raise ConfigError(
            f"augment.mix_off_epoch is {augment.mix_off_epoch}, but the run has {recipe.total_epochs} epochs; use an "
            "earlier one, or null to mix to the end"
        )
    loss = recipe.loss
    if loss.name == "jsd" and augment.splits < 2:
        raise ConfigError(
            f"loss.name jsd compares versions of an image, and augment.splits is {augment.splits}; set it to 3"
        )
    if loss.teacher is not None and augment.splits > 1:
        raise ConfigError("loss.teacher and augment.splits cannot be combined; set augment.splits 1")
    if recipe.data.streams and augment.repeats > 1:
        raise ConfigError(
            f"augment.repeats draws images at random, data.reader {recipe.data.reader} has them in one order; set "
            "repeats 1"
        )
