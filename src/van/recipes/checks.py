"""Checks of recipe fields; each raises ConfigError with name, value and what was expected."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable
from typing import Any

from ..errors import ConfigError, UnknownNameError

MAX_SIDE = 16_384  # pixels


def one_of(name: str, value: str, known: Iterable[str]) -> None:
    """A choice from a table."""
    if value not in tuple(known):
        raise UnknownNameError.of(f"value of {name}:", str(value), known)


def in_range(name: str, value: float, low: float, high: float) -> None:
    """A finite number between both ends, which are allowed."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or math.isinf(value):
        end = "or more" if high == math.inf else f"to {high}"
        raise ConfigError(f"{name} is {value!r}; expected a number, {low} {end}")


def at_least(name: str, value: int | None, low: int, high: int = 10**9) -> None:
    """A whole number up to `high`, or None."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ConfigError(f"{name} is {reprlib.repr(value)}; expected a whole number of at least {low}")
    if value > high:
        raise ConfigError(f"{name} is {reprlib.repr(value)}; expected a whole number of at most {high}")


def ordered(name: str, value: tuple[float, float] | None) -> None:
    """Two positive numbers, the smaller first, or None."""
    if value is not None and (len(value) != 2 or not 0 < value[0] <= value[1]):
        raise ConfigError(f"{name} is {value}; expected two positive numbers, the smaller first")


def file_name(name: str) -> None:
    """A name that can be a folder's."""
    if not name or len(name) > 100 or any(not (c.isalnum() or c in "._-") for c in name):
        raise ConfigError(f"recipe name is {name!r}; use letters, digits, '.', '_' and '-': it names the run's folder")


def check_head(model: Any) -> None:
    """The options of a network's section that choose between the checkpoint's head and a fresh one."""
    if model.reset_head and model.checkpoint is None:
        raise ConfigError("model.reset_head needs model.checkpoint; a new network has a new head anyway")
    if model.keep_head and model.checkpoint is None:
        raise ConfigError("model.keep_head needs model.checkpoint; a new network has no head to keep")
    if model.keep_head and model.reset_head:
        raise ConfigError("model.keep_head and model.reset_head contradict each other; leave one of them out")


def check_weights(weights: tuple[float, ...] | dict[str, float] | str) -> None:
    """Weights of classes in a loss: "balanced", or numbers of which some are above 0."""
    if isinstance(weights, str):
        one_of("loss.class_weights", weights, ("balanced",))
        return
    numbers = tuple(weights.values()) if isinstance(weights, dict) else tuple(weights)
    for number in numbers:
        in_range("loss.class_weights", number, 0, math.inf)
    if not any(numbers):
        raise ConfigError(f"loss.class_weights is {weights}; expected numbers of which some are above 0")
