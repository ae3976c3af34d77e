"""Whether a value is of the kind that a field of a recipe declares, before any other check computes with it."""

from __future__ import annotations

import math
import reprlib
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from ..errors import ConfigError
from .reading import LARGEST

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
MAX_TEXT = 10_000


def check_types(kind: type, values: Mapping[str, Any], section: str = "") -> None:
    """Raise ConfigError for the first of `values` that its field in the dataclass `kind` cannot hold."""
    hints = _hints(kind)
    for name, value in values.items():
        if name in hints and not fits(value, hints[name]):
            full = f"{section}.{name}" if section else name
            raise ConfigError(f"{full} is {reprlib.repr(value)}; expected {in_words(hints[name])}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a declared type; numbers are finite and of 64 bits, texts of reasonable length."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, each) for each in arguments)
    if origin is tuple:
        # how many there must be is for each field's own check
        return isinstance(value, tuple | list) and all(fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            fits(key, arguments[0]) and fits(item, arguments[1]) for key, item in value.items()
        )
    if hint is float:
        if isinstance(value, int):
            return fits(value, int)
        return isinstance(value, float) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST
    if hint is str:
        return isinstance(value, str) and len(value) <= MAX_TEXT and "\0" not in value
    return isinstance(value, hint)


def in_words(hint: Any) -> str:
    """A declared type for people: "a whole number, or null"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return ", or ".join(in_words(each) for each in arguments)
    if origin is tuple:
        what = in_words(arguments[0]).removeprefix("a ")
        return f"a list of {what}s" if arguments[-1] is Ellipsis else f"a list of {len(arguments)} {what}s"
    if origin is dict:
        return "names with a number each"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {item.name: hints[item.name] for item in fields(kind)}
