"""Whether a file that was written holds what it was written from, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import CheckpointError
from .checkpoint import Checkpoint
from .head_keys import BASES
from .layout import listed


def compare(one: Checkpoint, two: Checkpoint, path: str | Path) -> int:
    """How many tensors both have; raises CheckpointError unless these are the same bits, and no field differs."""
    skipped = ("num_batches_tracked",) if two.format == "keras" else ()  # Keras has no place for it
    shared = [key for key in one.arrays if key in two.arrays and not key.endswith(skipped)]
    wrong = [key for key in shared if not _same(one.arrays[key], two.arrays[key])]
    may_lack = ("head.weight", "head.bias", *((BASES,) if two.format == "mmseg" else ()))
    wrong += [key for key in one.arrays if key not in two.arrays and key not in may_lack]
    if wrong:
        raise CheckpointError(f"{path} does not reproduce {len(wrong)} tensors: {listed(wrong)}")
    if two.config not in (one.config, one.backbone):
        raise CheckpointError(f"{path} was written, but reads back as another network: {two.config}, from {one.config}")
    _compare_facts(one, two, path)
    return len(shared)


def _compare_facts(one: Checkpoint, two: Checkpoint, path: str | Path) -> None:
    """Names, colours and preprocessing that were known must be known afterwards."""
    headless = two.num_classes != one.num_classes
    for name in ("classes", "palette", "preprocess"):
        before, after = getattr(one, name), getattr(two, name)
        if before is not None and before != after and not (headless and name != "preprocess"):
            raise CheckpointError(f"{path} was written, but reads back with {name} {after} instead of {before}")


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
