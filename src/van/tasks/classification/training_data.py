"""The images of a recipe: folders, the digits, and what timm's readers read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from ...data import ClassificationData, has_own_val, open_classification
from ...data.readers import open_reader, read_classes
from ...data.streams import StreamData
from ...errors import ConfigError, DataError
from ...recipes import DataSpec, Recipe

Images: TypeAlias = ClassificationData | StreamData


def open_images(recipe: Recipe) -> tuple[Images, Images]:
    """Training and validation images; raises ConfigError, DataError, MissingExtraError."""
    spec = recipe.data
    if spec.path is None:
        raise ConfigError("no data: give --data (data.path), class folders, train/ and val/ of them, or 'digits'")
    if spec.reader is None:
        train, val = _open_folders(spec)
    else:
        seed, batch_size = recipe.trainer.seed, recipe.trainer.batch_size
        train, val = (open_reader(spec, split, seed=seed, batch_size=batch_size) for split in ("train", "val"))
        if train.classes != val.classes:
            raise DataError(f"{spec.path}: training and validation classes differ; make them the same")
    if len(train.classes) < 2:
        raise DataError(f"{spec.path} has one class, {train.classes[0]!r}; training needs at least two class folders")
    return train, val


def _open_folders(spec: DataSpec) -> tuple[Images, Images]:
    assert spec.path is not None
    chosen = {"seed": spec.split_seed, "val_fraction": spec.val_fraction}
    options: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    if options and has_own_val(spec.path):
        raise ConfigError(
            f"{spec.path} has its own validation images, so data.val_fraction and data.split_seed have no effect; "
            "leave them out"
        )
    if spec.classes is not None:
        options["classes"] = read_classes(spec.classes)
    if spec.index is not None:
        options["index"] = Path(spec.index)
    train, val = (open_classification(spec.path, split, **options) for split in ("train", "val"))
    return train, val
