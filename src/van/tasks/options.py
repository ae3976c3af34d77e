"""Options that belong to a task: fields of frozen dataclasses, of which the command line makes its arguments.

    @dataclass(frozen=True, kw_only=True)
    class ToyOptions:
        top: int = option(5, "classes to list per image", kind=int)

The Python interface takes the fields by their names; the command line takes those made by `option` as flags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import Field, dataclass, field, fields
from enum import Enum
from typing import Any

from ..errors import ConfigError


class Own(Enum):
    """Default of an option of which None is a value: the model's own."""

    OWN = "the model's own"


OWN = Own.OWN


@dataclass(frozen=True, kw_only=True)
class Flag:
    """An option on the command line.

    name: "--top". kind: int, float, str, or bool for a flag without a value. parse: from the text to the value of the
    field; raises ConfigError. group: heading in the help. network: it changes what is run, so that an exported file
    and an opened model refuse it. single: for one checkpoint at a time only.
    """

    name: str
    help: str
    kind: type = str
    parse: Callable[[str], object] | None = None
    group: str | None = None
    network: bool = False
    single: bool = False

    @property
    def key(self) -> str:
        """Name of its value among parsed arguments."""
        return self.name.removeprefix("--").replace("-", "_")


def option(
    default: Any,
    help: str,  # noqa: A002
    *,
    kind: type = str,
    flag: str | None = None,
    parse: Callable[[str], object] | None = None,
    group: str | None = None,
    network: bool = False,
    single: bool = False,
) -> Any:
    """A field of a task's options that the command line offers too; see `Flag`. flag: by default the field's name."""
    named = {"name": flag or "", "help": help, "kind": kind, "parse": parse, "group": group}
    return field(default=default, metadata={"flag": {**named, "network": network, "single": single}})


def flag_of(each: Field[Any]) -> Flag | None:
    """The flag of a field, None for one that the command line does not offer."""
    made = each.metadata.get("flag")
    if made is None:
        return None
    return Flag(**{**made, "name": made["name"] or f"--{each.name.replace('_', '-')}"})


def flags(kind: type) -> Iterator[tuple[Field[Any], Flag]]:
    """(field, flag) of every option that the command line offers."""
    yield from ((each, flag) for each in fields(kind) if (flag := flag_of(each)) is not None)


def changed(options: object) -> list[str]:
    """Names of the options with `network` that differ from their defaults."""
    kept = [] if options is None else [each for each, flag in flags(type(options)) if flag.network]
    return [each.name for each in kept if getattr(options, each.name) != each.default]


def plural(nouns: Iterable[str]) -> str:
    """`classifiers and segmenters`, `classifiers, segmenters and detectors`."""
    *others, last = [f"{noun}s" for noun in nouns]
    return f"{', '.join(others)} and {last}" if others else last


# ---- texts of the command line


def side_or_sides(text: str) -> int | tuple[int, int]:
    """`224` -> 224, `224x320` -> (224, 320); raises ConfigError."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise ConfigError(f"--size is {text!r}; expected pixels as 224, or height x width as 224x320")
    return int(text) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def per_channel(flag: str) -> Callable[[str], tuple[float, ...]]:
    """What reads `0.5,0.5,0.5` -> (0.5, 0.5, 0.5) for a flag; raises ConfigError."""
    return lambda text: numbers(text, flag, "one number per channel, as 0.5,0.5,0.5")


def numbers(text: str, flag: str, expected: str) -> tuple[float, ...]:
    """`0.5,1,2` -> (0.5, 1.0, 2.0); raises ConfigError that names the flag."""
    try:
        return tuple(float(value) for value in text.split(","))
    except ValueError:
        raise ConfigError(f"{flag} is {text!r}; expected {expected}") from None
