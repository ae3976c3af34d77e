"""Training by a recipe on pytorch-lightning: `run(recipe)` returns the folder with everything about the run.

The module can be called: `van.train("finetune", {"data.path": "my_data"})`.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import MissingExtraError

try:
    import pytorch_lightning  # noqa: F401
    import timm  # noqa: F401
    import torchdata  # noqa: F401
except ImportError as error:
    raise MissingExtraError.of("pytorch-lightning, timm and torchdata", "train", "for training") from error

from ..recipes import BaseRecipe, configured
from .run import run

__all__ = ["run", "train"]


def train(
    recipe: str | BaseRecipe, settings: Mapping[str, Any] | None = None, /, **sections: Mapping[str, Any]
) -> Path:
    """Train by a recipe, as `van train` does, and return the run's folder.

    recipe: a name of `van train --list`, or a Recipe. settings: by dotted name, `{"data.path": "my_data",
    "optim.lr": 1e-4}`; sections: the same by section, `trainer={"epochs": 3}`.
    Raises ConfigError, DataError, and what `run` raises.
    """
    return run(configured(recipe, {**(settings or {}), **sections}))


class _Train(ModuleType):
    """This module, called as `van.train(…)`."""

    def __call__(
        self, recipe: str | BaseRecipe, settings: Mapping[str, Any] | None = None, /, **sections: Mapping[str, Any]
    ) -> Path:
        return train(recipe, settings, **sections)


sys.modules[__name__].__class__ = _Train
