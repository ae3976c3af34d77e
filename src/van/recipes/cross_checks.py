"""Options of different sections that cannot act together, whatever the task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigError
from .process_checks import check_frozen

if TYPE_CHECKING:
    from .base import BaseRecipe


def check_sections(recipe: BaseRecipe) -> None:
    """Raise ConfigError for a recipe in which an option of one section leaves one of another without effect."""
    data, trainer = recipe.data, recipe.trainer
    check_frozen(recipe)
    if data.prefetch is not None and trainer.workers == 0:
        raise ConfigError("data.prefetch is for workers that read ahead, and trainer.workers is 0; set it to 1 or more")
    if data.streams and trainer.max_unreadable is not None:
        raise ConfigError(
            f"trainer.max_unreadable is for folders; data.reader {data.reader} skips what it cannot read and logs it: "
            "leave it out"
        )
