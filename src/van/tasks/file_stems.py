"""File names for the results of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..files import fitting_stem

_LONGEST_END = "_999999999.png"  # of a file's name, its number included


def stems_of(names: Sequence[Path]) -> tuple[str, ...]:
    """File names without suffix, each once: one that is taken gets its folder's name before it, then a number."""
    taken: dict[str, None] = {}  # in order
    numbers = Counter[str]()  # given to a stem so far
    for name in names:
        stem = fitting_stem(name.stem, longest=_LONGEST_END)
        if stem in taken:
            stem = first = fitting_stem(f"{name.parent.name}_{name.stem}", longest=_LONGEST_END)
            while stem in taken:
                numbers[first] += 1
                stem = f"{first}_{numbers[first] + 1}"
        taken[stem] = None
    return tuple(taken)
