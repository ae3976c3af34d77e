"""One seeded split for data sets that come without a validation part."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..errors import ConfigError

VAL_FRACTION = 0.2


def stratified_split(
    labels: Sequence[int], *, seed: int = 0, val_fraction: float = VAL_FRACTION
) -> tuple[list[int], list[int]]:
    """Sorted training and validation indices: `val_fraction` of every class, drawn by `seed`.

    A class of at least two keeps at least one on each side; a class of one stays in training.
    Each class is drawn by itself, so the split of a class does not depend on the other classes.
    Raises ConfigError for a fraction outside (0, 1).
    """
    if not 0 < val_fraction < 1:
        raise ConfigError(f"val_fraction is {val_fraction}; expected a fraction between 0 and 1, e.g. 0.2")
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    train: list[int] = []
    val: list[int] = []
    for label, indices in members.items():
        random.Random(f"{seed}/{label}").shuffle(indices)
        held_out = min(max(round(len(indices) * val_fraction), 1), len(indices) - 1)
        val += indices[:held_out]
        train += indices[held_out:]
    return sorted(train), sorted(val)
