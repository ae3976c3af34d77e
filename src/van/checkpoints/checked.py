"""The one step between what a file says about its network and what is believed: types, sizes, texts.

Fields of configurations check themselves (`VanConfig`, `SegmenterConfig`, `Preprocess`, `Inference`); `layout`
compares them with the tensors before anything is built. Here is what has no such class: names, colours, provenance.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .checkpoint import Palette

MOST_VALUES = 100_000  # of a provenance: scores, a recipe, a few lists
DEEPEST = 20
MOST_LETTERS = 1_000  # of a class name


def class_names(values: Any) -> tuple[str, ...] | None:
    """Class names as a tuple of texts; None for nothing.

    Raises CheckpointError for values that are no texts or numbers, or a name that is longer than MOST_LETTERS.
    """
    if values is None:
        return None
    if not isinstance(values, list | tuple):
        raise CheckpointError(f"its class names are a {type(values).__name__}; expected a list of strings")
    for value in values:
        if not isinstance(value, str | int | float | np.str_ | np.number):
            raise CheckpointError(f"a class name is a {type(value).__name__}; expected a string")
        if isinstance(value, str) and len(value) > MOST_LETTERS:
            raise CheckpointError(f"a class name has {len(value):,} characters; expected at most {MOST_LETTERS:,}")
    return tuple(map(str, values)) or None


def _cleaned(text: str, kept: str = "") -> str:
    if text.isprintable():
        return text
    bad = {letter for letter in text if letter not in kept and unicodedata.category(letter) in ("Cc", "Cs")}
    return text.translate({ord(letter): "\ufffd" for letter in bad})


def colors(values: Any) -> Palette | None:
    """A palette as a tuple of (R, G, B), 0 to 255 each; None for anything else."""
    if not isinstance(values, list | tuple | np.ndarray):
        return None
    try:
        rows = tuple((int(r), int(g), int(b)) for r, g, b in values)
    except (TypeError, ValueError, OverflowError):
        return None
    return rows if rows and all(0 <= each <= 255 for row in rows for each in row) else None


def provenance(values: Any) -> dict[str, Any]:
    """The provenance as plain JSON-ready values.

    Raises CheckpointError for anything else than named values, for more values than a checkpoint needs, and for an
    invalid split or inference section.
    """
    if not isinstance(values, Mapping):
        raise CheckpointError(f"its provenance is a {type(values).__name__}; expected named values")
    left = [MOST_VALUES]
    stated = {_text(name): _plain(value, left, 0) for name, value in values.items()}
    for name in ("split", "inference"):
        if stated.get(name) is not None and not isinstance(stated[name], dict):
            raise CheckpointError(
                f"its provenance has a {type(stated[name]).__name__} as {name}; expected named values"
            )
    split = stated.get("split") or {}
    seed, fraction = split.get("seed"), split.get("val_fraction")
    if not (seed is None or (type(seed) is int and 0 <= seed < 2**63)):
        raise CheckpointError(f"its split has the seed {seed!r:.80}; expected a whole number")
    if not (fraction is None or (isinstance(fraction, int | float) and 0 <= fraction < 1)):
        raise CheckpointError(f"its split has the val_fraction {fraction!r:.80}; expected a share between 0 and 1")
    return stated


def counters(values: Any) -> dict[str, int]:
    """BatchNorm counters by key; raises CheckpointError for numbers that no counter can have."""
    if not isinstance(values, Mapping):
        raise CheckpointError(f"its counters are a {type(values).__name__}; expected named numbers")
    for name, count in values.items():
        if type(count) is not int or not 0 <= count < 2**63:
            raise CheckpointError(f"its counter {name!r:.80} is {_shown(count)}; expected a whole number of at least 0")
    return dict(values)


def _plain(value: Any, left: list[int], depth: int) -> Any:
    left[0] -= 1
    if left[0] < 0 or depth > DEEPEST:
        raise CheckpointError(f"its provenance has more than {MOST_VALUES:,} values, or more than {DEEPEST} levels")
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise CheckpointError("its provenance has a number beyond 64 bits")
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {_text(name): _plain(each, left, depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(each, left, depth + 1) for each in value)
    raise CheckpointError(f"its provenance has a {type(value).__name__}; expected strings and numbers")


def _text(value: Any) -> str:
    if not isinstance(value, str | bool | int | float) or _is_long(value):
        raise CheckpointError(f"its provenance has a {type(value).__name__} for a name; expected a string")
    return _cleaned(str(value), kept="\n\t")


def _is_long(value: Any) -> bool:
    return isinstance(value, int) and value.bit_length() > 64


def _shown(value: Any) -> str:
    return "a number beyond 64 bits" if _is_long(value) else repr(value)[:80]


def not_finite(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Keys of the arrays that hold a NaN or an infinity."""
    return [key for key, array in arrays.items() if array.dtype.kind == "f" and not _all_finite(array)]


def _all_finite(array: np.ndarray) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(np.sum(array, dtype=np.float64))  # without a copy; only its own overflow needs a second look
    return math.isfinite(total) or bool(np.isfinite(array).all())
