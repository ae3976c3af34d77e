"""The validation part of a data set of files that names none: drawn by a seed, and said."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from ..errors import VanNotice
from .split import VAL_FRACTION, stratified_split


def drawn_part(count: int, split: str, *, seed: int, val_fraction: float | None, source: Path) -> np.ndarray:
    """Places, ascending, of the images of "train" or "val" among `count`.

    Warns where `val_fraction` is None, which is a fifth; raises ConfigError for a fraction outside (0, 1).
    """
    if val_fraction is None:
        val_fraction = VAL_FRACTION
        warnings.warn(
            f"{source} names no validation data; {val_fraction:.0%} of the images are drawn for it (val_fraction)",
            VanNotice,
            stacklevel=3,
        )
    parts = stratified_split([0] * count, seed=seed, val_fraction=val_fraction)
    return np.array(parts[split == "val"], np.int64)
