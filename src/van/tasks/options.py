"""Options that belong to a task: fields of frozen dataclasses, of which the command line makes its arguments.

    @dataclass(frozen=True, kw_only=True)
    class ToyOptions:
        top: int = option(5, "classes to list per image", kind=int)

The Python interface takes the fields by their names; the command line takes those made by `option` as flags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import ConfigError, UnknownOptionError

if TYPE_CHECKING:
    from .base import Task

Options = TypeVar("Options")


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


def parse_options(kind: type[Options], given: Mapping[str, object], *, task: Task, name: str) -> Options:
    """Options of a task from keyword arguments; what belongs to another task may be there with its default or None.

    name: what to call the model in errors. Raises ConfigError for a value of another task's option,
    UnknownOptionError for a name that no task has.
    """
    own = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    for option_name, value in given.items():
        if option_name in own:
            continue
        owners, default = _owners(option_name, kind, task)
        if not owners:
            raise UnknownOptionError.of(f"option of a {task.noun}", option_name, sorted(own))
        if value is not None and value != default:
            raise ConfigError(f"{option_name} belongs to {owners}, which {name} is not; leave it out")
    return kind(**{key: value for key, value in given.items() if key in own})


def changed(options: object) -> list[str]:
    """Names of the options with `network` that differ from their defaults."""
    kept = [each for each, flag in flags(type(options)) if flag.network]
    return [each.name for each in kept if getattr(options, each.name) != each.default]


def owners_of(names: Sequence[str]) -> str:
    """`classifiers and segmenters`."""
    return " and ".join(f"{name}s" for name in names)


def _owners(name: str, kind: type, task: Task) -> tuple[str, object]:
    """The other tasks that have an option of this name, in words, and its default."""
    from . import TASKS

    found: dict[str, object] = {}
    for other in TASKS.values():
        same = other.eval_options if kind is task.eval_options else other.predict_options
        found |= {other.noun: each.default for each in fields(same) if each.name == name}
    return owners_of(list(found)), next(iter(found.values()), None)


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
