"""Reading JSON that others wrote: whatever is wrong with the text is a ValueError on one line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from .paths import why_no_file

MOST_BYTES = 2**27  # an index of a model with many shards has some hundred kilobytes
DEEPEST = 100


def parse(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises ValueError where it is no JSON, nested deeper than DEEPEST, longer than MOST_BYTES, names a key twice, or
    holds a number or a text that Python could not write again.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"{len(text):,} characters of JSON; expected at most {MOST_BYTES:,}")
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"nested too deeply; expected at most {DEEPEST} levels") from None
    _check(value)
    return value


def read(path: Path) -> Any:
    """The value in a JSON file; raises ValueError as `parse` does, OSError for a file that cannot be read."""
    if path.exists() and (reason := why_no_file(path)):
        raise ValueError(f"it {reason}")
    with path.open("rb") as file:
        return parse(file.read(MOST_BYTES + 1))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} stands there twice")
    return found


def _finite(text: str) -> float:
    """1e999 would become infinite; NaN and Infinity, as Python writes them, are spelled otherwise and stay."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:40]} is beyond what a float holds")
    return number


def _check(value: Any) -> None:
    """Depth, and texts that are no Unicode (half of a surrogate pair), but for names that were bytes, not UTF-8."""
    waiting = [(value, 0)]
    while waiting:
        here, depth = waiting.pop()
        if depth > DEEPEST:
            raise ValueError(f"nested too deeply; expected at most {DEEPEST} levels")
        if isinstance(here, dict):
            waiting += [(name, depth) for name in here] + [(each, depth + 1) for each in here.values()]
        elif isinstance(here, list):
            waiting += [(each, depth + 1) for each in here]
        elif isinstance(here, str) and not here.isascii():
            here.encode(errors="surrogateescape")  # UnicodeEncodeError is a ValueError
