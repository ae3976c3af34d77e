"""Options of different sections that cannot act together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from .spec import Recipe


def check_together(recipe: Recipe) -> None:
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
    _check_loss(recipe)
    _check_data(recipe)
    _check_milestones(recipe)


def _check_loss(recipe: Recipe) -> None:
    loss, augment = recipe.loss, recipe.augment
    if loss.name == "jsd" and augment.splits < 2:
        raise ConfigError(
            f"loss.name jsd compares versions of an image, and augment.splits is {augment.splits}; set it to 3"
        )
    if loss.teacher is not None and augment.splits > 1:
        raise ConfigError("loss.teacher and augment.splits cannot be combined; set augment.splits 1")


def _check_data(recipe: Recipe) -> None:
    data, trainer = recipe.data, recipe.trainer
    if data.prefetch is not None and trainer.workers == 0:
        raise ConfigError("data.prefetch is for workers that read ahead, and trainer.workers is 0; set it to 1 or more")
    if data.streams and trainer.max_unreadable is not None:
        raise ConfigError(
            f"trainer.max_unreadable is for folders; data.reader {data.reader} skips what it cannot read and logs it: "
            "leave it out"
        )
    if data.streams and recipe.augment.repeats > 1:
        raise ConfigError(
            f"augment.repeats draws images at random, data.reader {data.reader} has them in one order; set repeats 1"
        )


def _check_milestones(recipe: Recipe) -> None:
    late = [epoch for epoch in recipe.schedule.milestones or () if epoch >= recipe.total_epochs]
    if late:
        raise ConfigError(
            f"schedule.milestones has {late[0]}, but the run has {recipe.total_epochs} epochs; use earlier ones"
        )
