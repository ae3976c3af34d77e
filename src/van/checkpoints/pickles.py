"""A pickle read by a machine of its own: plain values and calls of the names that the caller offers, nothing else.

Python's unpickler imports and calls what a file names, and lets a few bytes fill the memory. Here a name is looked up
in the caller's table before anything is made, containers are Python's own, keys are plain values, and what comes out
is no deeper and, counted as a tree, no larger than a checkpoint can need.
Source: the opcodes of protocols 2 to 5, as documented in Python's pickletools, which also decodes their arguments.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..errors import UnsafeFileError

MOST_VALUES = 5_000_000  # of the expanded tree, where shared values count wherever they appear
DEEPEST = 100


@dataclass(frozen=True)
class Limits:
    """What one pickle may take.

    bytes: of the pickle; those of torch's files have some hundred kilobytes, the tensors lie outside.
    work: characters, and 64 per element, handed to calls, so that none repeats a large value for ever.
    """

    bytes: int = 2**26
    work: int = 2**26


Call = Callable[..., Any]
_KEYS = (str, bytes, int, float, bool, type(None))
_MARK = object()


class Inert:
    """Stands in for a pickled object that is no tensor; takes any arguments and any state, and keeps none."""

    def __init__(self, *arguments: object) -> None:
        pass


class Stateful:
    """What a call may return to get the state that the pickle keeps for it."""

    def restore(self, state: Any) -> None:
        """Take the state; raises ValueError for one that does not fit."""
        raise NotImplementedError


class Refused(Exception):  # noqa: N818
    """Carries the full name that is not in the caller's table."""


def refusal(path: Path, refused: Refused) -> UnsafeFileError:
    """The error for a file with a name that is not on the list."""
    name = str(refused)[:200]
    hint = "it pickles a whole module; " if name.startswith("torch.nn.") else ""
    return UnsafeFileError(
        f"{path} needs {name!r} to be unpickled, which is not on the list of harmless names; nothing was "
        f"run; {hint}if you trust its source, save its state_dict alone, where that code is installed, and load "
        "that"
    )


class Stream:
    """A file for one pickle: reads no more bytes than it may have, whatever lengths the pickle declares."""

    def __init__(self, file: IO[bytes], most_bytes: int) -> None:
        self._file, self._most, self._left = file, most_bytes, most_bytes

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        if size > self._left:
            raise ValueError(f"its pickle declares more than {self._most:,} bytes")
        self._left -= size
        return self._file.read(size)

    def readline(self) -> bytes:
        """Up to the end of a line."""
        line = self._file.readline(min(self._left, 2**16))
        self._left -= len(line)
        return line


_USUAL = Limits()


def load(
    file: IO[bytes],
    names: Callable[[str], Call | None],
    persistent: Callable[[Any], Any],
    limits: Limits = _USUAL,
) -> Any:
    """The value of one pickle at the position of `file`, which is behind it afterwards.

    names: full name ("collections.OrderedDict") -> what is called in its place; None: refused. persistent: gives the
    value of a persistent id.
    Raises Refused for a name that is not offered, ValueError for a pickle that is damaged or too large.
    """
    machine = _Machine(names, persistent, limits.work)
    for opcode, argument, _ in pickletools.genops(Stream(file, limits.bytes)):  # type: ignore[arg-type]
        if opcode.name == "STOP":
            break
        operation = _OPERATIONS.get(opcode.name)
        if operation is None:
            raise ValueError(f"its pickle uses the operation {opcode.name}")
        operation(machine, argument)
    value = machine.pop()
    check_size(value)
    return value


class _Machine:
    """The stack, the memo, and what pickles do with them."""

    def __init__(self, names: Callable[[str], Call | None], persistent: Callable[[Any], Any], most_work: int) -> None:
        self.names, self.persistent, self.most_work = names, persistent, most_work
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.work = 0

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise ValueError("its pickle needs a value where there is none")
        return self.stack.pop()

    def top(self, kind: type | tuple[type, ...]) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise ValueError("its pickle adds to something that is not a container")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                values = self.stack[place + 1 :]
                del self.stack[place:]
                return values
        raise ValueError("its pickle lacks the start of a list")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def remember(self, place: int | None) -> None:
        value = self.pop()
        self.memo[len(self.memo) if place is None else place] = value
        self.push(value)

    def recall(self, place: int) -> None:
        if place not in self.memo:
            raise ValueError("its pickle refers to a value that is not there")
        self.push(self.memo[place])

    def name(self, module: Any, attribute: Any) -> None:
        full = f"{module}.{attribute}".replace("__builtin__.", "builtins.", 1)  # protocol 2 has Python 2's names
        found = self.names(full)
        if found is None:
            raise Refused(full)
        self.push(found)

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(arguments, tuple) or not callable(function):
            raise ValueError("its pickle calls something that cannot be called")
        self.weigh(arguments)
        self.push(function(*arguments))

    def weigh(self, values: Any) -> None:
        """Count what is handed over; raises ValueError once that is more than any checkpoint needs."""
        each = values if isinstance(values, tuple) else (values,)
        self.work += sum(len(value) for value in each if isinstance(value, str | bytes))
        self.work += 64 * sum(len(value) for value in each if isinstance(value, list | tuple | dict))  # slower to copy
        if self.work > self.most_work:
            raise ValueError("its pickle repeats large values")

    def call_with_names(self) -> None:
        if self.pop() != {}:
            raise ValueError("its pickle calls something with named arguments")
        self.call()

    def drop(self) -> None:
        if not self.stack:
            raise ValueError("its pickle needs a value where there is none")
        self.stack.pop()

    def build(self) -> None:
        state, value = self.pop(), self.pop()
        if isinstance(value, Stateful):
            self.weigh(state)
            value.restore(state)
        self.push(value)  # the state of anything else (an OrderedDict's metadata) says nothing that is read

    def extend(self, values: list[Any]) -> None:
        target = self.top((list, Inert))
        if isinstance(target, list):
            target.extend(values)

    def add(self, values: list[Any]) -> None:
        self.top(set).update(key(value) for value in values)

    def set_items(self, values: list[Any]) -> None:
        target = self.top((dict, Inert))
        if isinstance(target, dict):
            enter(target, values)


def enter(target: dict[Any, Any], values: list[Any]) -> None:
    """Put keys and values, which alternate, into a dict; raises ValueError for a key that is there or is no key."""
    if len(values) % 2:
        raise ValueError("its pickle has a key without a value")
    for name, value in zip(values[::2], values[1::2], strict=True):
        if key(name) in target:
            raise ValueError(f"its pickle holds {str(name)[:80]!r} twice")
        target[name] = value


def key(value: Any) -> Any:
    """The value, where it is a plain one or a flat tuple of such: hashing shared tuples of tuples would not end."""
    flat = value if type(value) is tuple and len(value) <= 16 else (value,)
    large = any(isinstance(each, int) and each.bit_length() > 64 for each in flat)
    if large or not all(isinstance(each, _KEYS) for each in flat):
        raise ValueError(f"its pickle has a {type(value).__name__} for a key")
    return value


def check_size(value: Any) -> None:
    """Raises ValueError for a value that contains itself, is too deep, or has too many values, counted as a tree."""
    sizes: dict[int, int] = {}  # of what is finished
    open_ones: set[int] = set()
    waiting: list[tuple[Any, bool]] = [(value, False)]
    while waiting:
        here, finished = waiting.pop()
        inside = list(_inside(here))
        if finished:
            open_ones.discard(id(here))
            sizes[id(here)] = 1 + sum(sizes.get(id(each), 1) for each in inside)
            if sizes[id(here)] > MOST_VALUES:
                raise ValueError(f"its pickle expands to more than {MOST_VALUES:,} values")
            continue
        if id(here) in sizes or not inside:
            continue
        if id(here) in open_ones:
            raise ValueError("its pickle contains itself")
        if len(open_ones) >= DEEPEST:
            raise ValueError(f"its pickle is nested too deeply; expected at most {DEEPEST} levels")
        open_ones.add(id(here))
        waiting += [(here, True), *((each, False) for each in inside)]


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _tuple(machine: _Machine, count: int) -> None:
    values = [machine.pop() for _ in range(count)]
    machine.push(tuple(reversed(values)))


def _pairs(values: list[Any]) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    enter(made, values)
    return made


def _set_item(machine: _Machine) -> None:
    value, name = machine.pop(), machine.pop()
    machine.set_items([name, value])


def _pushes(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda machine, argument: machine.push(value)


_ARGUMENTS = (
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_OPERATIONS: Mapping[str, Callable[[_Machine, Any], Any]] = {
    **{name: lambda machine, argument: machine.push(argument) for name in _ARGUMENTS},
    "PROTO": lambda machine, argument: None,
    "FRAME": lambda machine, argument: None,
    "MARK": _pushes(_MARK),
    "NONE": _pushes(None),
    "NEWTRUE": _pushes(True),
    "NEWFALSE": _pushes(False),
    "POP": lambda machine, argument: machine.drop(),
    "POP_MARK": lambda machine, argument: machine.since_mark(),
    "EMPTY_LIST": lambda machine, argument: machine.push([]),
    "EMPTY_DICT": lambda machine, argument: machine.push({}),
    "EMPTY_SET": lambda machine, argument: machine.push(set()),
    "EMPTY_TUPLE": _pushes(()),
    "LIST": lambda machine, argument: machine.push(machine.since_mark()),
    "TUPLE": lambda machine, argument: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, argument: _tuple(machine, 1),
    "TUPLE2": lambda machine, argument: _tuple(machine, 2),
    "TUPLE3": lambda machine, argument: _tuple(machine, 3),
    "DICT": lambda machine, argument: machine.push(_pairs(machine.since_mark())),
    "FROZENSET": lambda machine, argument: machine.push({key(value) for value in machine.since_mark()}),
    "APPEND": lambda machine, argument: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, argument: machine.extend(machine.since_mark()),
    "ADDITEMS": lambda machine, argument: machine.add(machine.since_mark()),
    "SETITEM": lambda machine, argument: _set_item(machine),
    "SETITEMS": lambda machine, argument: machine.set_items(machine.since_mark()),
    "BINPUT": lambda machine, argument: machine.remember(argument),
    "LONG_BINPUT": lambda machine, argument: machine.remember(argument),
    "MEMOIZE": lambda machine, argument: machine.remember(None),
    "BINGET": lambda machine, argument: machine.recall(argument),
    "LONG_BINGET": lambda machine, argument: machine.recall(argument),
    "GLOBAL": lambda machine, argument: machine.name(*argument.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, argument: machine.name(*reversed((machine.pop(), machine.pop()))),
    "REDUCE": lambda machine, argument: machine.call(),
    "NEWOBJ": lambda machine, argument: machine.call(),
    "NEWOBJ_EX": lambda machine, argument: machine.call_with_names(),
    "BUILD": lambda machine, argument: machine.build(),
    "BINPERSID": lambda machine, argument: machine.push(machine.persistent(machine.pop())),
}
