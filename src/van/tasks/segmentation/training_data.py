"""The images and label maps of a recipe: folders, the digit scenes, and what timm's readers read."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ...data.infinite_sampler import spread
from ...data.labelled_pixels import SegmentationData
from ...data.mask_readers import MaskStream, open_mask_reader
from ...data.segmentation import open_segmentation
from ...errors import ConfigError, DataError
from ...recipes import SegmentationRecipe

Pictures: TypeAlias = SegmentationData | MaskStream

COUNTED = 1000  # label maps, for balanced weights


def open_pictures(recipe: SegmentationRecipe) -> tuple[Pictures, Pictures]:
    """Training and validation images; raises ConfigError, DataError, MissingExtraError."""
    spec = recipe.data
    if spec.path is None:
        raise ConfigError("no data: give --data (data.path), a data set of label maps, its dataset.yaml, or 'scenes'")
    train: Pictures
    val: Pictures
    if spec.reader is not None:
        chosen = {"seed": recipe.trainer.seed, "batch_size": recipe.trainer.batch_size}
        train, val = (open_mask_reader(spec, split, **chosen) for split in ("train", "val"))
    else:
        options: dict[str, Any] = {"val_fraction": spec.val_fraction}
        options |= {"seed": spec.split_seed} if spec.split_seed is not None else {}
        options |= {"scene_size": spec.scene_size} if spec.scene_size is not None else {}
        train, val = (open_segmentation(spec.path, split, **options) for split in ("train", "val"))
    if not len(train) or not len(val):
        raise DataError(
            f"{spec.path} has {len(train)} training and {len(val)} validation images; expected some of each"
        )
    return train, val


def count_pixels(data: SegmentationData) -> Tensor:
    """Pixels of each class, (K,), in up to 1000 label maps, spread over all."""
    counts = np.zeros(len(data.classes), np.int64)
    for index in spread(len(data), COUNTED):
        _, labels = data.load(index)
        counts += np.bincount(labels.ravel(), minlength=data.ignore_index + 1)[: len(counts)]
    return torch.from_numpy(counts)
